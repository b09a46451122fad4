"""A run directory: starting one, continuing it, and reading it."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import flax
import jax
from ml_collections import ConfigDict

import lwgan
from lwgan import settings
from lwgan.errors import UserError

FORMAT = 1  # of run directories; a new meaning of an old setting needs a new number


@dataclasses.dataclass
class RunInfo:
    """What ``run.json`` says."""

    fingerprint: str  # of the data set; empty: not known, as in an imported run
    format: int = FORMAT
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    aim_run: str | None = None  # hash of the run in Aim
    changes: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    # The run that this one began from: its path from here, and the step of its checkpoint
    init_from: dict[str, Any] | None = None


@dataclasses.dataclass
class Run:
    """A run directory with its settings."""

    workdir: pathlib.Path
    config: ConfigDict
    info: RunInfo

    def write(self) -> None:
        """Writes ``run.json`` and ``config.json``, each whole or not at all."""
        write_text(
            self.workdir / "run.json", json.dumps(dataclasses.asdict(self.info), indent=2) + "\n"
        )
        write_text(self.workdir / "config.json", settings.to_json(self.config))


def exists(workdir: pathlib.Path) -> bool:
    """Whether the directory holds a run."""
    return all((workdir / name).is_file() for name in ("run.json", "config.json"))


def read(workdir: pathlib.Path, flag: str = "--workdir") -> Run:
    """The run in a directory that ``flag`` names.

    Raises:
      UserError: there is none, or a newer lwgan wrote it.
    """
    if not exists(workdir):
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
    return Run(workdir, settings.read(workdir / "config.json"), RunInfo(**info))


def plan(
    config: ConfigDict, workdir: pathlib.Path, fingerprint: str, *, accept_new_data: bool
) -> Run:
    """The run that training in ``workdir`` would start or continue; writes nothing.

    Raises:
      UserError: the directory holds something else, or a run that these settings cannot continue.
    """
    if not exists(workdir):
        others = [path.name for path in workdir.glob("*")] if workdir.is_dir() else []
        if workdir.exists() and (not workdir.is_dir() or set(others) - {"run.json"}):
            raise UserError(
                "--workdir",
                str(workdir),
                "holds something that is not a run",
                "name a new directory",
            )
        return Run(workdir, config, RunInfo(fingerprint))
    run = read(workdir)
    change = settings.fixed_change(run.config, config)
    if change:
        name, old, new = change
        raise UserError(
            name,
            new,
            f"the run in {workdir} has {old!r}",
            "keep that, name another --workdir, or start over with --fresh",
        )
    learnt_from = run.info.fingerprint
    if learnt_from and fingerprint != learnt_from and not accept_new_data:
        raise UserError(
            "data",
            config.data.path or config.data.source,
            f"these are not the pictures that the run in {workdir} has learnt from",
            "name another --workdir, or say --accept_new_data",
        )
    return run


def open_for_training(run: Run, config: ConfigDict, fingerprint: str, step: int) -> None:
    """Makes the directory, and records versions and what has changed since the last start.

    Raises:
      UserError: the directory cannot be made.
    """
    make_directory(run.workdir, "--workdir")
    for name, (old, new) in settings.changes(run.config, config).items():
        run.info.changes.append({"step": step, "setting": name, "from": old, "to": new})
    if fingerprint != run.info.fingerprint:
        run.info.changes.append(
            {
                "step": step,
                "setting": "fingerprint",
                "from": run.info.fingerprint,
                "to": fingerprint,
            }
        )
    run.config, run.info.fingerprint = config, fingerprint
    run.info.versions = {
        "lwgan": lwgan.__version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
    }
    run.write()


def make_directory(folder: pathlib.Path, flag: str) -> None:
    """Makes a directory that ``flag`` names, if it is missing.

    Raises:
      UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            flag, str(folder), f"cannot be made ({error.strerror})", "name another"
        ) from None


@contextlib.contextmanager
def alone(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps every other trainer out of a directory; the kernel lets go whatever ends the process.

    Raises:
      UserError: another process trains there.
    """
    directory = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "--workdir", str(workdir), "another process is training there",
                "wait for its end, or name another",
            ) from None  # fmt: skip
        yield
    finally:
        os.close(directory)


def new_directory(folder: pathlib.Path, names: Iterable[str], flag: str) -> pathlib.Path:
    """Makes ``folder``, or the first free of ``folder.1``, … if it holds one of these files: none is overwritten.

    Raises:
      UserError: it cannot be made.
    """
    names = list(names)
    if any((folder / name).exists() for name in names):
        folder = _next_free(folder)
    make_directory(folder, flag)
    return folder


@contextlib.contextmanager
def writing(folder: pathlib.Path, flag: str) -> Iterator[None]:
    """Makes a full disk, or a directory that is not ours to write to, the user's error."""
    try:
        yield
    except OSError as error:
        raise UserError(
            flag, str(folder), f"cannot be written to ({error.strerror or error})",
            "make room, or name another",
        ) from error  # fmt: skip


def move_aside(workdir: pathlib.Path) -> pathlib.Path:
    """Renames a directory to make room for a new one: ``ffhq`` becomes ``ffhq.1``, or the next free number."""
    return workdir.rename(_next_free(workdir))


def _next_free(path: pathlib.Path) -> pathlib.Path:
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return target


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
