"""Finds directions of latents in which the images of a run change most, without labels.

  python -m lwgan.directions --workdir=runs/quickstart

Factors of the first layer (SeFa) and principal components of its features (GANSpace). Writes into
directions/ in the run unless --out says otherwise, nothing is overwritten:

directions.npy
    Vectors of length 1, float32 (N, latent_dim): latents + 2 * vectors[3], for --latents of
    python -m lwgan.sample.
names.txt
    What they are called, a line each: change it as you like. python -m lwgan.explore shows it.
factor-1.png …
    What each does: a row for each seed, from the one end over the seed's own image to the other.
sheet.png
    All of them, with the first seed.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from lwgan import cli

if TYPE_CHECKING:
    from lwgan.sampling.trained import Trained

COLUMNS = 7


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    cli.define_run_flags(values)
    cli.define_checkpoint_flags(values)
    of = {"flag_values": values}
    flags.DEFINE_integer("num_directions", 10, "Of each of the two methods.", 1, **of)
    flags.DEFINE_string("seeds", "0-3", "The images that are shown: 0-7, or 1,5,9.", **of)
    reach = "How far the strips go, in parts of a latent's usual length."
    flags.DEFINE_float("reach", 0.75, reach, 0.01, 10.0, **of)
    flags.DEFINE_integer("batch_size", 16, "Images drawn at once.", 1, **of)


def draw_strip(trained: "Trained", seed: int, moves: np.ndarray, batch_size: int) -> np.ndarray:
    """A seed's image after each of ``moves`` (B, latent_dim) of its latent: uint8 (B, H, W, C)."""
    from lwgan.sampling.sampler import Draws, to_uint8

    draws = Draws(*(np.repeat(each, len(moves)) for each in Draws.of_seed(seed, 1)))
    latents = trained.latents(seed, 1) + moves
    labels = trained.drawn_labels(draws)
    return to_uint8(np.stack(list(trained.stream(latents, draws, batch_size, labels=labels))))


def show_directions(values: cli.Flags) -> None:
    """Runs the command."""
    seeds = cli.parse_seeds("--seeds", values.seeds)
    from lwgan.latents.directions import NAMES, VECTORS, find_directions, write_directions
    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.sheets import make_grid, make_sheet, thumbnails

    trained = cli.load_trained(values)
    found = find_directions(trained, values.num_directions)
    files = [f"{name.replace(' ', '-')}.png" for name in found.names]
    default = trained.run.workdir / "directions" / f"{trained.step:08d}-{trained.weights}"
    with cli.output(values, default, [VECTORS, NAMES, "sheet.png", *files]) as folder:
        write_directions(folder, found)
        reach = values.reach * np.sqrt(trained.generator.latent_dim)
        steps = np.linspace(-reach, reach, COLUMNS)[:, None]
        rows = {}
        for vector, name, file in zip(found.vectors, found.names, files, strict=True):
            strips = [
                draw_strip(trained, seed, steps * vector, values.batch_size) for seed in seeds
            ]
            rows[name] = thumbnails(strips[0])
            save_image(folder / file, make_grid(np.concatenate(strips), COLUMNS))
        save_image(folder / "sheet.png", make_sheet(rows))
    for name in (VECTORS, NAMES, "sheet.png"):
        print(folder / name)


main = functools.partial(cli.run, define_flags, show_directions)

if __name__ == "__main__":
    main()
