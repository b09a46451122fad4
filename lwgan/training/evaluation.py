"""What the loop asks of an evaluator, where there is one; what it cannot have is a warning."""

from collections.abc import Sequence

import jax
from absl import logging
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.metrics.evaluator import Evaluator, build_evaluator, way_of_settings
from lwgan.metrics.realness import Critic
from lwgan.metrics.records import Record, best_step, read_records, steps_to_keep
from lwgan.models.build import Params, build_discriminator
from lwgan.runs import checkpoint, processes
from lwgan.runs.directory import Run
from lwgan.training.losses import LOSSES
from lwgan.training.session import Session
from lwgan.training.state import build_gan, init_state


def open_evaluator(session: Session) -> Evaluator | None:
    """The evaluator of a run that asks for one; None, with a warning, where it cannot be had."""
    if not session.config.eval.every:
        return None
    try:
        return build_evaluator(session.config, session.dataset)
    except UserError as error:
        if processes.are_several() and not error.shared:
            # The others go on with it.
            raise
        logging.warning("Training goes on without evaluation: %s", error)
        return None


def critic_of(config: ConfigDict, d_params: Params) -> Critic:
    """The discriminator in float32, for what it says of real images."""
    return Critic(build_discriminator(config), d_params, LOSSES[config.loss.kind].real_sign)


def critic_at(run: Run, step: int) -> Critic:
    """The discriminator of a checkpoint."""
    like = jax.eval_shape(lambda: init_state(build_gan(run.config), run.config.train.seed))
    return critic_of(run.config, checkpoint.restore(run.workdir, step, like).d_params)


def own_way(session: Session, evaluator: Evaluator | None) -> Record:
    """How this run measures."""
    return evaluator.way if evaluator else way_of_settings(session.config, session.dataset)


def best_checkpoints(session: Session, way: Record, steps: Sequence[int]) -> set[int]:
    """The steps, of these, whose checkpoints evaluation asks to keep.

    Raises:
      UserError: the records cannot be read.
    """
    return steps_to_keep(read_records(session.workdir), session.config.eval.metrics, steps, way)


def best_checkpoint(session: Session, way: Record, steps: Sequence[int]) -> int | None:
    """The step with the best samples of these, as the run itself measures.

    Raises:
      UserError: the records cannot be read.
    """
    return best_step(read_records(session.workdir), session.config.eval.metrics, steps, way)
