"""Which checkpoints a run has, and whether they are whole: every file as the manifest says.

The manifest, the checksums of a checkpoint's files, is written last.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from lwgan.errors import UserError
from lwgan.runs.files import is_part, move, move_aside

MANIFEST = "manifest.json"
_UNFINISHED = f"{MANIFEST} is missing"


def numbered(folder: pathlib.Path) -> list[int]:
    """The numbers that name directories, in order; none where there is no folder.

    Raises:
      UserError: it is a link that leads nowhere, or cannot be listed.
    """
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.is_symlink():
            return []
        reason = f"leads to {os.readlink(folder)}: {error.strerror}"
    except OSError as error:
        reason = f"cannot be listed ({error.strerror})"
    raise UserError("--workdir", str(folder), reason, "mount it, or have it opened to you")


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a checkpoint, whole or damaged, in order."""
    return numbered(workdir / "checkpoints")


def finished_steps(workdir: pathlib.Path) -> list[int]:
    """The steps whose checkpoints have been written to the end, in order."""
    folder = workdir / "checkpoints"
    return [step for step in numbered(folder) if (folder / str(step) / MANIFEST).exists()]


def saved_meta(workdir: pathlib.Path, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself: its step, settings, run and last metrics.

    Raises:
      OSError: there is no such checkpoint.
      ValueError: it is damaged.
    """
    return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())


def saved_metrics(workdir: pathlib.Path, step: int) -> dict[str, float]:
    """The metrics at a whole checkpoint; none where there is no checkpoint, as at step 0."""
    if step not in saved_steps(workdir):
        return {}
    return saved_meta(workdir, step).get("metrics", {})


def checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below a checkpoint, by its path within."""
    checksums = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST and not is_part(name):
            with path.open("rb") as file:
                checksums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def damage(workdir: pathlib.Path, step: int) -> str:
    """What is the matter with a checkpoint, in a few words; empty if it is whole.

    It is whole if every file has the checksum of the manifest, which is written last. (The first
    ones had none, and did not say so: they are whole if their settings can be read.)
    """
    folder = workdir / "checkpoints" / str(step)
    try:
        if not (folder / MANIFEST).exists():
            return "" if _is_of_first_version(folder) else _UNFINISHED
        expected = json.loads((folder / MANIFEST).read_text())
        actual = checksums(folder)
        wrong = [name for name, digest in expected.items() if digest != actual.get(name)]
    # The manifest itself may be anything.
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read: {' '.join(str(error).split())}"
    return f"{wrong[0]} is {'damaged' if wrong[0] in actual else 'missing'}" if wrong else ""


def _is_of_first_version(folder: pathlib.Path) -> bool:
    """Whether a checkpoint does not say that it should have a manifest."""
    try:
        return "manifest" not in json.loads((folder / "meta" / "metadata").read_text())
    except (OSError, ValueError, TypeError):
        return False


def examine(workdir: pathlib.Path) -> tuple[list[int], dict[int, str]]:
    """The steps of checkpoints up to the newest whole one, and what is the matter with newer ones.

    There are no steps if its first save was cut short.

    Raises:
      UserError: there are checkpoints, and none is whole.
    """
    there = saved_steps(workdir)
    reasons: dict[int, str] = {}
    while there and (reason := damage(workdir, there[-1])):
        reasons[there.pop()] = reason
    first_save_was_cut = list(reasons.values()) == [_UNFINISHED]
    if reasons and not there and not first_save_was_cut:
        raise _nothing_whole("--workdir", workdir, max(reasons), reasons[max(reasons)])
    return there, reasons


def set_damaged_aside(workdir: pathlib.Path, reasons: Mapping[int, str]) -> None:
    """Names damaged checkpoints and moves them to ``damaged/``: their steps are saved again.

    ``reasons`` are those that ``examine`` found.
    """
    last = max(set(saved_steps(workdir)) - set(reasons), default=0)
    for step, reason in reasons.items():
        logging.warning("Checkpoint %d is damaged (%s): going on from %d", step, reason, last)
        target = workdir / "damaged" / str(step)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            move_aside(target)
        move(workdir / "checkpoints" / str(step), target)


def whole_steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a whole checkpoint, in order; those that are damaged are named.

    Raises:
      UserError: there is no checkpoint, or none that is whole.
    """
    there = saved_steps(workdir)
    if not there:
        raise _none_yet("--workdir", workdir)
    reasons = {step: damage(workdir, step) for step in there}
    for step, reason in reasons.items():
        if reason:
            logging.warning("Checkpoint %d is damaged (%s): left out", step, reason)
    whole = [step for step in there if not reasons[step]]
    if not whole:
        raise _nothing_whole("--workdir", workdir, there[0], reasons[there[0]])
    return whole


def resolve_step(workdir: pathlib.Path, step: int | None, flag: str = "--workdir") -> int:
    """``step`` if it has a whole checkpoint, or the newest that has; ``flag`` names the run.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    there = saved_steps(workdir)
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


def _none_yet(flag: str, workdir: pathlib.Path) -> UserError:
    return UserError(flag, str(workdir), "this run has no checkpoint yet", "train it first")


def _nothing_whole(flag: str, workdir: pathlib.Path, step: int, reason: str) -> UserError:
    return UserError(
        flag,
        str(workdir),
        f"no checkpoint is whole (of {step}, {reason})",
        "bring back a copy of one, or start over with --fresh",
    )
