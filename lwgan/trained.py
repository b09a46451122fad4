"""The generator of a run, as one of its checkpoints has it."""

import dataclasses
import os
import pathlib

import jax

from lwgan import checkpoint, run, state
from lwgan.errors import UserError
from lwgan.run import Run
from lwgan.sampling import Sampler

WEIGHTS = ("ema", "raw")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained(Sampler):
    """A sampler, and what it comes from."""

    run: Run
    step: int
    weights: str  # "ema": the averaged generator; "raw": the live one


def load(workdir: str | os.PathLike, step: int | None = None, weights: str = "ema") -> Trained:
    """The averaged ("ema") or the live ("raw") generator of a run, at its newest checkpoint or another.

    ``load(workdir).sample(seed=7, num_images=16)`` is uint8 (B, H, W, C), and calling it with latents
    (B, latent_dim) gives float32 (B, H, W, C).

    Raises:
      UserError: there is no such run or checkpoint.
    """
    if weights not in WEIGHTS:
        raise UserError("weights", weights, f"must be one of {', '.join(WEIGHTS)}", "choose one")
    this_run = run.read(pathlib.Path(workdir).expanduser())
    return at_step(this_run, checkpoint.choose(this_run.workdir, step), weights)


def at_step(this_run: Run, step: int, weights: str) -> Trained:
    """The generator at a checkpoint that is whole.

    Raises:
      UserError: the checkpoint is of other networks than the run's settings.
    """
    config = this_run.config
    like = jax.eval_shape(lambda: state.init_state(state.build(config), config.train.seed))
    try:
        params, stats = checkpoint.restore_generator(this_run.workdir, step, like, weights)
    except ValueError as error:
        raise UserError(
            "--workdir", str(this_run.workdir), str(error), "bring back its own config.json"
        ) from None
    return Trained(state.build_generator(config), params, stats, this_run, step, weights)
