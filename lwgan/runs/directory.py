"""A run directory: starting one, continuing it, and reading it."""

import dataclasses
import importlib.metadata
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

import lwgan
from lwgan.errors import UserError
from lwgan.runs.files import make_directory, write_text
from lwgan.settings.files import changes, fixed_change, read_settings, to_json

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


def is_run(workdir: pathlib.Path) -> bool:
    """Whether the directory holds a run."""
    return all((workdir / name).is_file() for name in ("run.json", "config.json"))


def read_run(workdir: pathlib.Path, flag: str = "--workdir") -> Run:
    """The run in a directory that ``flag`` names.

    Raises:
      UserError: there is none, or a newer lwgan wrote it.
    """
    if not is_run(workdir):
        raise UserError(
            flag,
            str(workdir),
            "there is no run in this directory",
            "name a directory that python main.py has trained in",
        )
    try:
        info = json.loads((workdir / "run.json").read_text())
        number = int(info["format"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            flag, str(workdir), "its run.json cannot be read", "bring back a copy of it"
        ) from None
    if number not in range(1, FORMAT + 1):
        raise UserError(
            flag,
            str(workdir),
            f"this run has format {number}, this lwgan reads 1 up to {FORMAT}",
            f"install {'a newer' if number > FORMAT else 'an older'} lwgan",
        )
    return Run(workdir, read_settings(workdir / "config.json"), RunInfo(**info))


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
    if workdir.exists() and (not workdir.is_dir() or others - {"run.json"}):
        raise UserError(
            "--workdir", str(workdir), "holds something that is not a run", "name a new directory"
        )


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
