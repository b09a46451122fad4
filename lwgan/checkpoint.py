"""Saving and restoring a run's state with Orbax: ``checkpoints/<step>/{sampler,training,meta}``."""

import dataclasses
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.state import Params, TrainState

SAMPLER_FIELDS = ("ema_params", "ema_stats")


def _sampler(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in SAMPLER_FIELDS}


def _training(state: TrainState) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(state))
    return {name: getattr(state, name) for name in names if name not in SAMPLER_FIELDS}


class Saver:
    """Writes checkpoints in the background; a context manager, for only its end makes the last one sure."""

    def __init__(self, workdir: pathlib.Path, keep: ConfigDict):
        """``keep`` has ``keep_last`` (checkpoints) and ``keep_every`` (steps; 0: none)."""
        folder = (workdir / "checkpoints").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep.keep_last,
            keep_period=keep.keep_every or None,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *unused: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, config: ConfigDict) -> None:
        """Saves the state under its step; returns once it is copied, before it is written.

        A step that is saved already is left as it is: a run is a function of its settings.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        state = jax.device_get(state)  # NumPy arrays restore on any number of devices
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                sampler=ocp.args.StandardSave(_sampler(state)),
                training=ocp.args.StandardSave(_training(state)),
                meta=ocp.args.JsonSave({"step": step, "settings": config.to_dict()}),
            ),
            force=True,
        )
        if not saved:
            raise RuntimeError(f"Orbax did not save step {step}")


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a complete checkpoint, in order."""
    folder = (workdir / "checkpoints").absolute()
    if not folder.is_dir():
        return []
    with ocp.CheckpointManager(folder, options=_ONLY_READING) as manager:
        return sorted(manager.all_steps())


def choose(workdir: pathlib.Path, step: int | None) -> int:
    """``step`` if it has a checkpoint, or the newest that has.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    there = steps(workdir)
    if not there:
        raise UserError(
            "--workdir", str(workdir), "this run has no checkpoint yet", "train it first"
        )
    if step is None:
        return there[-1]
    if step not in there:
        raise UserError(
            "--step", step, "has no checkpoint", f"choose from {', '.join(map(str, there))}"
        )
    return step


def restore(workdir: pathlib.Path, step: int, like: TrainState) -> TrainState:
    """The whole state of a step as NumPy arrays; ``like`` gives its shapes (``jax.eval_shape``).

    Raises:
      ValueError: the checkpoint is of other networks.
    """
    items = _restore(workdir, step, sampler=_sampler(like), training=_training(like))
    return type(like)(**items["sampler"], **items["training"])


def restore_generator(
    workdir: pathlib.Path, step: int, like: TrainState, weights: str
) -> tuple[Params, Params]:
    """Parameters and batch statistics of the averaged ("ema") or the live ("raw") generator."""
    if weights == "ema":
        sampler = _restore(workdir, step, sampler=_sampler(like))["sampler"]
        return sampler["ema_params"], sampler["ema_stats"]
    training = _restore(workdir, step, training=_training(like))["training"]
    return training["g_params"], training["g_stats"]


def _restore(workdir: pathlib.Path, step: int, **items: Params) -> dict[str, Params]:
    with ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(), options=_ONLY_READING
    ) as manager:
        targets = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
        restored = dict(manager.restore(step, args=ocp.args.Composite(**targets)).items())
    # Orbax gives NumPy arrays the shape that they were saved with, whatever is asked for.
    found, _ = jax.tree_util.tree_flatten_with_path(restored)
    for (path, leaf), wanted in zip(found, jax.tree.leaves(items), strict=True):
        if leaf.shape != wanted.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"checkpoint {step} is of other networks than the settings: "
                f"{name} is {leaf.shape} there, and {wanted.shape} by the settings"
            )
    return restored


_ONLY_READING = ocp.CheckpointManagerOptions(create=False)
