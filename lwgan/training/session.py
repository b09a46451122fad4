"""What is trained, on what, and where it stands: one frozen ``Session``, made by ``prepare``."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import lwgan
from lwgan.data.batches import read_batches
from lwgan.data.cache import load_dataset
from lwgan.data.dataset import Dataset
from lwgan.data.holdout import split
from lwgan.data.labels import NONE, read_labels
from lwgan.data.source import Source
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.metrics.records import read_records
from lwgan.runs import checkpoint, manifest, processes
from lwgan.runs.directory import Run, RunInfo, is_run, read_run, resolve_run
from lwgan.runs.tracking import require_nothing_saved
from lwgan.settings.defaults import flatten
from lwgan.settings.files import changes, from_values
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
    config = _checked(config, workdir)
    known = processes.of_first(lambda: is_run(workdir))
    begun = known and not fresh
    source = _open(config, workdir if begun else None, keep=keep)
    place = Place(Run(workdir, config, RunInfo(source.fingerprint)))
    place = _look(place, accept_new_data=accept_new_data) if begun or not known else place
    step = processes.gather(place.step)[0]
    learnt = place.run.config if step is not None else None
    config = _with_labels(config, source, learnt)
    place = place.starting_from(init_from, config, new=not begun)
    _announce(place.run, step, note)
    run, config = place.run, _settled(config, learnt)
    run.config = run.config if begun else config
    gan = build_gan(config)
    processes.of_first(lambda: _require_networks(workdir, step, gan))
    _show_changes(run, config)
    learnt_labels = None if accept_new_data or not begun else run.info.labelling
    dataset = _load(source, config, learnt_labels, keep=keep)
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
        damaged=place.damaged,
        origin=place.origin,
    )


def _open(config: ConfigDict, begun: pathlib.Path | None, *, keep: bool) -> Source:
    """The images, as the run that has begun in this directory found them."""
    noted = processes.of_first(lambda: read_run(begun).info.fingerprint if begun else "")
    with processes.together():
        return open_source(config.data, known=noted, keep=keep)


class Place(NamedTuple):
    """What the directory of a session has to go on from; see there."""

    run: Run
    step: int | None = None
    damaged: Mapping[int, str] = {}
    origin: Origin | None = None

    def starting_from(self, init_from: str | None, config: ConfigDict, *, new: bool) -> "Place":
        """With the origin that is asked for, in process 0."""
        begun = self.step is not None
        with processes.together():
            if not processes.is_first():
                return self
            origin = find_origin(self.run, init_from, config, new=new, begun=begun)
            return self._replace(origin=origin)


def _checked(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """A copy of the settings, after all that can be refused before anything is read."""
    with processes.together():
        check_settings(config)
        check_devices(config, jax.device_count())
        check_place(config, workdir)
    processes.require_same(flatten(config), "give all the same flags")
    versions = {"lwgan": lwgan.__version__, "jax": jax.__version__}
    processes.require_same(versions, "install the same on all")
    kind = f"{jax.local_device_count()} × {jax.local_devices()[0].device_kind}"
    processes.require_same({"devices": kind}, "give all as many of the same kind")
    # From here on known to all, for what depends on the memory of the machine.
    processes.beside()
    return from_values(config.to_dict())


def _look(place: Place, *, accept_new_data: bool) -> Place:
    """What the directory of a run to go on with, or of a new one, holds, in process 0."""
    run = place.run
    workdir, fingerprint = run.workdir, run.info.fingerprint
    with processes.together():
        if not processes.is_first():
            return place
        run = resolve_run(run.config, workdir, fingerprint, accept_new_data=accept_new_data)
        steps, damaged = manifest.examine(workdir)
        if not steps and not damaged:
            require_nothing_saved(run)
        read_records(workdir)
        return Place(run, steps[-1] if steps else None, damaged)


def _settled(config: ConfigDict, begun: ConfigDict | None) -> ConfigDict:
    """The settings as process 0 resolves them: see ``micro_batches.resolve``."""
    return from_values(processes.of_first(lambda: resolve(config, begun).to_dict()))


def _with_labels(config: ConfigDict, source: Source, begun: ConfigDict | None) -> ConfigDict:
    """The settings with the names of the labels, as process 0 finds them."""

    def names() -> list[str]:
        if begun is not None:
            _require_labels(config, begun)
            config.data.label_names = begun.data.label_names
        return list(read_labels(source, config.data)[1])

    config.data.label_names = tuple(processes.of_first(names))
    return config


def _require_labels(config: ConfigDict, begun: ConfigDict) -> None:
    """Refuses other labels than a run has learnt from."""
    own, learnt = config.data.label_names, begun.data.label_names
    if (config.data.labels == NONE) != (not learnt) or (own and own != learnt):
        which = f"the labels {', '.join(learnt)}" if learnt else "no labels"
        raise UserError(
            "data.labels",
            ", ".join(own) or config.data.labels,
            f"the run has learnt with {which}",
            "keep that, or name another --workdir",
        )


def _require_networks(workdir: pathlib.Path, step: int | None, gan: Gan) -> None:
    if step is not None:
        checkpoint.require_networks(workdir, step, _shapes_of(gan))


def _load(source: Source, config: ConfigDict, labelling: str | None, *, keep: bool) -> Dataset:
    """The images, the same in all processes, with the labels that the run has learnt with."""
    with processes.together():
        dataset = load_dataset(source, config.data, keep=keep)
        if labelling not in (None, dataset.labelling):
            raise UserError(
                "data.labels",
                config.data.labels,
                "images have other labels than those that the run has learnt with",
                "bring those back, or say --accept_new_data",
            )
    found = f"{len(dataset.names):,}, {dataset.fingerprint[:16]} {dataset.labelling or ''}"
    processes.require_same({"images": found}, "give all the same")
    return dataset


def _announce(run: Run, step: int | None, note: str) -> None:
    """Says what begins or goes on."""
    verb = "Starting" if step is None else "Continuing"
    print(f"{verb} the run in {run.workdir} at step {step or 0}{note}", flush=True)


def _show_changes(run: Run, config: ConfigDict) -> None:
    """Says which settings are others than at the last start, and which have no effect."""
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
    state = shapes = _shapes_of(session.gan)
    with processes.together():
        if not processes.is_first():
            pass
        elif step in manifest.saved_steps(session.workdir):
            state = checkpoint.restore(session.workdir, step, shapes)
        else:
            state = first_state(session.gan, session.config.train.seed)
            state = start_from(state, session.origin) if session.origin else state
    return on_devices(processes.from_first(state))


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
        balanced=config.data.balanced,
        devices=slice(jax.process_index() * count, (jax.process_index() + 1) * count),
    )
