"""Folders, zip and tar archives of images."""

import hashlib
import io
import os
import pathlib
import shutil
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from typing import IO

from ml_collections import ConfigDict
from PIL import Image

from lwgan.data.source import Extent, Source, add_to_digest, bytes_at
from lwgan.errors import UserError
from lwgan.runs.files import local_path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")

_HINT = (
    "name a folder, zip or tar of images with --config.data.path=… "
    "(the head of the config file says where to get a known set)"
)


def open_folder(data: ConfigDict) -> Source:
    """The images in the folder, zip or tar ``data.path``, as ``open_path`` finds them.

    Raises:
      UserError: no such path, no image in it, or it cannot be read.
    """
    return open_path(data.path, "data.path", _HINT)


def open_path(name: str, what: str, hint: str) -> Source:
    """The images in a folder, zip or tar, by relative path; hidden ones are left out.

    Raises:
      UserError: no such path, no image in it, or it cannot be read; it names ``what`` and gives
        ``hint``.
    """
    path = local_path(what, name)
    if not name or not path.exists():
        raise UserError(what, name, "there is no such folder or file", hint)
    try:
        if path.is_dir():
            source = _open_directory(path)
        elif zipfile.is_zipfile(path):
            source = _open_zip(path)
        elif tarfile.is_tarfile(path):
            source = _open_tar(path)
        else:
            raise UserError(what, name, "is neither folder, zip nor tar", hint)
    except OSError as error:
        raise UserError(
            what,
            error.filename or name,
            f"cannot be read ({error.strerror or error})",
            "mend it, or take it away",
        ) from None
    if not source.names:
        raise UserError(what, name, f"no {', '.join(SUFFIXES)} image below it", hint)
    return source


def open_image(path: pathlib.Path) -> Source:
    """One file as a source."""
    return Source([path.name], "", lambda index: Image.open(path))


def _open_directory(root: pathlib.Path) -> Source:
    names = sorted(filter(_is_image, _files_below(root)))
    digest = hashlib.sha256()
    for name in names:
        try:
            with (root / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                add_to_digest(digest, name, Extent(0, size), file.fileno())
        # It will be left out as every image that does not decode.
        except OSError:
            digest.update(os.fsencode(name))
    return Source(names, digest.hexdigest(), lambda index: Image.open(root / names[index]))


def _files_below(root: pathlib.Path) -> Iterator[str]:
    """Relative paths with ``/``; links are followed, each folder once."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        entry = os.stat(folder)
        if (entry.st_dev, entry.st_ino) in seen:
            # A link back up.
            folders.clear()
            continue
        seen.add((entry.st_dev, entry.st_ino))
        folders.sort()
        for name in names:
            yield pathlib.Path(folder, name).relative_to(root).as_posix()


def _is_image(name: str) -> bool:
    """By its name; what is hidden, or macOS's note beside an image, is none."""
    parts = name.split("/")
    hidden = any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"
    return name.lower().endswith(SUFFIXES) and not hidden


def _open_zip(path: pathlib.Path) -> Source:
    # Its own lock lets threads read at once.
    archive = zipfile.ZipFile(path)
    members = {member.filename: member for member in archive.infolist()}
    names = sorted(filter(_is_image, members))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{members[name].file_size}\0{members[name].CRC}\0".encode())

    def read(index: int) -> Image.Image:
        return Image.open(io.BytesIO(archive.read(names[index])))

    return Source(names, digest.hexdigest(), read)


def _open_tar(path: pathlib.Path) -> Source:
    """Images by their place in the file; a compressed one is first unpacked to a temporary file."""
    with tarfile.open(path) as archive:
        extents = {
            os.path.normpath(member.name): Extent(member.offset_data, member.size)
            for member in archive
            if member.isfile()
        }
        if isinstance(archive.fileobj, io.BufferedReader):
            file: IO[bytes] = path.open("rb")
        else:
            file = tempfile.TemporaryFile()
            archive.fileobj.seek(0)
            shutil.copyfileobj(archive.fileobj, file)
            file.flush()
    names = sorted(filter(_is_image, extents))
    digest = hashlib.sha256()
    for name in names:
        add_to_digest(digest, name, extents[name], file.fileno())

    def read(index: int) -> Image.Image:
        return Image.open(io.BytesIO(bytes_at(file.fileno(), extents[names[index]])))

    weakref.finalize(read, file.close)
    return Source(names, digest.hexdigest(), read)
