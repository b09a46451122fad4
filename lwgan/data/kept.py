"""The user's cache: what lies in it, how much of the disk it may take, and what goes first."""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import NamedTuple

from lwgan.errors import UserError
from lwgan.runs.compiled import FOLDER
from lwgan.runs.files import cache_root, is_part, remove

# Folders of files, and what these hold.
_KINDS = {
    "features": "features of real images",
    "unpacked": "an unpacked archive",
    "files": "digests of a folder's files",
    "archives": "digests of an archive's files",
    "records": "digests of TFDS records",
    "known": "what is known of images that are not kept",
}
# Seconds for which what was used may be in use still.
_IN_USE = 6 * 3600
# Of images, in their folder.
ABOUT = "about.txt"


class Entry(NamedTuple):
    """One thing in the cache."""

    path: pathlib.Path
    # In words.
    what: str
    bytes: int
    # Seconds since 1970.
    used: float


def entries() -> Iterator[Entry]:
    """What lies in the cache, but for networks' weights, which cannot always be had again."""
    root = cache_root()
    folders = {path.parent: "images" for path in sorted(root.glob("*/pixels"))}
    files = {
        path: what for kind, what in _KINDS.items() for path in sorted((root / kind).glob("*.*"))
    }
    programs = {path: "compiled programs" for path in sorted((root / FOLDER).glob("*"))}
    for path, what in (folders | files | programs).items():
        # What is not finished is another process's; what is gone, it has removed.
        if not is_part(path.name) and path.suffix != ".lock":
            with contextlib.suppress(OSError):
                yield _entry(path, what)


def _entry(path: pathlib.Path, what: str) -> Entry:
    if path.is_file():
        status = path.stat()
        return Entry(path, what, status.st_size, status.st_mtime)
    about = path / ABOUT
    if about.exists():
        what = about.read_text(errors="replace").strip()
    size = sum(file.stat().st_size for file in path.rglob("*"))
    return Entry(path, what, size, path.stat().st_mtime)


def listing() -> str:
    """What lies in the cache, in lines."""
    found = sorted(entries(), key=lambda entry: -entry.used)
    lines = [
        f"{entry.bytes / 2**20:10,.1f} MiB  {time.strftime('%Y-%m-%d', time.localtime(entry.used))}"
        f"  {entry.path.relative_to(cache_root())}  {entry.what}"
        for entry in found
    ]
    total = sum(entry.bytes for entry in found)
    return "\n".join([*lines, f"{total / 2**20:10,.1f} MiB in {cache_root()}"])


def clear() -> int:
    """Removes all of it; returns how many bytes that were."""
    found = list(entries())
    for entry in found:
        remove(entry.path)
    return sum(entry.bytes for entry in found)


def room() -> int:
    """Bytes that one more entry may have; 0 where nothing can be written.

    All entries may have half of what would be free without them, and the oldest make room.
    """
    try:
        there = cache_root()
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK | os.X_OK):
            return 0
        return (shutil.disk_usage(there).free + sum(entry.bytes for entry in entries())) // 2
    except (OSError, UserError):
        return 0


def make_room(needed: int) -> None:
    """Removes the entries that were not used for the longest time, until another one fits.

    None is removed for one that would not fit anyway, nor what was used in the last hours.
    """
    most, now = room(), time.time()
    found = sorted(entries(), key=lambda entry: entry.used)
    total = sum(entry.bytes for entry in found)
    for entry in found:
        if total + needed <= most or needed > most or now - entry.used < _IN_USE:
            return
        remove(entry.path)
        total -= entry.bytes
