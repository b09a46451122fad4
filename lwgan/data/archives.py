"""Zip and tar archives of images; a compressed tar is unpacked once, into the user's cache."""

import bisect
import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import lzma
import os
import pathlib
import posixpath
import shutil
import tarfile
import tempfile
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from lwgan.data import remembered
from lwgan.data.earlier import add_ends, earlier_source, was_hidden
from lwgan.data.formats import (
    MOST_BYTES,
    is_hidden,
    is_image_file,
    is_image_name,
    is_the_disks,
    open_image_file,
    openers,
    suffix_of,
)
from lwgan.data.kept import make_room
from lwgan.data.source import Extent, Source, digest_of, fingerprint_of
from lwgan.errors import UserError
from lwgan.runs.bars import counted
from lwgan.runs.files import cache_root, replacing
from lwgan.runs.locks import locked

_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_BLOCK = 512
# A link to a link to a link …
_MOST_LINKS = 40
_NOWHERE = Extent(0, -1)


class _Listing(NamedTuple):
    """The images of an archive."""

    names: list[str]
    # uint8 (N, 16).
    digests: np.ndarray
    skipped: Counter[str]


@contextlib.contextmanager
def _whole(path: pathlib.Path, what: str) -> Iterator[None]:
    """Makes whatever is wrong with an archive the user's error."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    # A damaged file fails in every way; with a number, it is the disk that does.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = str(error) or type(error).__name__
        raise UserError(
            what,
            str(path),
            f"is damaged or incomplete ({reason})",
            "fetch it again, or unpack what can be had and name the folder",
        ) from None


def packed_tar(start: bytes) -> bool:
    """Whether a file that begins so is a tar, or is compressed as one may be."""
    return start.startswith(tuple(_PACKED)) or _is_header(start)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def open_zip(path: pathlib.Path, what: str, *, keep: bool) -> Source:
    """The images in a zip.

    Raises:
      UserError: it is damaged.
    """
    with _whole(path, what):
        # Its own lock lets threads read at once.
        archive = zipfile.ZipFile(path)
        found = {
            posixpath.normpath(member.filename): member
            for member in archive.infolist()
            if not member.is_dir()
        }
    members = {name: found[name] for name in sorted(found) if not is_hidden(name)}

    def content(name: str) -> bytes:
        member = members[name]
        _require_few(member.file_size)
        return archive.read(member)

    listing = _list_images(path, list(members), content, keep=keep)
    names = listing.names

    def mark(digest: "hashlib._Hash", row: int) -> None:
        member = members[names[row]]
        digest.update(f"{names[row]}\0{member.file_size}\0{member.CRC}\0".encode())

    rows = [row for row, name in enumerate(names) if not was_hidden(members[name].filename)]
    return _source(listing, content, lambda source: earlier_source(source, rows, mark))


def open_tar(path: pathlib.Path, what: str, *, keep: bool) -> Source:
    """The images in a tar, by their place in the file.

    Raises:
      UserError: it is damaged or incomplete, or there is no room to unpack it.
    """
    with _whole(path, what), contextlib.ExitStack() as stack:
        file = stack.enter_context(_unpacked(path, what, keep=keep))
        try:
            extents, links = _extents(file)
        except (ValueError, tarfile.TarError):
            if file.name == str(path) or not isinstance(file.name, str):
                raise
            # Our own copy is damaged.
            file.close()
            os.unlink(file.name)
            file = stack.enter_context(_unpacked(path, what, keep=keep))
            extents, links = _extents(file)
        # It stays open.
        stack.pop_all()
    files = frozenset(extents)
    extents |= _follow(links, extents)
    extents = {name: extents[name] for name in sorted(extents) if not is_hidden(name)}

    def content(name: str) -> bytes:
        extent = extents[name]
        if extent == _NOWHERE:
            raise ValueError("is a link that leads to no file of the archive")
        _require_few(extent.size)
        return os.pread(file.fileno(), extent.size, extent.first)

    listing = _list_images(path, list(extents), content, keep=keep)
    names = listing.names

    def mark(digest: "hashlib._Hash", row: int) -> None:
        add_ends(digest, names[row], extents[names[row]], file.fileno())

    rows = [row for row, name in enumerate(names) if name in files]
    source = _source(listing, content, lambda source: earlier_source(source, rows, mark))
    weakref.finalize(content, file.close)
    return source


def _require_few(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"its {size:,} bytes are too many for an image")


def _stamp(path: pathlib.Path) -> tuple[str, int, int, int]:
    """What changes when an archive does."""
    status = path.stat()
    return os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _source(
    listing: _Listing, content: Callable[[str], bytes], earlier: Callable[[Source], Source]
) -> Source:
    names, digests, skipped = listing

    def read(index: int) -> Image.Image:
        return open_image_file(io.BytesIO(content(names[index])), names[index])

    fingerprint = fingerprint_of(digests)
    source = Source(names, digests, fingerprint, read, skipped, lambda: earlier(source))
    return source


def _list_images(
    path: pathlib.Path, names: list[str], content: Callable[[str], bytes], *, keep: bool
) -> _Listing:
    """Which of an archive's files are images, with digests, which are remembered."""
    key = *_stamp(path), openers()
    packed = remembered.pack(names)
    table = remembered.recall("archives", *key)
    named = np.fromiter(map(is_image_name, names), bool, len(names))
    if table and np.array_equal(table["names"], packed):
        digests, are_images = table["digests"], table["are"]
    else:
        digests, are_images = np.zeros((len(names), 16), np.uint8), named.copy()
        for row, name in enumerate(counted(names, "Looking at files", len(names), "files")):
            try:
                found = content(name)
            except MemoryError:
                raise
            # A damaged file goes by its name.
            except Exception as error:
                if is_the_disks(error):
                    raise
                continue
            are_images[row] |= is_image_file(io.BytesIO(found), name)
            digests[row] = np.frombuffer(digest_of(found), np.uint8)
        if keep:
            remembered.keep(dict(names=packed, digests=digests, are=are_images), "archives", *key)
    skipped = Counter(suffix_of(names[row]) for row in np.flatnonzero(~are_images))
    rows = np.flatnonzero(are_images)
    return _Listing([names[row] for row in rows], digests[rows], skipped)


def _extents(file: IO[bytes]) -> tuple[dict[str, Extent], dict[str, str]]:
    """Where the files in a tar lie, by name, and where its links lead.

    Raises:
      ValueError: it does not end as a tar does.
    """
    extents, links = {}, {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # Else it keeps a kilobyte for each.
            archive.members.clear()
            name = posixpath.normpath(member.name)
            extents.pop(name, None), links.pop(name, None)
            if member.issym():
                links[name] = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), member.linkname)
                )
            elif member.islnk():
                links[name] = posixpath.normpath(member.linkname)
            elif member.isreg() and not member.issparse():
                extents[name] = Extent(member.offset_data, member.size)
        end = archive.offset
    size = os.fstat(file.fileno()).st_size
    # A damaged header ends a tar as its end does.
    if any(os.pread(file.fileno(), _BLOCK, end)) or end >= size:
        raise ValueError(f"no more files can be found from byte {end:,} of {size:,} on")
    if any(extent.first + extent.size > size for extent in extents.values()):
        raise ValueError(f"it ends at byte {size:,}, in a file")
    return extents, links


def _follow(links: dict[str, str], extents: dict[str, Extent]) -> dict[str, Extent]:
    """What the links of an archive lead to within it: files, and those in folders."""
    found, names = {}, sorted(extents)
    for link, target in links.items():
        for _ in range(_MOST_LINKS):
            target = links.get(target, target)
        # The character after the slash.
        first, end = (bisect.bisect_left(names, target + last) for last in "/0")
        for name in names[first:end]:
            found[link + name[len(target) :]] = extents[name]
        if first == end:
            found[link] = extents.get(target, _NOWHERE)
    return found


def _unpacked(path: pathlib.Path, what: str, *, keep: bool) -> IO[bytes]:
    """The open file of a tar; a compressed one is unpacked, and kept where it can be."""
    with path.open("rb") as file:
        start = file.read(16)
    opener = next((_PACKED[first] for first in _PACKED if start.startswith(first)), None)
    if opener is None:
        return path.open("rb")
    try:
        target = remembered.path_of("unpacked", *_stamp(path)).with_suffix(".tar")
        if target.exists():
            remembered.used(target)
            return target.open("rb")
        if keep:
            target.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, UserError):
        keep = False
    if keep:
        # Images are barely compressed by it.
        make_room(2 * path.stat().st_size)
        with locked(target.with_suffix(".lock")):
            if not target.exists():
                with replacing(target) as part, part.open("wb") as file:
                    _unpack(path, opener, file, part.parent, what)
        return target.open("rb")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryFile())
        _unpack(path, opener, temporary, pathlib.Path(tempfile.gettempdir()), what)
        temporary.seek(0)
        stack.pop_all()
    return temporary


def _unpack(
    path: pathlib.Path, opener: Callable, file: IO[bytes], folder: pathlib.Path, what: str
) -> None:
    """Unpacks a compressed tar into a file in ``folder``, of which half the room may be taken."""
    room = shutil.disk_usage(folder).free // 2
    with opener(path) as packed:
        block = packed.read(_BLOCK)
        if not _is_header(block):
            raise ValueError("what it unpacks to is no tar")
        while block:
            if file.tell() + len(block) > room:
                raise _no_room(path, folder, what)
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _no_room(path, folder, what) from None
                raise
            block = packed.read(2**20)


def _no_room(path: pathlib.Path, folder: pathlib.Path, what: str) -> UserError:
    place = "XDG_CACHE_HOME" if cache_root() in folder.parents else "TMPDIR"
    return UserError(
        what,
        str(path),
        f"there is no room in {folder} to unpack it (half of what is free there may be used)",
        f"make room, name another place with {place}, or unpack it and name the folder",
    )
