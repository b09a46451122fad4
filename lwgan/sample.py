"""Restores a run and draws pictures with it.

  python -m lwgan.sample --workdir=runs/quickstart
  python -m lwgan.sample --workdir=runs/quickstart --seed=7 --num_images=64 --step=2000

Writes each picture and one grid as PNG, into generated/ in the run unless --out says otherwise. The
same seed draws the same pictures, whatever the batch size.
"""

import pathlib

import numpy as np
from absl import flags

from lwgan import command
from lwgan.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest by default.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 16, "How many pictures.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of latents and noise.", lower_bound=0, upper_bound=2**32 - 1
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "ema", ["ema", "raw"], "The averaged generator, or the live one."
)
_LATENTS = flags.DEFINE_string(
    "latents", None, "An .npy file of latents (B, latent_dim), one picture for each."
)
_OUT = flags.DEFINE_string("out", None, "Directory to write to, made if missing.")
_SAVE_NPY = flags.DEFINE_bool(
    "save_npy", False, "Also write samples.npy, float32 (B, H, W, C), before clipping."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures drawn at once.", lower_bound=1)


def read_latents(path: str, latent_dim: int) -> np.ndarray:
    """Latents float32 (B, latent_dim) from a file.

    Raises:
      UserError: no such file, or it holds something else.
    """
    expected = f"must be an .npy file of numbers (B, {latent_dim})"
    try:
        latents = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError("--latents", path, expected, f"mend the file ({error})") from None
    if latents.ndim != 2 or latents.shape[1] != latent_dim or not len(latents):
        raise UserError("--latents", path, expected, f"its shape is {latents.shape}")
    return latents.astype(np.float32)


def main() -> None:
    """Runs the command with its flags."""
    if not _WORKDIR.value:
        raise UserError(
            "--workdir", None, "must name a run directory", "for example runs/quickstart"
        )
    import jax

    from lwgan import checkpoint, run, sampling, state

    workdir = pathlib.Path(_WORKDIR.value).expanduser()
    config = run.read(workdir).config
    step = checkpoint.choose(workdir, _STEP.value)
    like = jax.eval_shape(lambda: state.init_state(state.build(config), config.train.seed))
    params, stats = checkpoint.restore_generator(workdir, step, like, _WEIGHTS.value)
    sampler = sampling.Sampler(state.build_generator(config), params, stats)

    if _LATENTS.value:
        latents = read_latents(_LATENTS.value, config.model.latent_dim)
        source = pathlib.Path(_LATENTS.value).stem
    else:
        latents = sampler.latents(_SEED.value, _NUM_IMAGES.value)
        source = f"seed{_SEED.value}"
    images = sampler.pictures(latents, _SEED.value, _BATCH_SIZE.value)

    folder = workdir / "generated" / f"{step:08d}-{source}-{_WEIGHTS.value}"
    folder = pathlib.Path(_OUT.value).expanduser() if _OUT.value else folder
    run.make_directory(folder, "--out")
    pictures = sampling.to_uint8(images)
    for number, picture in enumerate(pictures):
        sampling.save_png(folder / f"{number:05d}.png", picture)
    columns = sampling.square_columns(len(pictures))
    sampling.save_png(folder / "grid.png", sampling.grid(pictures, columns))
    if _SAVE_NPY.value:
        np.save(folder / "samples.npy", images)
    print(f"{len(pictures)} pictures of step {step} and grid.png in {folder}")


if __name__ == "__main__":
    command.run(main)
