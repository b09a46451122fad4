"""A run directory: starting one, continuing it, and reading it."""

import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from absl import logging
from ml_collections import ConfigDict

import lwgan
from lwgan.errors import UserError
from lwgan.runs.files import TRAINER, is_part, make_directory, write_text, writing
from lwgan.runs.manifest import damage, saved_meta, saved_steps
from lwgan.settings.files import changes, fixed_change, from_values, read_settings, to_json

Restored = TypeVar("Restored")

# Of run directories; a new meaning of an old setting needs a new number.
FORMAT = 1


@dataclasses.dataclass
class RunInfo:
    """What ``run.json`` says."""

    # Of the dataset; empty: not known, as in an imported run.
    fingerprint: str
    format: int = FORMAT
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    # Hash of the run in Aim.
    aim_run: str | None = None
    changes: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    # The run that this one began from: its path from here, and the step of its checkpoint.
    init_from: dict[str, Any] | None = None
    # Width by height of the images; None: not known, or they differ.
    aspect: float | None = None
    # Which image has which label, as a digest.
    labelling: str | None = None


@dataclasses.dataclass
class Run:
    """A run directory with its settings."""

    workdir: pathlib.Path
    config: ConfigDict
    info: RunInfo

    def write(self) -> None:
        """Writes ``run.json`` and ``config.json``, each whole or not at all."""
        info = json.dumps(dataclasses.asdict(self.info), indent=2) + "\n"
        write_text(self.workdir / "run.json", info)
        write_text(self.workdir / "config.json", to_json(self.config))


def is_run(workdir: pathlib.Path, flag: str = "--workdir") -> bool:
    """Whether the directory holds a run, be it a damaged one.

    Raises:
      UserError: one may not look into it.
    """
    try:
        begun = all((workdir / name).exists() for name in ("run.json", "config.json"))
        return begun or bool(saved_steps(workdir))
    except OSError as error:
        raise UserError(
            flag, str(workdir), f"cannot be looked into ({error.strerror})", "name another"
        ) from None


def read_run(workdir: pathlib.Path, flag: str = "--workdir") -> Run:
    """The run in a directory that ``flag`` names; what is damaged comes from its checkpoints.

    Raises:
      UserError: there is none, or a newer lwgan wrote it, or it cannot be read.
    """
    if not is_run(workdir, flag):
        raise UserError(
            flag,
            str(workdir),
            "there is no run in this directory",
            "name a directory that python main.py has trained in",
        )
    info = _read_or_restore(workdir / "run.json", _read_info, lambda meta: _info_of(meta["run"]))
    if info.format not in range(1, FORMAT + 1):
        raise UserError(
            flag,
            str(workdir),
            f"this run has format {info.format}, this lwgan reads 1 up to {FORMAT}",
            f"install {'a newer' if info.format > FORMAT else 'an older'} lwgan",
        )
    config = _read_or_restore(
        workdir / "config.json", read_settings, lambda meta: from_values(meta["settings"])
    )
    return Run(workdir, config, info)


def _read_or_restore(
    path: pathlib.Path,
    read: Callable[[pathlib.Path], Restored],
    of_meta: Callable[[dict[str, Any]], Restored],
) -> Restored:
    """What a file of a run says; if it cannot be read, what the newest whole checkpoint says."""
    try:
        return read(path)
    except (OSError, ValueError, UserError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
    for step in reversed(saved_steps(path.parent)):
        # It is damaged as well, or of an earlier version.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not damage(path.parent, step):
                restored = of_meta(saved_meta(path.parent, step))
                logging.warning("%s: %s; taken from checkpoint %d instead", path, reason, step)
                return restored
    raise UserError(path.name, str(path), f"cannot be read ({reason})", "bring back a copy of it")


def _read_info(path: pathlib.Path) -> RunInfo:
    return _info_of(json.loads(path.read_text("utf-8")))


def _info_of(values: Any) -> RunInfo:
    """What ``run.json`` says, in terms of JSON.

    Raises:
      ValueError: it is something else, or of a newer lwgan.
    """
    kinds = {
        "fingerprint": str,
        "format": int,
        "versions": dict,
        "aim_run": str | None,
        "changes": list,
        "init_from": dict | None,
        "aspect": float | None,
        "labelling": str | None,
    }
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise ValueError("it has no format of a run")
    if values["format"] != FORMAT:
        return RunInfo("", format=values["format"])
    if "fingerprint" not in values:
        raise ValueError("it has no fingerprint of a dataset")
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{name!r} is not known here; a newer lwgan may know it")
        if not isinstance(value, kinds[name]):
            raise ValueError(f"{name!r} is {str(value)[:40]!r}")
    return RunInfo(**values)


def resolve_run(
    config: ConfigDict, workdir: pathlib.Path, fingerprint: str, *, accept_new_data: bool
) -> Run:
    """The run that training in ``workdir`` would start or continue; writes nothing.

    Raises:
      UserError: the directory holds something else, or a run that these settings cannot continue.
    """
    if not is_run(workdir):
        _require_room(workdir)
        return Run(workdir, config, RunInfo(fingerprint))
    run = read_run(workdir)
    if change := fixed_change(run.config, config):
        name, old, new = change
        raise UserError(
            name,
            new,
            f"the run in {workdir} has {old!r}",
            "keep that, name another --workdir, or start over with --fresh",
        )
    if run.info.fingerprint not in ("", fingerprint) and not accept_new_data:
        raise UserError(
            "data",
            config.data.path or config.data.source,
            f"these are not the images that the run in {workdir} has learnt from",
            "name another --workdir, or say --accept_new_data",
        )
    return run


def _require_room(workdir: pathlib.Path) -> None:
    """Refuses a path that holds anything but the start of a run."""
    others = {path.name for path in workdir.glob("*")} if workdir.is_dir() else set()
    # The last is at the root of a disk.
    begun = ("run.json", TRAINER, "lost+found")
    others = {name for name in others if name not in begun and not is_part(name)}
    if workdir.exists() and (not workdir.is_dir() or others):
        raise UserError(
            "--workdir", str(workdir), "holds something that is not a run", "name a new directory"
        )


def require_writable(workdir: pathlib.Path) -> None:
    """Tries whether a start could write what it will write; leaves nothing behind.

    Raises:
      UserError: it could not.
    """
    there = workdir
    while not there.exists():
        there = there.parent
    for folder in (there, *(workdir / name for name in ("checkpoints", "samples", "damaged"))):
        if folder.exists():
            with writing(folder, "--workdir"):
                tempfile.TemporaryFile(dir=folder).close()
    appended = [workdir / name for name in ("log.txt", "metrics.jsonl")]
    # Only a directory cannot be replaced.
    replaced = [workdir / name for name in ("run.json", "config.json")]
    for path in [*filter(pathlib.Path.exists, appended), *filter(pathlib.Path.is_dir, replaced)]:
        with writing(path, "--workdir"):
            path.open("ab").close()


def record_start(run: Run, config: ConfigDict, fingerprint: str, step: int) -> None:
    """Makes the directory, and records versions and what has changed since the last start.

    Raises:
      UserError: the directory cannot be made.
    """
    make_directory(run.workdir, "--workdir")
    changed = changes(run.config, config)
    if fingerprint != run.info.fingerprint:
        changed["fingerprint"] = (run.info.fingerprint, fingerprint)
    for name, (old, new) in changed.items():
        run.info.changes.append({"step": step, "setting": name, "from": old, "to": new})
    run.config, run.info.fingerprint = config, fingerprint
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
    run.info.versions = {"lwgan": lwgan.__version__, **versions}
    run.write()
