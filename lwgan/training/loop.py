"""Training a run: from where it stands, through the loop, back where it went wrong."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from clu import metric_writers, parameter_overview
from ml_collections import ConfigDict

from lwgan.data.doctor import summary
from lwgan.errors import Interrupted, UserError
from lwgan.metrics.evaluator import Evaluator
from lwgan.runs import checkpoint, log, manifest, processes, tracking
from lwgan.runs.directory import is_run, record_start, require_writable
from lwgan.runs.files import TRAINER, local_path, make_directory, move_aside, remove_parts, writing
from lwgan.runs.locks import alone
from lwgan.training.actions import Action, Clocked, NotFinite, every, log_actions, save_action
from lwgan.training.compiling import compiled_ahead
from lwgan.training.evaluation import best_checkpoint, best_checkpoints, open_evaluator, own_way
from lwgan.training.followers import after_saving, build_followers, make_up_for
from lwgan.training.gradients import Terms
from lwgan.training.micro_batches import step_errors
from lwgan.training.profile import profiling
from lwgan.training.session import Session, batches_from, prepare, state_at
from lwgan.training.signals import Asked, Signals
from lwgan.training.state import TrainState
from lwgan.training.step import Update

_HOUR = 3600


def train(
    config: ConfigDict,
    workdir: str,
    *,
    fresh: bool = False,
    accept_new_data: bool = False,
    init_from: str | None = None,
    profile: bool = False,
) -> TrainState:
    """Trains in ``workdir``, from its newest checkpoint if it has one, and returns the last state.

    Args:
      config: all settings, see ``lwgan.default_config``.
      workdir: the run directory, made if missing.
      fresh: move a run that is there aside and start over.
      accept_new_data: continue with other images than the run has learnt from.
      init_from: a run whose weights a new run begins with, see
        ``lwgan.training.transfer``; one that began so goes on.
      profile: write a profile of a few steps to ``workdir/profile``.

    Raises:
      UserError: the settings, the images or the directory do not allow it; nothing has been
        written.
      Interrupted: a signal asked for the end; what there was to save is saved.
    """
    path = local_path("--workdir", workdir)
    try:
        with contextlib.ExitStack() as stack:
            words = functools.partial(_what_is_saved, path, fresh=fresh)
            signals = stack.enter_context(Signals(words))
            with signals.at_once():
                session = _open_session(
                    config,
                    path,
                    stack,
                    signals,
                    dict(fresh=fresh, accept_new_data=accept_new_data, init_from=init_from),
                )
                evaluator = open_evaluator(session)
            with step_errors(session.config):
                state = train_session(session, evaluator, signals, profile=profile)
            if processes.is_first():
                _name_the_best(session, evaluator)
    except Interrupted as end:
        raise Interrupted(_what_is_saved(path, fresh=fresh), shared=end.shared) from None
    logging.info("Finished %d steps: python -m lwgan.sample --workdir=%s", int(state.step), path)
    return state


def _open_session(
    config: ConfigDict,
    path: pathlib.Path,
    stack: contextlib.ExitStack,
    signals: Signals,
    how: Mapping[str, Any],
) -> Session:
    """The session, for this process alone as long as ``stack`` is open, with its directory."""
    writes, locked = processes.is_first(), False
    with processes.together():
        if writes and (locked := is_run(path)):
            signals.before_exit.append(stack.enter_context(alone(path)))
        if writes:
            require_writable(path.parent if how["fresh"] else path)
    session = prepare(config, path, **how)
    with processes.together():
        if writes and session.known and not locked:
            raise _begun_meanwhile(path)
        if writes:
            release = stack.enter_context(run_directory(session, fresh=how["fresh"]))
            signals.before_exit.append(release)
    logging.info("The dataset: %s", summary(session.dataset))
    if len(session.held_out):
        count = len(session.dataset.names)
        logging.info("Held out: %d of %d images", len(session.held_out), count)
    return session


@contextlib.contextmanager
def run_directory(session: Session, *, fresh: bool) -> Iterator[Callable[[], None]]:
    """The directory of a session, for this process alone, up to date, and with the log in it.

    Yields what lets other processes in again, if this has locked them out.

    Raises:
      UserError: another process has the directory, or has made a run of it since ``prepare``.
    """
    path, release = session.workdir, lambda: None
    with contextlib.ExitStack() as stack, writing(path, "--workdir"):
        manifest.set_damaged_aside(path, session.damaged)
        if fresh and session.known:
            moved = move_aside(path)
            (moved / TRAINER).unlink(missing_ok=True)
            print(f"The run that was there is now {moved}", flush=True)
        if fresh or not session.known:
            make_directory(path, "--workdir")
            release = stack.enter_context(alone(path))
            if is_run(path):
                raise _begun_meanwhile(path)
        for place in ("*.part", "samples/*.part", "checkpoints/*/*.part"):
            remove_parts(path, place)
        # Other commands write elsewhere, perhaps on other machines, which is nothing to go by.
        remove_parts(path, seconds=_HOUR)
        info, images = session.run.info, session.dataset
        info.aspect, info.labelling = images.aspect, images.labelling
        record_start(session.run, session.config, images.fingerprint, session.first)
        stack.enter_context(log.to_file(path / "log.txt"))
        entered = stack.pop_all()
    with entered:
        yield release


def _begun_meanwhile(path: pathlib.Path) -> UserError:
    return UserError(
        "--workdir",
        str(path),
        "another process has begun a run there meanwhile",
        "start again to continue it, or name another",
    )


def train_session(
    session: Session, evaluator: Evaluator | None, signals: Signals, *, profile: bool
) -> TrainState:
    """Trains to the end; where numbers are not finite, goes back.

    Raises:
      UserError: it went wrong more than ``train.max_recoveries`` times in a row.
      Interrupted: a signal asked for the end; the last state is saved.
    """
    with signals.at_once(), _compiled(session) as session:
        state, first, in_a_row = state_at(session, session.step), session.first, 0
        if session.origin:
            # From here on the run needs no other.
            with checkpoint.Saver(session.workdir, session.config.checkpoint) as saver:
                saver.save(state, {}, session.config)
    while True:
        try:
            return train_from(session, state, evaluator, signals, profile=profile)
        except NotFinite as event:
            last = processes.of_first(lambda: max(manifest.saved_steps(session.workdir), default=0))
            in_a_row = 1 if last > first else in_a_row + 1
            first = last
            with processes.together():
                _require_patience(session.config, event, in_a_row, first)
            logging.warning(
                "%s not finite at step %d: going back to step %d, with other random numbers",
                event.what,
                event.step,
                first,
            )
            restored = state_at(session, first)
            state = restored.replace(recoveries=restored.recoveries + in_a_row)


def _require_patience(config: ConfigDict, event: NotFinite, in_a_row: int, first: int) -> None:
    if in_a_row > config.train.max_recoveries:
        raise UserError(
            "training",
            event.what,
            f"not finite at step {event.step}, {in_a_row} times since step {first}, whose "
            "checkpoint is untouched",
            "lower optim.learning_rate, raise loss.gp_weight, or use train.precision=float32",
        ) from None


@contextlib.contextmanager
def _compiled(session: Session) -> Iterator[Session]:
    """The session with its programs compiled, if they are ours to compile."""
    # Among several processes, pmap's compiled programs take no arrays of one alone.
    if not isinstance(session.update, Update) or processes.are_several():
        yield session
        return
    with compiled_ahead(session.update, session.gan, session.config) as update:
        yield dataclasses.replace(session, update=update)


def train_from(
    session: Session,
    state: TrainState,
    evaluator: Evaluator | None,
    signals: Signals,
    *,
    profile: bool,
) -> TrainState:
    """Trains to the end, after what is missing at the step of this state.

    Raises:
      NotFinite: training has gone wrong since the last checkpoint.
      Interrupted, UserError: asked by a signal, or for want of an image; the last state is saved.
    """
    config, first, last = session.config, int(state.step), session.config.train.num_steps
    batches = Clocked(batches_from(session, first))
    metrics = processes.of_first(lambda: manifest.saved_metrics(session.workdir, first))
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(contextlib.closing(_open_writer(session, first)))
        stack.enter_context(_told_what_is_not_finite(writer))
        saver = stack.enter_context(_open_saver(session, evaluator))
        save, asked = save_action(session, writer, saver), Asked(signals)
        followers = build_followers(session, evaluator, writer)
        intervals = {config.checkpoint.every, *(f.every for f in followers if f.is_saved)}
        actions = [
            *log_actions(config, batches, writer),
            lambda *arguments: asked.once_a_step(),
            *(every(interval, last, save) for interval in intervals),
            lambda *arguments: save(*arguments) if asked.to_save else None,
            *(after_saving(f, saver, last, signals) for f in followers),
        ]
        if profile and processes.is_first():
            actions.append(stack.enter_context(profiling(session.workdir / "profile", first, last)))
        _describe(writer, config, state)
        make_up_for(followers, session, state, metrics, signals)
        state, metrics, finished = loop_steps(
            batches.watching(session.update),
            state,
            batches,
            metrics=metrics,
            num_steps=last,
            actions=actions,
            stop=asked.to_end,
        )
        # Where images have failed one of several, the others are in the midst of the next step.
        if not finished and not (batches.failed and processes.are_several()):
            save(int(state.step), state, metrics)
    if not finished:
        raise batches.failed or Interrupted(shared=True)
    return state


def _open_writer(session: Session, first: int) -> metric_writers.MetricWriter:
    if not processes.is_first():
        return metric_writers.MultiWriter([])
    return tracking.create_writer(session.run, session.config.track, first)


def _open_saver(
    session: Session, evaluator: Evaluator | None
) -> checkpoint.Saver | checkpoint.Onlooker:
    if not processes.is_first():
        return checkpoint.Onlooker()
    best = functools.partial(best_checkpoints, session, own_way(session, evaluator))
    return checkpoint.Saver(session.workdir, session.config.checkpoint, best)


@contextlib.contextmanager
def _told_what_is_not_finite(writer: metric_writers.MetricWriter) -> Iterator[None]:
    try:
        yield
    except NotFinite as event:
        writer.write_texts(event.step, {"train/not_finite": event.what})
        raise


def loop_steps(
    update: Callable[[int, TrainState, np.ndarray], tuple[TrainState, Terms]],
    state: TrainState,
    batches: Iterator[np.ndarray],
    *,
    metrics: Mapping[str, float],
    num_steps: int,
    actions: Sequence[Action],
    stop: Callable[[], bool],
) -> tuple[TrainState, Mapping[str, float], bool]:
    """Updates until ``num_steps`` are finished or ``stop()``; each action sees every step.

    Metrics that only some steps have keep their last value: ``metrics`` are those before the first.
    Returns the last state and metrics, and whether all steps are finished with all their actions.
    Batches may end sooner.
    """
    step = int(state.step)
    steps = range(step + 1, num_steps + 1)
    for step, images in zip(steps, batches, strict=False):
        state, changed = update(step, state, images)
        metrics = {**metrics, **changed}
        for number, action in enumerate(actions, 1):
            action(step, state, metrics)
            if stop() and (step, number) != (num_steps, len(actions)):
                return state, metrics, False
    return state, metrics, step >= num_steps


def _describe(writer: metric_writers.MetricWriter, config: ConfigDict, state: TrainState) -> None:
    """Settings to the trackers, and both networks' parameters to the log."""
    step = int(state.step)
    writer.write_hparams(config.to_dict())
    writer.write_scalars(step, {"train/recoveries": int(state.recoveries)})
    for name, params in (("generator", state.g_params), ("discriminator", state.d_params)):
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info("The %s:\n%s", name, table)
        writer.write_texts(step, {name: table})


def _name_the_best(session: Session, evaluator: Evaluator | None) -> None:
    try:
        steps = manifest.saved_steps(session.workdir)
        best = best_checkpoint(session, own_way(session, evaluator), steps)
    except UserError as error:
        logging.warning("Which checkpoint is the best cannot be told: %s", error)
        return
    if best:
        logging.info("The best samples of the checkpoints that are kept: --step=%d", best)


def _what_is_saved(path: pathlib.Path, *, fresh: bool) -> str:
    saved = None
    # The disk may be gone.
    with contextlib.suppress(UserError):
        saved = max(manifest.finished_steps(path), default=None)
    what = "nothing to save yet" if saved is None else f"saved at step {saved}"
    return f"{what}; the same command{' without --fresh' if fresh else ''} continues"
