"""Finds the latents whose images come closest to given images.

  python -m lwgan.project --workdir=runs/quickstart --image=face.png
  python -m lwgan.project --workdir=runs/quickstart --image=faces/ --steps=1000

From the best of many latents it descends, and moves the noise inputs, too. Writes into projections/
in the run unless --out says otherwise, nothing is overwritten:

latents.npy
    float32 (B, latent_dim), for --latents of python -m lwgan.sample.
noise.npz
    The noise inputs, an array float32 (B, H, W, 1) for each size; --noise=zero searches without.
00000-face.png …
    What was found.
sheet.png
    Each image left of what was found, over its peak signal-to-noise ratio.
search.mp4
    The way there.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from lwgan import cli
from lwgan.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lwgan.latents.search import Found
    from lwgan.sampling.trained import Trained

# Images in the video.
FILMED = 16
FPS = 10
# What is written beside the images.
OTHERS = ("latents.npy", "noise.npz", "sheet.png", "search.mp4")


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    cli.define_run_flags(values)
    cli.define_checkpoint_flags(values)
    of = {"flag_values": values}
    flags.DEFINE_string("image", None, "An image, or a folder, zip or tar of images.", **of)
    flags.DEFINE_string("label", None, "The label's name or number; without, the nearest.", **of)
    flags.DEFINE_integer("seed", 0, "Of the latents that are tried first.", 0, 2**32 - 1, **of)
    flags.DEFINE_integer("candidates", 512, "How many those are.", 1, **of)
    flags.DEFINE_integer("starts", 3, "From how many of them the search goes on.", 1, **of)
    flags.DEFINE_integer("steps", 400, "Steps of each.", 1, **of)
    noise = "Whether the noise inputs are found, too, or zero."
    flags.DEFINE_enum("noise", "found", ["found", "zero"], noise, **of)


def read_targets(path: str | None, data: "ConfigDict") -> dict[str, np.ndarray]:
    """The images as a run with these settings sees them, uint8 (H, W, C), by their names.

    Raises:
      UserError: there is no image, or one does not decode.
    """
    from lwgan.data.decode import middle, read_image
    from lwgan.data.folder import open_image, open_path
    from lwgan.data.formats import is_image_name
    from lwgan.runs.files import local_path
    from lwgan.settings.shapes import shape_of

    hint = "name an image, or a folder of images"
    if not path:
        raise UserError("--image", path, "must name what is to be found", hint)
    file = local_path("--image", path)
    if not file.exists():
        raise UserError("--image", path, "there is no such image or folder", hint)
    one = is_image_name(file.name) and not file.is_dir()
    source = open_image(file) if one else open_path(path, "--image", hint, keep=False)
    images = {}
    for number, name in enumerate(source.names):
        try:
            array = read_image(source, number, data)[1]
        except ValueError as error:
            raise UserError("--image", name, f"does not decode ({error})", hint) from None
        images[name] = middle(array, shape_of(data.image_size))
    return images


def search_all(values: cli.Flags) -> None:
    """Runs the command."""
    from lwgan.latents.search import Effort, find_latent
    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.labels import as_file_name, one_label
    from lwgan.sampling.sampler import to_uint8
    from lwgan.sampling.sheets import make_sheet, thumbnails
    from lwgan.training.evaluation import critic_at

    trained = cli.load_trained(values)
    label = one_label(values.label, trained.label_names, 1)[0] if values.label else None
    targets = read_targets(values.image, trained.run.config.data)
    critic = critic_at(trained.run, trained.step)
    effort = Effort(values.candidates, values.starts, values.steps)
    default = trained.run.workdir / "projections"
    default /= f"{trained.step:08d}-{as_file_name(pathlib.Path(values.image).stem)[:40]}"
    files = [
        f"{number:05d}-{as_file_name(pathlib.PurePath(name).stem)[:80]}.png"
        for number, name in enumerate(targets)
    ]
    with cli.output(values, default, [*files, *OTHERS]) as folder:
        found, rows, films = [], {}, []
        for (name, target), file in zip(targets.items(), files, strict=True):
            way: list[np.ndarray] = []
            own = find_latent(
                trained,
                critic,
                target.astype(np.float32) / 255,
                effort,
                seed=values.seed,
                label=label,
                with_noise=values.noise == "found",
                watch=lambda image, way=way: way.append(thumbnails(to_uint8(image)[None])[0]),
            )
            image = trained.unfitted(to_uint8(own.image))
            save_image(folder / file, image)
            print(f"{folder / file}  {own.psnr:.1f} dB{label_of(own, trained)}")
            found.append(own)
            pair = np.stack([trained.unfitted(target), image])
            rows[f"{own.psnr:.1f} dB  {name}"] = thumbnails(pair)
            if len(films) < FILMED:
                films.append(np.stack(way))
        write_found(folder, found)
        save_image(folder / "sheet.png", make_sheet(rows))
        write_film(folder / "search.mp4", films)
    print(*(folder / name for name in OTHERS), sep="\n")


def label_of(found: "Found", trained: "Trained") -> str:
    """What is said of the label with which an image was found."""
    return "" if found.label is None else f", label {trained.label_names[found.label.argmax()]}"


def write_found(folder: pathlib.Path, found: Sequence["Found"]) -> None:
    """Writes latents and noise inputs."""
    from lwgan.runs.files import replacing

    with replacing(folder / "latents.npy") as part, part.open("wb") as file:
        np.save(file, np.stack([own.latent for own in found]))
    sizes = zip(*(own.noise for own in found), strict=True)
    arrays = {str(each[0].shape[0]): np.stack(each) for each in sizes}
    with replacing(folder / "noise.npz") as part, part.open("wb") as file:
        np.savez(file, **arrays)


def write_film(path: pathlib.Path, films: Sequence[np.ndarray]) -> None:
    """Films side by side, uint8 (frames, H, W, C) each; the last frame stays for a second."""
    from lwgan.sampling.sheets import make_grid, square_columns
    from lwgan.sampling.video import write_video

    columns = square_columns(len(films))
    frames = [make_grid(np.stack(images), columns) for images in zip(*films, strict=True)]
    write_video(path, iter(frames + frames[-1:] * FPS), FPS)


main = functools.partial(cli.run, define_flags, search_all)

if __name__ == "__main__":
    main()
