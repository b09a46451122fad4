"""Restores a run and draws images with it.

  python -m lwgan.sample --workdir=runs/quickstart
  python -m lwgan.sample --workdir=runs/quickstart --seed=7 --num_images=64 --step=3000
  python -m lwgan.sample --workdir=runs/quickstart --seeds=0-63 --truncation=0.7 --weights=both
  python -m lwgan.sample --workdir=runs/fleet --label=boats
  python -m lwgan.sample --workdir=runs/fleet --label=all --num_images=8

Writes each image, and a grid of the first ones as PNG, into generated/ in the run unless --out says
otherwise; nothing is overwritten. The same seed draws the same images, however many, whatever the
batch size. An image of --seeds is the first of its seed.
"""

import functools
import pathlib
import secrets
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from absl import flags

from lwgan import cli
from lwgan.errors import UserError

if TYPE_CHECKING:
    from lwgan.sampling.sampler import DrawnLatents, Draws
    from lwgan.sampling.trained import Trained

FORMATS = ["png", "webp", "jpg", "npy"]


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    cli.define_run_flags(values)
    cli.define_checkpoint_flags(values, "ema", "raw", "both")
    of = {"flag_values": values}
    flags.DEFINE_integer("num_images", 16, "How many images.", 1, **of)
    flags.DEFINE_integer("seed", 0, "Of latents and noise.", 0, 2**32 - 1, **of)
    flags.DEFINE_string("seeds", None, "One image of each of these seeds: 0-63, or 1,5,9.", **of)
    flags.DEFINE_string(
        "latents", None, "An .npy file of latents (B, latent_dim), one image for each.", **of
    )
    label = "The label's name or number, several with commas, or all: a row of images for each."
    flags.DEFINE_string("label", None, label, **of)
    flags.DEFINE_float(
        "truncation", 1.0, "Multiplies the latents; 0: the same for all images.", 0.0, **of
    )
    noise = "The noise inputs: the seed's, others every time the command runs, or none."
    flags.DEFINE_enum("noise", "fixed", ["fixed", "fresh", "zero"], noise, **of)
    kind = "Of the images; webp is lossless, npy writes samples.npy instead."
    flags.DEFINE_enum("format", "png", FORMATS, kind, **of)
    flags.DEFINE_bool(
        "save_npy", False, "Also write samples.npy, float32 (B, H, W, C), before clipping.", **of
    )
    flags.DEFINE_integer("nrow", None, "Images in a row of the grid.", 1, **of)
    flags.DEFINE_integer("batch_size", 16, "Images drawn at once.", 1, **of)


def read_latents(path: str, latent_dim: int) -> np.ndarray:
    """Latents (B, latent_dim) in a file, which is read as they are used.

    Raises:
      UserError: no such file, or it holds something else.
    """
    expected = f"must be an .npy file of numbers (B, {latent_dim})"
    from lwgan.runs.files import local_path

    try:
        latents = np.lib.format.open_memmap(local_path("--latents", path), mode="r")
    except (OSError, ValueError) as error:
        raise UserError("--latents", path, expected, f"mend the file ({error})") from None
    if latents.ndim != 2 or latents.shape[1] != latent_dim or not len(latents):
        raise UserError("--latents", path, expected, f"its shape is {latents.shape}")
    if latents.dtype.kind not in "fiu" or not np.isfinite(latents).all():
        raise UserError("--latents", path, expected, "these are no finite numbers")
    return latents


class Asked(NamedTuple):
    """The images that the flags ask for."""

    # Names the directory.
    source: str
    # Of the files, without their extension.
    names: list[str]
    # (B, latent_dim).
    latents: "np.ndarray | DrawnLatents"
    # Of the noise, and of latents that are drawn.
    draws: "Draws"


def asked_for(values: cli.Flags, latent_dim: int) -> Asked:
    """Reads --seeds, or --latents, or --seed and --num_images.

    Raises:
      UserError: they cannot be read.
    """
    from lwgan.sampling.sampler import DrawnLatents, Draws

    if values.seeds is not None:
        if values.latents:
            raise UserError("--seeds", values.seeds, "there are --latents", "give one of them")
        seeds = cli.parse_seeds("--seeds", values.seeds)
        draws = Draws(np.array(seeds, np.uint32), np.zeros(len(seeds), np.int32))
        names = [f"{number:05d}-seed{seed}" for number, seed in enumerate(seeds)]
        source = f"seeds{values.seeds[:40]}"
        return Asked(source, names, DrawnLatents(draws, latent_dim), draws)
    if values.latents:
        latents = read_latents(values.latents, latent_dim)
        draws = Draws.of_seed(values.seed, len(latents))
        source = pathlib.Path(values.latents).stem
    else:
        draws = Draws.of_seed(values.seed, values.num_images)
        latents = DrawnLatents(draws, latent_dim)
        source = f"seed{values.seed}"
    return Asked(source, [f"{number:05d}" for number in range(len(latents))], latents, draws)


class Labelled(NamedTuple):
    """What is asked for, of one label or of several in turn."""

    asked: Asked
    # (B, K); None without labels.
    labels: np.ndarray | None
    # Names the directory.
    suffix: str
    # Of the grid: a row for each of several labels.
    columns: int | None = None


def for_labels(values: cli.Flags, asked: Asked, trained: "Trained") -> Labelled:
    """The images of each label that --label names; without, one is drawn for each image."""
    from lwgan.sampling.labels import chosen_labels, file_names, label_suffix, labels_at
    from lwgan.sampling.sampler import DrawnLatents, Draws

    names = trained.label_names
    if values.label is None:
        return Labelled(asked, trained.drawn_labels(asked.draws), "")
    places, count = chosen_labels(values.label, names), len(asked.names)
    labels = labels_at(np.repeat(places, count), names)
    suffix = label_suffix(values.label)
    if len(places) == 1:
        return Labelled(asked, labels, suffix)
    draws = Draws(*(np.tile(each, len(places)) for each in asked.draws))
    latents = asked.latents
    if isinstance(latents, DrawnLatents):
        latents = DrawnLatents(draws, latents.latent_dim)
    else:
        latents = np.concatenate([latents] * len(places))
    of_labels = [f"{own}-{name}" for own in file_names(places, names) for name in asked.names]
    return Labelled(Asked(asked.source, of_labels, latents, draws), labels, suffix, count)


def draw_samples(values: cli.Flags) -> None:
    """Runs the command."""
    from lwgan.sampling.trained import load_step

    both = values.weights == "both"
    # One noise seed and one step for both generators: a trainer may save another step meanwhile.
    noise_seed = secrets.randbits(32) if values.noise == "fresh" else None
    run = cli.open_run(values)
    step = cli.checkpoint_step(values, run)
    for weights in ("ema", "raw") if both else (values.weights,):
        trained = load_step(run, step, weights)
        draw_with(values, trained, noise_seed, within=weights if both else "")


def draw_with(
    values: cli.Flags, trained: "Trained", noise_seed: int | None, *, within: str
) -> None:
    """Draws and writes the images of one of the generators."""
    from lwgan.sampling.image_files import write_images
    from lwgan.sampling.sampler import Draws

    run = trained.run
    if values.format == "jpg" and trained.generator.channels == 4:
        raise UserError("--format", "jpg", "cannot hold transparency", "choose png or webp")
    asked = asked_for(values, trained.generator.latent_dim)
    asked, labels, suffix, columns = for_labels(values, asked, trained)
    source, names, latents, noise = asked
    default = f"{trained.step:08d}-{source}-{trained.weights}{suffix}"
    if values.truncation != 1:
        default += f"-truncation{values.truncation:g}"
    if values.noise == "zero":
        noise, default = None, f"{default}-noise0"
    elif values.noise == "fresh":
        noise, default = Draws.of_seed(noise_seed, len(names)), f"{default}-noise{noise_seed}"

    extension = None if values.format == "npy" else values.format
    npy = values.save_npy or extension is None
    images = [f"{name}.{extension}" for name in names] if extension else []
    written = [*images, "grid.png", *["samples.npy"] * npy]
    default_folder = run.workdir / "generated" / default
    with cli.output(values, default_folder, written, within) as folder:
        stream = trained.stream(latents, noise, values.batch_size, values.truncation, labels=labels)
        write_images(
            stream,
            folder,
            names,
            extension=extension,
            npy=npy,
            columns=values.nrow or columns,
            finish=trained.unfitted,
        )
    if images:
        print(f"{len(images)} images of step {trained.step}: {folder / images[0]} … {images[-1]}")
    for name in written[len(images) :]:
        print(folder / name)


main = functools.partial(cli.run, define_flags, draw_samples)

if __name__ == "__main__":
    main()
