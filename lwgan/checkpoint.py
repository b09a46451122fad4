"""Saving and restoring a run's state with Orbax: ``checkpoints/<step>/{sampler,training,meta,manifest.json}``."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.run import move_aside, write_text
from lwgan.state import Params, TrainState

MANIFEST = "manifest.json"
_UNFINISHED = f"{MANIFEST} is missing"
SAMPLER_FIELDS = ("ema_params", "ema_stats")


def _sampler(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in SAMPLER_FIELDS}


def _training(state: TrainState) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(state))
    return {name: getattr(state, name) for name in names if name not in SAMPLER_FIELDS}


class Saver:
    """Writes checkpoints in the background; a context manager, for only its end makes the last one sure."""

    def __init__(
        self,
        workdir: pathlib.Path,
        keep: ConfigDict,
        best: Callable[[list[int]], int | None] = lambda steps: None,
    ):
        """``keep`` has ``keep_last`` (checkpoints) and ``keep_every`` (steps; 0: none).

        ``best`` tells which of some steps is to be kept beside those, if any.
        """
        self._folder, self._keep = (workdir / "checkpoints").absolute(), keep
        self._best, self._step = best, -1  # the step that was saved last
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

    def save(self, state: TrainState, metrics: Mapping[str, float], config: ConfigDict) -> None:
        """Saves the state and the last metrics under its step; returns once it is copied, before it is written.

        A step that is saved already is left as it is: a run is a function of its settings.

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
        state = jax.device_get(state)  # NumPy arrays restore on any number of devices
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
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                "checkpoints", str(self._folder), f"cannot be written to ({reason})",
                "make room, or mend it; the same command goes on from the last checkpoint",
            ) from error  # fmt: skip

    def _write(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
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
        write_text(folder / MANIFEST, json.dumps(_checksums(folder), indent=1))
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes what need not be kept, newest last: there is always a whole checkpoint."""
        whole = [
            step
            for step in _numbered(self._folder)
            if (self._folder / str(step) / MANIFEST).exists()
        ]
        for step in sorted(set(whole) - set(kept(whole, self._keep, self._best(whole)))):
            folder = self._folder / str(step)
            shutil.rmtree(folder.rename(folder.with_suffix(".deleted")))


def kept(saved: Sequence[int], keep: ConfigDict, best: int | None = None) -> list[int]:
    """Those of the saved steps, in order, whose checkpoints stay: see ``Saver``."""
    last = saved[-keep.keep_last :]
    return [
        step
        for step in saved
        if step in last or step == best or _is_multiple(step, keep.keep_every)
    ]


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _numbered(folder: pathlib.Path) -> list[int]:
    """The numbers that name directories, in order."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below a checkpoint, by its path within."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (MANIFEST, MANIFEST + ".part"):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def damage(workdir: pathlib.Path, step: int) -> str:
    """What is the matter with a checkpoint, in a few words; empty if it is whole.

    It is whole if every file has the checksum of the manifest, which is written last. (The first
    ones had none, and did not say so: they are whole if their settings can be read.)
    """
    folder = workdir / "checkpoints" / str(step)
    try:
        if not (folder / MANIFEST).exists():
            meta = json.loads((folder / "meta" / "metadata").read_text())
            return _UNFINISHED if "manifest" in meta else ""
        expected = json.loads((folder / MANIFEST).read_text())
        found = _checksums(folder)
        wrong = [name for name in expected if expected[name] != found.get(name)]
    except (OSError, ValueError) as error:
        return f"it cannot be read: {' '.join(str(error).split())}"
    return f"{wrong[0]} is {'damaged' if wrong[0] in found else 'missing'}" if wrong else ""


def examine(workdir: pathlib.Path) -> tuple[list[int], dict[int, str]]:
    """The steps of a run's checkpoints up to the newest whole one, and what is the matter with newer ones.

    There are no steps if its first save was cut short.

    Raises:
      UserError: there are checkpoints, and none is whole.
    """
    there = steps(workdir)
    reasons: dict[int, str] = {}
    while there and (reason := damage(workdir, there[-1])):
        reasons[there.pop()] = reason
    first_save_was_cut = list(reasons.values()) == [_UNFINISHED]
    if reasons and not there and not first_save_was_cut:
        raise _nothing_whole("--workdir", workdir, max(reasons), reasons[max(reasons)])
    return there, reasons


def set_damaged_aside(workdir: pathlib.Path, reasons: Mapping[int, str]) -> None:
    """Names damaged checkpoints and moves them to ``damaged/``, so that their steps can be saved again.

    ``reasons`` are those that ``examine`` found.
    """
    last = max(set(steps(workdir)) - set(reasons), default=0)
    for step, reason in reasons.items():
        logging.warning("Checkpoint %d is damaged (%s): going on from %d", step, reason, last)
        target = workdir / "damaged" / str(step)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            move_aside(target)
        (workdir / "checkpoints" / str(step)).rename(target)


def _none_yet(flag: str, workdir: pathlib.Path) -> UserError:
    return UserError(flag, str(workdir), "this run has no checkpoint yet", "train it first")


def _nothing_whole(flag: str, workdir: pathlib.Path, step: int, reason: str) -> UserError:
    return UserError(
        flag, str(workdir), f"no checkpoint is whole (of {step}, {reason})",
        "bring back a copy of one, or start over with --fresh",
    )  # fmt: skip


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a checkpoint, whole or damaged, in order."""
    return _numbered(workdir / "checkpoints")


def metrics(workdir: pathlib.Path, step: int) -> dict[str, float]:
    """The metrics at a checkpoint; none at step 0."""
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    return json.loads(path.read_text()).get("metrics", {}) if path.exists() else {}


def whole(workdir: pathlib.Path) -> list[int]:
    """The steps that have a whole checkpoint, in order; those that are damaged are named.

    Raises:
      UserError: there is no checkpoint, or none that is whole.
    """
    there = steps(workdir)
    if not there:
        raise _none_yet("--workdir", workdir)
    reasons = {step: damage(workdir, step) for step in there}
    for step, reason in reasons.items():
        if reason:
            logging.warning("Checkpoint %d is damaged (%s): left out", step, reason)
    found = [step for step in there if not reasons[step]]
    if not found:
        raise _nothing_whole("--workdir", workdir, there[0], reasons[there[0]])
    return found


def choose(workdir: pathlib.Path, step: int | None, flag: str = "--workdir") -> int:
    """``step`` if it has a whole checkpoint, or the newest that has; ``flag`` names the run.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    there = steps(workdir)
    if not there:
        raise _none_yet(flag, workdir)
    if step is not None and step not in there:
        raise UserError(
            "--step", step, "has no checkpoint", f"choose from {', '.join(map(str, there))}"
        )
    candidates = [step] if step is not None else reversed(there)
    for candidate in candidates:
        reason = damage(workdir, candidate)
        if not reason:
            return candidate
        logging.warning("Checkpoint %d is damaged (%s)", candidate, reason)
    if step is None:
        raise _nothing_whole(flag, workdir, candidate, reason)
    raise UserError("--step", step, f"is damaged ({reason})", "choose another")


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
