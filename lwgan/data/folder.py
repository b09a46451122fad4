"""Folders of images, and which kind of place a path is."""

import hashlib
import os
import pathlib
import stat
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from lwgan.data import remembered
from lwgan.data.archives import open_tar, open_zip, packed_tar
from lwgan.data.earlier import add_ends, earlier_source
from lwgan.data.formats import (
    is_hidden,
    is_image_file,
    is_image_name,
    is_the_disks,
    open_image_file,
    openers,
    suffix_of,
)
from lwgan.data.formats import what_to_do as how
from lwgan.data.source import Extent, Source, fingerprint_of, new_digest
from lwgan.data.threads import plain_map
from lwgan.errors import UserError
from lwgan.runs.bars import counted
from lwgan.runs.files import local_path

_HINT = (
    "name a folder, zip or tar of images with --config.data.path=… "
    "(the head of the config file says where to get a known set)"
)
# What is no archive for us, by its first bytes.
_OTHERS = {b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\x28\xb5\x2f\xfd": "zstd"}

# Of a file whose content could not be read.
_UNREAD = bytes(16)
# Files at once: on a network drive it is waiting that costs.
_READERS, _AT_ONCE = 16, 4096
# Bytes of a file read at once.
_BLOCK = 1 << 16
# A file that was changed so short ago may change again without another time.
_FRESH_NS = 2 * 10**9


def open_folder(data: ConfigDict, *, keep: bool = True) -> Source:
    """The images in the folder, zip or tar ``data.path``, as ``open_path`` finds them.

    Raises:
      UserError: no such path, no image in it, or it cannot be read.
    """
    return open_path(data.path, "data.path", _HINT, keep=keep)


def open_path(name: str, what: str, hint: str, *, keep: bool = True) -> Source:
    """The images in a folder, zip or tar, by relative path; hidden ones are left out.

    Every file is read once; with ``keep``, digests are remembered in the user's cache.

    Raises:
      UserError: no such path, no image in it, or it cannot be read; it names ``what`` and gives
        ``hint``.
    """
    path = local_path(what, name)
    if not name or not path.exists():
        raise UserError(what, name, "there is no such folder or file", hint)
    try:
        source = _open(path, what, hint, keep=keep)
    except OSError as error:
        raise UserError(
            what,
            error.filename or name,
            f"cannot be read ({error.strerror or error})",
            "mend it, or take it away",
        ) from None
    if not source.names:
        left = f" ({not_looked_at(source.skipped)})" if source.skipped else ""
        raise UserError(what, name, f"no image below it{left}", hint)
    return source


def not_looked_at(skipped: Mapping[str, int]) -> str:
    """Which files were not looked at, in words."""
    most = Counter(skipped).most_common()
    shown = [f"{n} {suffix or 'without a suffix'}{how(suffix)}" for suffix, n in most[:6]]
    return "not looked at: " + ", ".join(shown) + (", …" if len(most) > 6 else "")


def open_image(path: pathlib.Path) -> Source:
    """One file as a source."""
    read = lambda index: open_image_file(path.open("rb"), path.name)  # noqa: E731
    source = Source([path.name], np.zeros((1, 16), np.uint8), "", read, {}, lambda: source)
    return source


def _open(path: pathlib.Path, what: str, hint: str, *, keep: bool) -> Source:
    if path.is_dir():
        return _open_directory(path, keep=keep)
    if not path.is_file():
        raise UserError(what, str(path), "is neither folder nor file", hint)
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK") or zipfile.is_zipfile(path):
        return open_zip(path, what, keep=keep)
    if packed_tar(start):
        return open_tar(path, what, keep=keep)
    kind = next((kind for first, kind in _OTHERS.items() if start.startswith(first)), None)
    if kind:
        raise UserError(what, str(path), f"is packed with {kind}", "unpack it, name the folder")
    raise UserError(what, str(path), "is neither folder, zip nor tar, or damaged", hint)


def _open_directory(root: pathlib.Path, *, keep: bool) -> Source:
    names, sizes, times = _list_files(root)
    digests, are_images = _contents(root, names, sizes, times, keep=keep)
    rows = np.flatnonzero(are_images)
    skipped = Counter(suffix_of(names[row]) for row in np.flatnonzero(~are_images))
    names = [names[row] for row in rows]

    def read(index: int) -> Image.Image:
        return open_image_file((root / names[index]).open("rb"), names[index])

    def mark(digest: "hashlib._Hash", row: int) -> None:
        name = names[row]
        try:
            with (root / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                add_ends(digest, name, Extent(0, size), file.fileno())
        except OSError:
            digest.update(os.fsencode(name))

    digests = digests[rows]
    fingerprint = fingerprint_of(digests)
    source = Source(names, digests, fingerprint, read, skipped, lambda: source)
    source = source._replace(earlier=lambda: earlier_source(source, range(len(names)), mark))
    return source


def _list_files(root: pathlib.Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Every file below a folder that is not hidden: names, sizes, times of change, by name.

    Links are followed, each folder once. What cannot be asked has the size and time -1. Pipes and
    devices are left alone.
    """
    found = sorted(_walk(os.fspath(root)))
    names = [name for name, _, _ in found]
    sizes, times = (np.array([entry[k] for entry in found], np.int64) for k in (1, 2))
    return names, sizes, times


def _walk(root: str) -> Iterator[tuple[str, int, int]]:
    seen, folders = set(), [""]
    while folders:
        prefix = folders.pop()
        here = os.stat(os.path.join(root, prefix))
        if (here.st_dev, here.st_ino) in seen:
            # A link back up.
            continue
        seen.add((here.st_dev, here.st_ino))
        for entry in _entries(os.path.join(root, prefix), is_root=not prefix):
            name = prefix + entry.name
            if is_hidden(name):
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if is_the_disks(error):
                    raise
                yield name, -1, -1
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(f"{name}/")
            elif stat.S_ISREG(status.st_mode):
                # The second also tells a change that set the first back.
                yield name, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


def _entries(folder: str, *, is_root: bool) -> list[os.DirEntry]:
    """What is in a folder, the last name first; one that is closed to us is a warning."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    # As lost+found is, at the root of a disk.
    except PermissionError as error:
        if is_root:
            raise
        logging.warning("Left out: the folder %s (%s)", folder, error.strerror)
        return []


def _contents(
    root: pathlib.Path, names: list[str], sizes: np.ndarray, times: np.ndarray, *, keep: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Digests of files, uint8 (N, 16), and which are images, bool (N,)."""
    place = os.path.realpath(root)
    packed = remembered.pack(names)
    table = remembered.recall("files", place)
    digests, are_images = np.zeros((len(names), 16), np.uint8), np.zeros(len(names), bool)
    known = np.zeros(len(names), bool)
    if table:
        rows, old = _same_names(names, packed, table)
        same = (sizes[rows] == table["sizes"][old]) & (times[rows] == table["times"][old])
        same &= times[rows] >= 0
        rows, old = rows[same], old[same]
        digests[rows], are_images[rows], known[rows] = (
            table["digests"][old],
            table["are"][old],
            True,
        )
    # Another version, or a package that was installed since, may open more.
    if not table or table["openers"].tobytes().decode() != openers():
        known &= are_images
    todo = np.flatnonzero(~known)
    began = time.time_ns()
    look = lambda rows: [_look(place, names[row]) for row in rows]  # noqa: E731
    looks = plain_map(look, todo, _READERS, _AT_ONCE)
    looks = counted(looks, "Looking at files", len(todo), "files")
    for row, (digest, is_image) in zip(todo, looks, strict=True):
        digests[row], are_images[row] = np.frombuffer(digest, np.uint8), is_image
    if keep and len(todo):
        # Nor what could not be read, perhaps for the moment.
        unread = are_images & ~digests.any(1)
        old_enough = np.where((times < began - _FRESH_NS) & ~unread, times, -1)
        columns = dict(names=packed, sizes=sizes, times=old_enough, digests=digests, are=are_images)
        columns["openers"] = np.frombuffer(openers().encode(), np.uint8)
        remembered.keep(columns, "files", place)
    return digests, are_images


def _same_names(
    names: list[str], packed: np.ndarray, table: remembered.Table
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of files that a table has too, and their rows there."""
    if np.array_equal(packed, table["names"]):
        rows = np.arange(len(names))
        return rows, rows
    there = {name: row for row, name in enumerate(remembered.unpack(table["names"]))}
    pairs = [(row, there[name]) for row, name in enumerate(names) if name in there]
    return tuple(np.array(pairs, np.int64).reshape(-1, 2).T)


def _look(root: str, name: str) -> tuple[bytes, bool]:
    """A file's digest, and whether it is an image; one that cannot be read goes by its name.

    Raises:
      OSError: the disk fails.
    """
    named, path = is_image_name(name), os.path.join(root, name)
    try:
        if not named:
            # An image of Pillow's closes its file.
            with open(path, "rb") as file:
                if not is_image_file(file, name):
                    return _UNREAD, False
        # Without a buffer: of many threads, each waits for the interpreter after every call.
        with open(path, "rb", buffering=0) as file:
            digest = new_digest()
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.digest(), True
    except OSError as error:
        if is_the_disks(error):
            raise OSError(error.errno, error.strerror, path) from None
        return _UNREAD, named
