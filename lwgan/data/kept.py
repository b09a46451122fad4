"""The user's cache: what lies in it, how much of the disk it may take, and what goes first."""

import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import NamedTuple

from lwgan.errors import UserError
from lwgan.runs.files import cache_root, remove

# Folders of files, and what these hold.
_KINDS = {
    "features": "features of real images",
    "unpacked": "an unpacked archive",
    "files": "digests of a folder's files",
    "archives": "digests of an archive's files",
    "records": "digests of TFDS records",
    "known": "what is known of images that are not kept",
}
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
    for path in sorted(root.glob("*/pixels")):
        folder = path.parent
        size = sum(file.stat().st_size for file in folder.iterdir())
        about = folder / ABOUT
        what = about.read_text(errors="replace").strip() if about.exists() else "images"
        yield Entry(folder, what, size, folder.stat().st_mtime)
    for kind, what in _KINDS.items():
        for path in sorted((root / kind).glob("*.*")):
            status = path.stat()
            yield Entry(path, what, status.st_size, status.st_mtime)


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


def used(path: pathlib.Path) -> None:
    """Notes that an entry is used."""
    try:
        os.utime(path)
    # Somebody else's cache, or a read-only one.
    except OSError:
        pass


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
    """Removes the entries that were not used for the longest time, until another one fits."""
    most = room()
    found = sorted(entries(), key=lambda entry: entry.used)
    total = sum(entry.bytes for entry in found)
    for entry in found:
        if total + needed <= most:
            return
        remove(entry.path)
        total -= entry.bytes
