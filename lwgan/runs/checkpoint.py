"""Saving and restoring a run's state with Orbax.

``checkpoints/<step>/`` holds the items ``sampler`` (the EMA generator), ``training`` (everything
else) and ``meta`` (step, settings, last metrics), and ``manifest.json``, the checksums of their
files, written last. A state is any frozen dataclass of trees of arrays that has ``step``,
``ema_params`` and ``ema_stats``.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.runs.files import write_text
from lwgan.runs.manifest import MANIFEST, checksums, numbered

State = TypeVar("State")
# A tree of arrays.
Tree = Any

SAMPLER_FIELDS = ("ema_params", "ema_stats")


def _sampler(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in SAMPLER_FIELDS}


def _training(state: State) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(state))
    return {name: getattr(state, name) for name in names if name not in SAMPLER_FIELDS}


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
        self._folder, self._keep = (workdir / "checkpoints").absolute(), keep
        self._best = best
        # The step that was saved last.
        self._step = -1
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.deleted"):
            shutil.rmtree(left)
        # In our own thread: Orbax's would not let the manifest be written after everything else.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._thread = futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing: futures.Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *unused: object) -> None:
        try:
            self._wait()
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
        if step == self._step:
            return
        self._wait()
        self._step = step
        if (self._folder / str(step)).exists():
            return
        # NumPy arrays restore on any number of devices.
        state = jax.device_get(state)
        meta = {
            "step": step,
            "settings": config.to_dict(),
            "metrics": {name: float(value) for name, value in metrics.items()},
            "manifest": MANIFEST,
        }
        self._writing = self._thread.submit(self._write, step, state, meta)

    def _wait(self) -> None:
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
        write_text(folder / MANIFEST, json.dumps(checksums(folder), indent=1))
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes what need not be kept, newest last: there is always a whole checkpoint."""
        whole = [
            step
            for step in numbered(self._folder)
            if (self._folder / str(step) / MANIFEST).exists()
        ]
        for step in sorted(set(whole) - set(kept(whole, self._keep, self._best(whole)))):
            folder = self._folder / str(step)
            shutil.rmtree(folder.rename(folder.with_suffix(".deleted")))


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
      ValueError: the checkpoint is of other networks.
    """
    items = {"sampler": _sampler(like), "training": _training(like)}
    restored = _restore(workdir, step, items, ocp.args.StandardRestore)
    # Orbax gives NumPy arrays the shape that they were saved with, whatever is asked for.
    leaves, _ = jax.tree_util.tree_flatten_with_path(restored)
    for (path, leaf), wanted in zip(leaves, jax.tree.leaves(items), strict=True):
        if leaf.shape != wanted.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise _other_networks(step, name, leaf.shape, wanted.shape)
    return type(like)(**restored["sampler"], **restored["training"])


def restore_generator(workdir: pathlib.Path, step: int, like: Tree, weights: str) -> Tree:
    """``params`` and ``batch_stats`` of the EMA generator ("ema") or the live one ("raw").

    ``like`` gives their shapes. Nothing else of the checkpoint is read.

    Raises:
      ValueError: the checkpoint is of another generator.
    """
    item, prefix = {"ema": ("sampler", "ema"), "raw": ("training", "g")}[weights]
    names = {"params": f"{prefix}_params", "batch_stats": f"{prefix}_stats"}
    target = {names[collection]: shapes for collection, shapes in like.items()}
    folder = (workdir / "checkpoints" / str(step) / item).absolute()
    metadata = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    saved, wanted = (
        {name: leaf.shape for name, leaf in flatten_dict(tree, sep="/").items()}
        for tree in ({name: metadata[name] for name in target}, target)
    )
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise _other_networks(step, name, saved.get(name), wanted.get(name))
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
    options = ocp.CheckpointManagerOptions(create=False)
    targets = {name: args(item) for name, item in items.items()}
    with ocp.CheckpointManager(folder, options=options) as manager:
        return dict(manager.restore(step, args=ocp.args.Composite(**targets)).items())


def _other_networks(
    step: int, name: str, saved: tuple[int, ...] | None, wanted: tuple[int, ...] | None
) -> ValueError:
    return ValueError(
        f"checkpoint {step} is of other networks than the settings: "
        f"{name} is {saved} there, and {wanted} by the settings"
    )
