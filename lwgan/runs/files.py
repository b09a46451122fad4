"""Files that are whole or absent, directories that one process holds, and the user's cache."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from lwgan.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:
    raise UserError(
        "platform",
        sys.platform,
        "lwgan needs the file locks of Linux and macOS",
        "on Windows run it in WSL 2",
    ) from None


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which becomes ``path`` in the end; on an error ``path`` stays."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all; it is on the disk before it has its name."""
    with replacing(path) as part, part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


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


def new_directory(folder: pathlib.Path, names: Iterable[str], flag: str) -> pathlib.Path:
    """Makes ``folder``, or the first free of ``folder.1``, … if it holds one of these files.

    Raises:
      UserError: it cannot be made.
    """
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
            flag,
            str(folder),
            f"cannot be written to ({error.strerror or error})",
            "make room, or name another",
        ) from error


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process holds this lock file; the kernel lets go whatever ends one."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
                "--workdir",
                str(workdir),
                "another process is training there",
                "wait for its end, or name another",
            ) from None
        yield
    finally:
        os.close(directory)


def move_aside(workdir: pathlib.Path) -> pathlib.Path:
    """Renames a directory to make room for a new one: ``ffhq`` becomes ``ffhq.1``, ``ffhq.2``, …"""
    return workdir.rename(_next_free(workdir))


def _next_free(path: pathlib.Path) -> pathlib.Path:
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return target


def cache_root() -> pathlib.Path:
    """Where the user's cache of lwgan is: ``~/.cache/lwgan``, or below ``XDG_CACHE_HOME``."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(root).expanduser() / "lwgan"
