"""What is trained, on what, and where it stands: one frozen ``Session``, made by ``prepare``."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from lwgan.data.batches import read_batches
from lwgan.data.cache import load_dataset
from lwgan.data.dataset import Dataset
from lwgan.data.holdout import split
from lwgan.data.sources import open_source
from lwgan.metrics.records import read_records
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import Run, RunInfo, is_run, read_run, resolve_run
from lwgan.settings.files import changes
from lwgan.training.checks import check_devices, check_place, check_settings, without_effect
from lwgan.training.gradients import Terms
from lwgan.training.micro_batches import resolve
from lwgan.training.recipes import layout_of, recipe_of
from lwgan.training.state import Gan, TrainState, build_gan, first_state, init_state, on_devices
from lwgan.training.step import make_update
from lwgan.training.transfer import Origin, find_origin, start_from


@dataclasses.dataclass(frozen=True)
class Session:
    """One prepared training; it has read what there is, and written nothing."""

    config: ConfigDict
    run: Run
    # Whether the directory held a run already.
    known: bool
    dataset: Dataset
    # Indices of the training images, and of the held-out ones: int64 (N,).
    training: np.ndarray
    held_out: np.ndarray
    gan: Gan
    # An ``Update``, or another function like it.
    update: Callable[[int, TrainState, np.ndarray], tuple[TrainState, Terms]]
    # Of the checkpoint to go on from; None: there is none yet.
    step: int | None
    # Newer checkpoints, and what is the matter with each.
    damaged: Mapping[int, str]
    # The weights that a run without a checkpoint begins with; None: random ones.
    origin: Origin | None

    @property
    def workdir(self) -> pathlib.Path:
        """The run directory."""
        return self.run.workdir

    @property
    def first(self) -> int:
        """The step to go on from."""
        return self.step or 0


def prepare(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    fresh: bool = False,
    accept_new_data: bool = False,
    init_from: str | None = None,
    note: str = "",
    keep: bool = True,
) -> Session:
    """What training with these arguments is; see ``lwgan.train``.

    Prints what it does with the run, ``note``, and what changes, before it reads the images.
    With ``keep``, images and what is known of them may go to the user's cache.

    Raises:
      UserError: the settings, the images or the directories do not allow it.
    """
    _check(config, workdir)
    known = is_run(workdir)
    begun = known and not fresh
    noted = read_run(workdir).info.fingerprint if begun else ""
    source = open_source(config.data, known=noted, keep=keep)
    run, steps, damaged = Run(workdir, config, RunInfo(source.fingerprint)), [], {}
    if begun or not known:
        run = resolve_run(config, workdir, source.fingerprint, accept_new_data=accept_new_data)
        steps, damaged = manifest.examine(workdir)
        read_records(workdir)
    origin = find_origin(run, init_from, config, new=not begun, begun=bool(steps))
    config = resolve(config, run.config if steps else None)
    run.config = run.config if begun else config
    step, gan = steps[-1] if steps else None, build_gan(config)
    if steps:
        checkpoint.require_networks(workdir, step, _shapes_of(gan))
    _announce(run, config, step, note)
    dataset = load_dataset(source, config.data, keep=keep)
    training, held_out = split(dataset, config.data.holdout, config.train.seed)
    return Session(
        config=config,
        run=run,
        known=known,
        dataset=dataset,
        training=training,
        held_out=held_out,
        gan=gan,
        update=make_update(gan, recipe_of(config, len(training))),
        step=step,
        damaged=damaged,
        origin=origin,
    )


def _check(config: ConfigDict, workdir: pathlib.Path) -> None:
    """What can be refused before anything is read."""
    check_settings(config)
    check_devices(config, jax.device_count())
    check_place(config, workdir)


def _announce(run: Run, config: ConfigDict, step: int | None, note: str) -> None:
    """Says what begins or goes on, with which other settings than at the last start."""
    verb = "Starting" if step is None else "Continuing"
    print(f"{verb} the run in {run.workdir} at step {step or 0}{note}", flush=True)
    changed = changes(run.config, config)
    if changed:
        print("Settings that differ from those of the last start:", flush=True)
    width = max(map(len, changed), default=0)
    for name, (old, new) in changed.items():
        print(f"  {name.ljust(width)}  {old!r} -> {new!r}", flush=True)
    for line in without_effect(config):
        print(line, flush=True)


def state_at(session: Session, step: int | None) -> TrainState:
    """The state to go on from, on the devices: the run's at ``step``, or the first one."""
    seed = session.config.train.seed
    if step in manifest.saved_steps(session.workdir):
        return on_devices(checkpoint.restore(session.workdir, step, _shapes_of(session.gan)))
    first = first_state(session.gan, seed)
    return on_devices(start_from(first, session.origin) if session.origin else first)


def _shapes_of(gan: Gan) -> TrainState:
    return jax.eval_shape(lambda: init_state(gan, 0))


def batches_from(session: Session, step: int) -> Iterator[np.ndarray]:
    """The images of each step after ``step``, as ``Update`` takes them, for these devices."""
    config, count = session.config, jax.local_device_count()
    return read_batches(
        session.dataset,
        session.training,
        layout_of(config),
        seed=config.train.seed,
        start_step=step,
        num_threads=config.data.num_threads,
        devices=slice(jax.process_index() * count, (jax.process_index() + 1) * count),
    )
