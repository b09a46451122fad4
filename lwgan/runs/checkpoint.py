"""Saving and restoring a run's state with Orbax.

``checkpoints/<step>/`` holds the items ``sampler`` (the EMA generator), ``training`` (everything
else) and ``meta`` (step, settings, last metrics), and ``manifest.json``, the checksums of their
files, written last. A state is any frozen dataclass of trees of arrays that has ``step``,
``ema_params`` and ``ema_stats``.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.runs import processes
from lwgan.runs.files import make_directory, next_free, remove, sync, sync_tree, write_text
from lwgan.runs.manifest import MANIFEST, checksums, finished_steps

State = TypeVar("State")
# A tree of arrays.
Tree = Any

# Of the directories that Orbax has not finished.
TMP_DIR_SUFFIX = ".orbax-checkpoint-tmp"
SAMPLER_FIELDS = ("ema_params", "ema_stats")


def _sampler(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in SAMPLER_FIELDS}


def _training(state: State) -> dict[str, Any]:
    """All else; what a run does not have (None) is in none of its checkpoints."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    others = {name: value for name, value in fields.items() if name not in SAMPLER_FIELDS}
    return {name: value for name, value in others.items() if value is not None}


class Saver:
    """Writes checkpoints in the background; the end of its context makes the last one sure."""

    def __init__(
        self,
        workdir: pathlib.Path,
        keep: ConfigDict,
        best: Callable[[list[int]], Collection[int]] = lambda steps: (),
    ):
        """``keep`` has ``keep_last`` (checkpoints) and ``keep_every`` (steps; 0: none).

        ``best`` tells which of some steps are to be kept beside those.
        """
        self._workdir, self._folder = workdir, (workdir / "checkpoints").absolute()
        self._keep, self._best = keep, best
        # The step that was saved last.
        self.step = -1
        make_directory(self._folder, "--workdir")
        # By another name, for Orbax minds one that cannot be removed.
        for unfinished in self._folder.glob(f"*{TMP_DIR_SUFFIX}"):
            self._set_to_be_deleted(unfinished)
        self._remove_leftovers()
        # In our own thread: Orbax's would not let the manifest be written after everything else.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None, enable_async_checkpointing=False, **_alone()
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._thread = futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing: futures.Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *unused: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._manager.close()

    def save(self, state: State, metrics: Mapping[str, float], config: ConfigDict) -> None:
        """Saves the state and the last metrics under its step.

        Returns once they are copied, before they are written. A step that is saved already is left
        as it is: a run is a function of its settings.

        Raises:
          UserError: this or the last checkpoint cannot be written; those before are whole.
        """
        step = int(state.step)
        if step == self.step:
            return
        self.wait()
        self.step = step
        if (self._folder / str(step)).exists():
            return
        # NumPy arrays restore on any number of devices.
        state = jax.device_get(state)
        meta = {
            "step": step,
            "settings": config.to_dict(),
            "run": _run_info(self._workdir),
            "metrics": {name: float(value) for name, value in metrics.items()},
            "manifest": MANIFEST,
        }
        self._writing = self._thread.submit(self._write, step, state, meta)

    def wait(self) -> None:
        """Returns when what was saved last is on the disk.

        Raises:
          UserError: see ``save``.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        # Orbax and TensorStore raise many kinds.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                "checkpoints",
                str(self._folder),
                f"cannot be written to ({reason})",
                "make room, or mend it; the same command goes on from the last checkpoint",
            ) from error

    def _write(self, step: int, state: State, meta: dict[str, Any]) -> None:
        self._manager.save(
            step,
            args=ocp.args.Composite(
                sampler=ocp.args.StandardSave(_sampler(state)),
                training=ocp.args.StandardSave(_training(state)),
                meta=ocp.args.JsonSave(meta),
            ),
            force=True,
        )
        folder = self._folder / str(step)
        sync_tree(folder)
        sync(self._folder)
        write_text(folder / MANIFEST, json.dumps(checksums(folder), indent=1))
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes what need not be kept, newest last: there is always a whole checkpoint.

        What cannot be removed is tried again at the next save.
        """
        whole = finished_steps(self._workdir)
        try:
            best = self._best(whole)
        except UserError as error:
            logging.warning("Old checkpoints stay, for which is the best is not known: %s", error)
            return
        for step in sorted(set(whole) - set(kept(whole, self._keep, best))):
            self._set_to_be_deleted(self._folder / str(step))
        self._remove_leftovers()

    def _set_to_be_deleted(self, folder: pathlib.Path) -> None:
        try:
            folder.rename(next_free(folder.with_name(f"{folder.name}.deleted")))
        except OSError as error:
            logging.warning("%s cannot be removed (%s)", folder, error.strerror)

    def _remove_leftovers(self) -> None:
        for path in self._folder.glob("*.deleted*"):
            remove(path)


class Onlooker:
    """What a process that writes nothing has in place of a ``Saver``."""

    def __init__(self) -> None:
        # The step that was saved last.
        self.step = -1

    def __enter__(self) -> "Onlooker":
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    def save(self, state: State, metrics: Mapping[str, float], config: ConfigDict) -> None:
        """Notes the step, which process 0 saves."""
        del metrics, config
        self.step = int(state.step)

    def wait(self) -> None:
        """Nothing is under way."""


def _alone() -> dict[str, Any]:
    """Options with which Orbax asks no other process of the run."""
    if not processes.are_several():
        return {}
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
    )
    return {"create": False, "multiprocessing_options": alone}


def _run_info(workdir: pathlib.Path) -> Any:
    """What ``run.json`` says, for the day on which it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((workdir / "run.json").read_text())
    return None


def kept(saved: Sequence[int], keep: ConfigDict, best: Collection[int] = ()) -> list[int]:
    """Those of the saved steps, in order, whose checkpoints stay: see ``Saver``."""
    last = saved[-keep.keep_last :]
    return [
        step
        for step in saved
        if step in last or step in best or _is_multiple(step, keep.keep_every)
    ]


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def restore(workdir: pathlib.Path, step: int, like: State) -> State:
    """The whole state of a step as NumPy arrays; ``like`` gives its shapes (``jax.eval_shape``).

    Raises:
      UserError: the checkpoint is of other networks.
    """
    require_networks(workdir, step, like)
    items = {"sampler": _sampler(like), "training": _training(like)}
    restored = _restore(workdir, step, items, ocp.args.StandardRestore)
    return type(like)(**restored["sampler"], **restored["training"])


def require_networks(workdir: pathlib.Path, step: int, like: State) -> None:
    """Refuses a checkpoint of other networks than ``like``; reads no more than its shapes.

    Raises:
      UserError: names the first array that is not alike.
    """
    _require_shapes(workdir, step, "sampler", _sampler(like))
    _require_shapes(workdir, step, "training", _training(like))


def restore_generator(workdir: pathlib.Path, step: int, like: Tree, weights: str) -> Tree:
    """``params`` and ``batch_stats`` of the EMA generator ("ema") or the live one ("raw").

    ``like`` gives their shapes. Nothing else of the checkpoint is read.

    Raises:
      UserError: the checkpoint is of another generator.
    """
    item, prefix = {"ema": ("sampler", "ema"), "raw": ("training", "g")}[weights]
    names = {"params": f"{prefix}_params", "batch_stats": f"{prefix}_stats"}
    target = {names[collection]: shapes for collection, shapes in like.items()}
    _require_shapes(workdir, step, item, target)
    restored = _restore(workdir, step, {item: target}, _restore_part)[item]
    return {collection: restored[name] for collection, name in names.items()}


def _restore_part(item: Tree) -> ocp.args.PyTreeRestore:
    as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), item)
    return ocp.args.PyTreeRestore(item, restore_args=as_numpy, partial_restore=True)


def _restore(
    workdir: pathlib.Path,
    step: int,
    items: dict[str, Tree],
    args: Callable[[Tree], ocp.args.CheckpointArgs],
) -> dict[str, Tree]:
    """Items of a checkpoint as NumPy arrays."""
    folder = (workdir / "checkpoints").absolute()
    options = ocp.CheckpointManagerOptions(**({"create": False} | _alone()))
    targets = {name: args(item) for name, item in items.items()}
    with ocp.CheckpointManager(folder, options=options) as manager:
        return dict(manager.restore(step, args=ocp.args.Composite(**targets)).items())


def _require_shapes(workdir: pathlib.Path, step: int, item: str, target: Tree) -> None:
    """Refuses an item whose trees have other arrays; Orbax would read a part, or other shapes."""
    folder = (workdir / "checkpoints" / str(step) / item).absolute()
    metadata = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    saved, wanted = _shapes({name: metadata.get(name) for name in target}), _shapes(target)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise UserError(
                "config.json",
                str(workdir / "config.json"),
                f"checkpoint {step} is of other networks than the settings: "
                f"{name} is {saved.get(name)} there, and {wanted.get(name)} by the settings",
                "bring back the run's own",
            )


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }
