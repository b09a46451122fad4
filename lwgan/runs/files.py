"""Files that are whole or absent, the directories they are in, and the user's cache."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator

import psutil
from absl import logging

from lwgan.errors import UserError

# What is not finished is named by the process that writes it, grid.png.4711.part; earlier versions
# named run.json.part, their grids and their caches without it.
_PART = re.compile(
    r"(?:\.(\d+)|^(?:run|config|metrics)\.jsonl?|^\d{8}[a-z-]*\.png|^[0-9a-f]{16})\.part$"
)
# The name of the lock in a run that is being trained.
TRAINER = "trainer.lock"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local_path(flag: str, text: str | os.PathLike) -> pathlib.Path:
    """The path that a user names, with ``~`` for the home directory.

    Raises:
      UserError: it is the address of a bucket or a server, or there is no home directory.
    """
    if _ADDRESS.match(os.fspath(text)):
        raise UserError(
            flag, str(text), "must be a path of this machine", "mount the bucket, or copy it here"
        )
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError:
        raise UserError(
            flag, str(text), "there is no home directory here", "name a path without ~"
        ) from None


def sync(path: pathlib.Path) -> None:
    """Has a file or a directory's entries on the disk, as far as the file system can do that."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(number)
    except OSError:
        # Directories of some network drives cannot be synced; of a file it would be a loss.
        if not path.is_dir():
            raise
    finally:
        os.close(number)


def sync_tree(path: pathlib.Path) -> None:
    """Has a file, or a directory and everything below it, on the disk."""
    for each in [path, *path.rglob("*")]:
        sync(each)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which becomes ``path`` in the end; on an error ``path`` stays.

    It may become a file, or a directory where there is none yet. The content is on the disk before
    it has its name, and the name when this returns.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        sync_tree(part)
        part.replace(path)
    except BaseException:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync(path.parent)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text)


def is_part(name: str) -> bool:
    """Whether a file's name is one that ``replacing`` gives."""
    return name.endswith(".part")


def remove_parts(folder: pathlib.Path, pattern: str = "**/*.part", seconds: float = 0) -> None:
    """Removes what processes that are no more have left unfinished, so many seconds ago or more."""
    for path in list(folder.glob(pattern)):
        with contextlib.suppress(OSError, OverflowError):
            part = _PART.search(path.name)
            number = int(part[1] or 0) if part else 0
            # A process that has just started has none of its own.
            gone = part and (number in (0, os.getpid()) or not psutil.pid_exists(number))
            if gone and time.time() - path.lstat().st_mtime >= seconds:
                remove(path)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a directory with its content, if it can; else it is a warning."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        logging.warning("%s cannot be removed (%s); it may be by hand", path, error.strerror)


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
        folder = next_free(folder)
    make_directory(folder, flag)
    return folder


@contextlib.contextmanager
def writing(folder: pathlib.Path, flag: str) -> Iterator[None]:
    """Makes a full disk, or a directory that is not ours to write to, the user's error."""
    try:
        yield
    except OSError as error:
        forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        raise UserError(
            flag,
            str(folder),
            f"cannot be written to ({error.strerror or error})",
            f"{'have the right to, or' if forbidden else 'make room, or'} name another",
        ) from error


def move_aside(workdir: pathlib.Path) -> pathlib.Path:
    """Renames a directory to make room for a new one: ``ffhq`` becomes ``ffhq.1``, ``ffhq.2``, …"""
    return move(workdir, next_free(workdir))


def move(path: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Renames, or copies where that is another file system; returns ``target``."""
    try:
        path.rename(target)
    except OSError as error:
        # What is mounted itself would be emptied.
        if error.errno != errno.EXDEV or path.is_mount():
            raise
        shutil.move(path, target)
    sync(target.parent)
    return target


def next_free(path: pathlib.Path) -> pathlib.Path:
    """``path`` with the first number that makes it a new one: ``path.1``, …"""
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return target


def cache_root() -> pathlib.Path:
    """Where the user's cache of lwgan is: ``~/.cache/lwgan``, or below ``XDG_CACHE_HOME``.

    Raises:
      UserError: there is no home directory.
    """
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return local_path("XDG_CACHE_HOME", root) / "lwgan"
