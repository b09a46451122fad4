"""Restores a run and draws pictures with it.

  python -m lwgan.sample --workdir=runs/quickstart
  python -m lwgan.sample --workdir=runs/quickstart --seed=7 --num_images=64 --step=2000
  python -m lwgan.sample --workdir=runs/quickstart --seeds=0-63 --truncation=0.7 --weights=both

Writes each picture, and a grid of the first ones as PNG, into generated/ in the run unless --out says
otherwise; nothing is overwritten. The same seed draws the same pictures, however many, whatever the
batch size. A picture of --seeds is the first of its seed.
"""

import pathlib
import secrets
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from absl import flags

from lwgan import command
from lwgan.errors import UserError

if TYPE_CHECKING:
    from lwgan.sampling import DrawnLatents, Draws
    from lwgan.trained import Trained

_OF_RUN = command.OfRun()
_STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest by default.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 16, "How many pictures.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of latents and noise.", lower_bound=0, upper_bound=2**32 - 1
)
_SEEDS = flags.DEFINE_string(
    "seeds", None, "One picture of each of these seeds instead: 0-63, or 1,5,9."
)
_LATENTS = flags.DEFINE_string(
    "latents", None, "An .npy file of latents (B, latent_dim), one picture for each."
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "ema", ["ema", "raw", "both"], "The averaged generator, or the live one."
)
_TRUNCATION = flags.DEFINE_float(
    "truncation",
    1.0,
    "Multiplies the latents; 0: the same for all pictures.",
    lower_bound=0.0,
)
_NOISE = flags.DEFINE_enum(
    "noise",
    "fixed",
    ["fixed", "fresh", "zero"],
    "The noise inputs: the seed's, others every time the command runs, or none.",
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "png",
    ["png", "webp", "jpg", "npy"],
    "Of the pictures; webp is lossless, npy writes samples.npy instead.",
)
_SAVE_NPY = flags.DEFINE_bool(
    "save_npy", False, "Also write samples.npy, float32 (B, H, W, C), before clipping."
)
_NROW = flags.DEFINE_integer("nrow", None, "Pictures in a row of the grid.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures drawn at once.", lower_bound=1)


def read_latents(path: str, latent_dim: int) -> np.ndarray:
    """Latents (B, latent_dim) in a file, which is read as they are used.

    Raises:
      UserError: no such file, or it holds something else.
    """
    expected = f"must be an .npy file of numbers (B, {latent_dim})"
    try:
        latents = np.lib.format.open_memmap(pathlib.Path(path).expanduser(), mode="r")
    except (OSError, ValueError) as error:
        raise UserError("--latents", path, expected, f"mend the file ({error})") from None
    if latents.ndim != 2 or latents.shape[1] != latent_dim or not len(latents):
        raise UserError("--latents", path, expected, f"its shape is {latents.shape}")
    if latents.dtype.kind not in "fiu" or not np.isfinite(latents).all():
        raise UserError("--latents", path, expected, "these are no finite numbers")
    return latents


class Chosen(NamedTuple):
    """The pictures that the flags ask for."""

    source: str  # names the directory
    names: list[str]  # of the files, without their extension
    latents: "np.ndarray | DrawnLatents"  # (B, latent_dim)
    draws: "Draws"  # of the noise, and of latents that are drawn


def chosen(latent_dim: int) -> Chosen:
    """Reads --seeds, or --latents, or --seed and --num_images.

    Raises:
      UserError: they cannot be read.
    """
    from lwgan.sampling import DrawnLatents, Draws

    if _SEEDS.value is not None:
        if _LATENTS.value:
            raise UserError("--seeds", _SEEDS.value, "there are --latents", "give one of them")
        seeds = command.seeds("--seeds", _SEEDS.value)
        draws = Draws(np.array(seeds, np.uint32), np.zeros(len(seeds), np.int32))
        names = [f"{number:05d}-seed{seed}" for number, seed in enumerate(seeds)]
        source = f"seeds{_SEEDS.value[:40]}"
        return Chosen(source, names, DrawnLatents(draws, latent_dim), draws)
    if _LATENTS.value:
        latents = read_latents(_LATENTS.value, latent_dim)
        draws = Draws.of_seed(_SEED.value, len(latents))
        source = pathlib.Path(_LATENTS.value).stem
    else:
        draws = Draws.of_seed(_SEED.value, _NUM_IMAGES.value)
        latents = DrawnLatents(draws, latent_dim)
        source = f"seed{_SEED.value}"
    return Chosen(source, [f"{number:05d}" for number in range(len(latents))], latents, draws)


def main() -> None:
    """Runs the command with its flags."""
    from lwgan import checkpoint, trained

    both = _WEIGHTS.value == "both"
    noise_seed = secrets.randbits(32) if _NOISE.value == "fresh" else None  # of both the same
    this_run = _OF_RUN.run()
    step = checkpoint.choose(
        this_run.workdir, _STEP.value
    )  # of both the same, as a trainer goes on
    for weights in ("ema", "raw") if both else (_WEIGHTS.value,):
        drawn_by = trained.at_step(this_run, step, weights)
        draw(drawn_by, noise_seed, within=weights if both else "")


def draw(trained: "Trained", noise_seed: int | None, within: str) -> None:
    """Draws and writes the pictures of the averaged or of the live generator."""
    from lwgan import writers
    from lwgan.sampling import Draws

    if _FORMAT.value == "jpg" and trained.generator.channels == 4:
        raise UserError("--format", "jpg", "cannot hold transparency", "choose png or webp")
    source, names, latents, noise = chosen(trained.generator.latent_dim)
    default = f"generated/{trained.step:08d}-{source}-{trained.weights}"
    if _TRUNCATION.value != 1:
        default += f"-truncation{_TRUNCATION.value:g}"
    if _NOISE.value == "zero":
        noise, default = None, f"{default}-noise0"
    elif _NOISE.value == "fresh":
        noise, default = Draws.of_seed(noise_seed, len(names)), f"{default}-noise{noise_seed}"

    extension = None if _FORMAT.value == "npy" else _FORMAT.value
    npy = _SAVE_NPY.value or extension is None
    files = [f"{name}.{extension}" for name in names] if extension else []
    written = [*files, "grid.png", *["samples.npy"] * npy]
    with _OF_RUN.output(trained.run, default, written, within) as folder:
        writers.write_pictures(
            trained.stream(latents, noise, _BATCH_SIZE.value, _TRUNCATION.value),
            folder,
            names,
            extension=extension,
            npy=npy,
            columns=_NROW.value,
        )
    if files:
        print(f"{len(files)} pictures of step {trained.step}: {folder / files[0]} … {files[-1]}")
    for name in written[len(files) :]:
        print(folder / name)


if __name__ == "__main__":
    command.run(main)
