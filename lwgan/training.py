"""Training a run: from where it stands, through the loop, and back to a checkpoint where it went wrong."""

import contextlib
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from clu import metric_writers, parameter_overview
from ml_collections import ConfigDict

from lwgan import (
    augment,
    checkpoint,
    data,
    log,
    quality,
    run,
    settings,
    sources,
    state,
    tracking,
    transfer,
)
from lwgan.actions import Action, Clocked, NotFinite, actions, require_finite
from lwgan.doctor import summary
from lwgan.errors import Interrupted, UserError
from lwgan.losses import LOSSES
from lwgan.pictures import Pictures, load
from lwgan.run import Run
from lwgan.sources import Source
from lwgan.state import Gan, TrainState
from lwgan.step import Recipe, Terms, make_update
from lwgan.transfer import Origin


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
      config: all settings, see ``configs/default.py``.
      workdir: the run directory, made if missing.
      fresh: move a run that is there aside and start over.
      accept_new_data: continue with other pictures than the run has learnt from.
      init_from: a run whose weights a new run begins with, see ``lwgan.transfer``; one that began so
        goes on.
      profile: write a profile of a few steps to ``workdir/profile``.

    Raises:
      UserError: the settings, the pictures or the directory do not allow it; nothing has been written.
      Interrupted: a signal asked for the end; the state is saved.
    """
    path = pathlib.Path(workdir).expanduser()
    with contextlib.ExitStack() as stack:
        if known := run.exists(path):
            stack.enter_context(run.alone(path))
        planned = plan(
            config, path, fresh=fresh, accept_new_data=accept_new_data, init_from=init_from
        )
        this_run, first = planned.run, planned.first
        print(f"{planned.verb} the run in {path} at step {first}", flush=True)
        pictures = load(planned.source, config.data)
        checkpoint.set_damaged_aside(path, planned.damaged)
        if fresh and known:
            print(f"The run that was there is now {run.move_aside(path)}", flush=True)
        if fresh or not known:
            run.make_directory(path, "--workdir")
            stack.enter_context(run.alone(path))
        run.open_for_training(this_run, config, planned.source.fingerprint, first)
        stack.enter_context(log.to_file(path / "log.txt"))
        logging.info("The data set: %s", summary(pictures))
        trained, held_out = data.split(len(pictures.names), config.data.holdout, config.train.seed)
        if len(held_out):
            logging.info("Held out: %d of %d pictures", len(held_out), len(pictures.names))
        reals = _reals(config, pictures, this_run.info.fingerprint) if config.eval.every else None
        gan = state.build(config)
        update = make_update(gan, recipe(config, len(trained)))
        stop = stack.enter_context(_Signals()).asked
        current = state_at(gan, config, path, planned.step, planned.origin)
        if planned.origin:  # from here on the run needs no other
            with checkpoint.Saver(path, config.checkpoint) as saver:
                saver.save(current, {}, config)
        in_a_row = 0
        while True:
            try:
                current = _train_from(
                    current,
                    update,
                    config,
                    this_run,
                    pictures,
                    trained,
                    reals,
                    stop,
                    profile=profile,
                )
                break
            except NotFinite as event:
                last = max(checkpoint.steps(path), default=0)
                in_a_row = 1 if last > first else in_a_row + 1
                first = last
                if in_a_row > config.train.max_recoveries:
                    raise UserError(
                        "training", event.what, f"not finite at step {event.step}, {in_a_row} times "
                        f"since step {first}, whose checkpoint is untouched",
                        "lower optim.learning_rate, raise loss.gp_weight or use train.precision=float32",
                    ) from None  # fmt: skip
                logging.warning(
                    "%s not finite at step %d: going back to step %d, with other random numbers",
                    event.what, event.step, first,
                )  # fmt: skip
                restored = state_at(gan, config, path, first, None)
                current = restored.replace(recoveries=restored.recoveries + in_a_row)
        finished = int(current.step)
        if finished < config.train.num_steps:
            raise Interrupted(f"saved at step {finished}; the same command continues")
        if best := _best(path, config, checkpoint.steps(path)):
            logging.info("The best samples of the checkpoints that are kept: --step=%d", best)
        logging.info("Finished %d steps: python -m lwgan.sample --workdir=%s", finished, path)
    return current


def _train_from(
    current: TrainState,
    update: Callable[[int, TrainState, np.ndarray], tuple[TrainState, Terms]],
    config: ConfigDict,
    this_run: Run,
    pictures: Pictures,
    trained: np.ndarray,
    reals: quality.Reals | None,
    stop: Callable[[], bool],
    *,
    profile: bool,
) -> TrainState:
    """Trains to the end, or until ``stop()``, and saves the last state.

    Raises:
      NotFinite: training has gone wrong since the last checkpoint.
    """
    first = int(current.step)
    batches = Clocked(batches_from(first, config, pictures, trained))
    with contextlib.ExitStack() as stack:
        writer = tracking.create_writer(this_run, config.track, first)
        stack.enter_context(contextlib.closing(writer))
        saver = stack.enter_context(
            checkpoint.Saver(
                this_run.workdir,
                config.checkpoint,
                lambda steps: _best(this_run.workdir, config, steps),
            )
        )
        _describe(writer, config, current)
        try:
            current, metrics = loop(
                current,
                checkpoint.metrics(this_run.workdir, first),
                update,
                batches,
                config.train.num_steps,
                actions(config, this_run, pictures, reals, batches, writer, saver, profile=profile),
                stop,
            )
            if int(current.step) < config.train.num_steps:
                require_finite(current, metrics)
                saver.save(current, metrics, config)
        except NotFinite as event:
            writer.write_texts(event.step, {"train/not_finite": event.what})
            raise
    return current


class Plan(NamedTuple):
    """What training would do."""

    run: Run
    source: Source
    step: int | None  # of the checkpoint to go on from; None: there is none yet
    damaged: Mapping[int, str]  # newer checkpoints, and what is the matter with each
    origin: (
        Origin | None
    )  # the weights that a run without a checkpoint begins with; None: random ones

    @property
    def first(self) -> int:
        """The step to go on from."""
        return self.step or 0

    @property
    def verb(self) -> str:
        """What training does with the run."""
        return "Starting" if self.step is None else "Continuing"


def plan(
    config: ConfigDict,
    path: pathlib.Path,
    *,
    fresh: bool,
    accept_new_data: bool,
    init_from: str | None,
) -> Plan:
    """What training in ``path`` would start or continue; writes nothing.

    Raises:
      UserError: the settings, the pictures or the directories do not allow it.
    """
    settings.check(config)
    settings.check_devices(config, jax.device_count())
    source = sources.open_source(config.data)
    new = fresh or not run.exists(path)
    if fresh and run.exists(path):
        this_run, steps, damaged = Run(path, config, run.RunInfo(source.fingerprint)), [], {}
    else:
        this_run = run.plan(config, path, source.fingerprint, accept_new_data=accept_new_data)
        steps, damaged = checkpoint.examine(path)
    origin = transfer.origin_of(this_run, init_from, config, new=new, begun=bool(steps))
    return Plan(this_run, source, steps[-1] if steps else None, damaged, origin)


def layout(config: ConfigDict) -> data.Layout:
    """How the pictures of a step are divided over batches, micro-batches and devices."""
    return data.Layout(
        1 + LOSSES[config.loss.kind].generator_needs_reals,
        config.train.batch_size,
        config.train.grad_accum,
        jax.device_count(),
    )


def batches_from(
    step: int, config: ConfigDict, pictures: Pictures, trained: np.ndarray
) -> Iterator[np.ndarray]:
    """The pictures of each step after ``step``, of those ``trained`` with, for this process's devices."""
    count = jax.local_device_count()
    return data.batches(
        pictures,
        trained,
        layout(config),
        seed=config.train.seed,
        start_step=step,
        num_threads=config.data.num_threads,
        devices=slice(jax.process_index() * count, (jax.process_index() + 1) * count),
    )


def loop(
    current: TrainState,
    metrics: Mapping[str, float],
    update: Callable[[int, TrainState, np.ndarray], tuple[TrainState, Terms]],
    batches: Iterator[np.ndarray],
    num_steps: int,
    actions: list[Action],
    stop: Callable[[], bool],
) -> tuple[TrainState, Mapping[str, float]]:
    """Updates until ``num_steps`` are finished or ``stop()``; each action sees every step.

    Metrics that only some steps have keep their last value: ``metrics`` are those before the first.
    """
    for step in range(int(current.step) + 1, num_steps + 1):
        current, changed = update(step, current, next(batches))
        metrics = {**metrics, **changed}
        for action in actions:
            action(step, current, metrics)
        if stop():
            break
    return current, metrics


def recipe(config: ConfigDict, num_pictures: int) -> Recipe:
    """What the step needs of the settings."""
    prob = config.augment.prob
    return Recipe(
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        precision=config.train.precision,
        loss=config.loss.kind,
        gp_weight=config.loss.gp_weight,
        gp_every=config.loss.gp_every,
        aux_weight=config.loss.aux_weight,
        augment_types=tuple(config.augment.types),
        augment_prob=prob if prob >= 0 else augment.prob_for(num_pictures),
        augment_per_example=config.augment.per_example,
        hflip=config.augment.hflip,
        ema_schedule=config.ema.schedule,
        ema_half_life=1000 * config.ema.half_life,
        unroll=jax.default_backend() == "cpu" or config.train.grad_accum == 1,
    )


def _reals(config: ConfigDict, pictures: Pictures, fingerprint: str) -> quality.Reals | None:
    """What evaluation needs of the pictures; None, with a warning, where it cannot be had."""
    try:
        return quality.see_reals(config, pictures, fingerprint)
    except UserError as error:
        logging.warning("Training goes on without evaluation: %s", error)
        return None


def _best(workdir: pathlib.Path, config: ConfigDict, steps: list[int]) -> int | None:
    """The step with the best samples of these; None, with a warning, where it cannot be told."""
    try:
        return quality.best(workdir, config.eval.metrics, steps)
    except UserError as error:
        logging.warning("Which checkpoint is the best cannot be told: %s", error)
        return None


def state_at(
    gan: Gan, config: ConfigDict, path: pathlib.Path, step: int | None, origin: Origin | None
) -> TrainState:
    """The state to go on from, on the devices: the run's at ``step``, or the first one."""
    seed = config.train.seed
    if step in checkpoint.steps(path):
        like = jax.eval_shape(lambda: state.init_state(gan, seed))
        return state.on_devices(checkpoint.restore(path, step, like))
    first = jax.jit(lambda: state.init_state(gan, seed))()
    return state.on_devices(transfer.begin(first, origin) if origin else first)


def _describe(writer: metric_writers.MetricWriter, config: ConfigDict, current: TrainState) -> None:
    """Settings to the trackers, and both networks' parameters to the log."""
    writer.write_hparams(config.to_dict())
    writer.write_scalars(int(current.step), {"train/recoveries": int(current.recoveries)})
    for name, params in (("generator", current.g_params), ("discriminator", current.d_params)):
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info("The %s:\n%s", name, table)
        writer.write_texts(int(current.step), {name: table})


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
