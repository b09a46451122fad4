"""Training a run: from where it stands, through the loop, back where it went wrong."""

import contextlib
import functools
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging
from clu import metric_writers, parameter_overview
from ml_collections import ConfigDict

from lwgan.data.doctor import summary
from lwgan.errors import Interrupted, UserError
from lwgan.metrics.evaluator import Evaluator
from lwgan.runs import checkpoint, log, manifest, tracking
from lwgan.runs.directory import is_run, record_start
from lwgan.runs.files import alone, make_directory, move_aside
from lwgan.training.actions import Action, Clocked, NotFinite, build_actions, require_finite
from lwgan.training.evaluation import best_checkpoint, best_checkpoints, open_evaluator, own_way
from lwgan.training.gradients import Terms
from lwgan.training.session import Session, batches_from, prepare, state_at
from lwgan.training.state import TrainState


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
      Interrupted: a signal asked for the end; the state is saved.
    """
    path = pathlib.Path(workdir).expanduser()
    with contextlib.ExitStack() as stack:
        if locked := is_run(path):
            stack.enter_context(alone(path))
        session = prepare(
            config, path, fresh=fresh, accept_new_data=accept_new_data, init_from=init_from
        )
        if session.known and not locked:
            raise _begun_meanwhile(path)
        stack.enter_context(run_directory(session, fresh=fresh))
        logging.info("The dataset: %s", summary(session.dataset))
        if len(session.held_out):
            count = len(session.dataset.names)
            logging.info("Held out: %d of %d images", len(session.held_out), count)
        evaluator = open_evaluator(session)
        stop = stack.enter_context(_Signals()).asked
        state = train_session(session, evaluator, stop, profile=profile)
        _say_how_it_ended(session, evaluator, int(state.step))
    return state


@contextlib.contextmanager
def run_directory(session: Session, *, fresh: bool) -> Iterator[None]:
    """The directory of a session, for this process alone, up to date, and with the log in it.

    Raises:
      UserError: another process has the directory, or has made a run of it since ``prepare``.
    """
    path = session.workdir
    with contextlib.ExitStack() as stack:
        manifest.set_damaged_aside(path, session.damaged)
        if fresh and session.known:
            print(f"The run that was there is now {move_aside(path)}", flush=True)
        if fresh or not session.known:
            make_directory(path, "--workdir")
            stack.enter_context(alone(path))
            if is_run(path):
                raise _begun_meanwhile(path)
        record_start(session.run, session.config, session.dataset.fingerprint, session.first)
        stack.enter_context(log.to_file(path / "log.txt"))
        yield


def _begun_meanwhile(path: pathlib.Path) -> UserError:
    return UserError(
        "--workdir",
        str(path),
        "another process has begun a run there meanwhile",
        "start again to continue it, or name another",
    )


def train_session(
    session: Session,
    evaluator: Evaluator | None,
    stop: Callable[[], bool],
    *,
    profile: bool,
) -> TrainState:
    """Trains to the end or until ``stop()``; where numbers are not finite, goes back.

    Raises:
      UserError: it went wrong more than ``train.max_recoveries`` times in a row.
    """
    state, first, in_a_row = state_at(session, session.step), session.first, 0
    if session.origin:
        # From here on the run needs no other.
        with checkpoint.Saver(session.workdir, session.config.checkpoint) as saver:
            saver.save(state, {}, session.config)
    while True:
        try:
            return train_from(session, state, evaluator, stop, profile=profile)
        except NotFinite as event:
            last = max(manifest.saved_steps(session.workdir), default=0)
            in_a_row = 1 if last > first else in_a_row + 1
            first = last
            if in_a_row > session.config.train.max_recoveries:
                raise UserError(
                    "training",
                    event.what,
                    f"not finite at step {event.step}, {in_a_row} times since step {first}, whose "
                    "checkpoint is untouched",
                    "lower optim.learning_rate, raise loss.gp_weight, or use "
                    "train.precision=float32",
                ) from None
            logging.warning(
                "%s not finite at step %d: going back to step %d, with other random numbers",
                event.what,
                event.step,
                first,
            )
            restored = state_at(session, first)
            state = restored.replace(recoveries=restored.recoveries + in_a_row)


def train_from(
    session: Session,
    state: TrainState,
    evaluator: Evaluator | None,
    stop: Callable[[], bool],
    *,
    profile: bool,
) -> TrainState:
    """Trains to the end, or until ``stop()``, and saves the last state.

    Raises:
      NotFinite: training has gone wrong since the last checkpoint.
    """
    config, first = session.config, int(state.step)
    batches = Clocked(batches_from(session, first))
    best = functools.partial(best_checkpoints, session, own_way(session, evaluator))
    with contextlib.ExitStack() as stack:
        writer = tracking.create_writer(session.run, config.track, first)
        stack.enter_context(contextlib.closing(writer))
        saver = stack.enter_context(checkpoint.Saver(session.workdir, config.checkpoint, best))
        _describe(writer, config, state)
        try:
            state, metrics = loop_steps(
                session.update,
                state,
                batches,
                metrics=manifest.saved_metrics(session.workdir, first),
                num_steps=config.train.num_steps,
                actions=build_actions(session, evaluator, batches, writer, saver, profile=profile),
                stop=stop,
            )
            if int(state.step) < config.train.num_steps:
                require_finite(state, metrics)
                saver.save(state, metrics, config)
        except NotFinite as event:
            writer.write_texts(event.step, {"train/not_finite": event.what})
            raise
    return state


def loop_steps(
    update: Callable[[int, TrainState, np.ndarray], tuple[TrainState, Terms]],
    state: TrainState,
    batches: Iterator[np.ndarray],
    *,
    metrics: Mapping[str, float],
    num_steps: int,
    actions: Sequence[Action],
    stop: Callable[[], bool],
) -> tuple[TrainState, Mapping[str, float]]:
    """Updates until ``num_steps`` are finished or ``stop()``; each action sees every step.

    Metrics that only some steps have keep their last value: ``metrics`` are those before the first.
    """
    for step in range(int(state.step) + 1, num_steps + 1):
        state, changed = update(step, state, next(batches))
        metrics = {**metrics, **changed}
        for action in actions:
            action(step, state, metrics)
        if stop():
            break
    return state, metrics


def _describe(writer: metric_writers.MetricWriter, config: ConfigDict, state: TrainState) -> None:
    """Settings to the trackers, and both networks' parameters to the log."""
    step = int(state.step)
    writer.write_hparams(config.to_dict())
    writer.write_scalars(step, {"train/recoveries": int(state.recoveries)})
    for name, params in (("generator", state.g_params), ("discriminator", state.d_params)):
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info("The %s:\n%s", name, table)
        writer.write_texts(step, {name: table})


def _say_how_it_ended(session: Session, evaluator: Evaluator | None, finished: int) -> None:
    """The last lines of the log.

    Raises:
      Interrupted: not all steps are finished.
    """
    if finished < session.config.train.num_steps:
        raise Interrupted(f"saved at step {finished}; the same command continues")
    path = session.workdir
    steps = manifest.saved_steps(path)
    if best := best_checkpoint(session, own_way(session, evaluator), steps):
        logging.info("The best samples of the checkpoints that are kept: --step=%d", best)
    logging.info("Finished %d steps: python -m lwgan.sample --workdir=%s", finished, path)


class _Signals:
    """Notes SIGINT and SIGTERM while it is open; the second one does what it always does."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, object] = {}

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        del frame
        self._asked = True
        signal.signal(number, self._before[number])
        logging.info("Finishing this step and saving; again to stop at once")
