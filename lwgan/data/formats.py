"""Which files are images, and how one is opened: by content, never with another program's help."""

import contextlib
import errno
import functools
import importlib.metadata
import importlib.util
import pathlib
import struct
from typing import IO

from PIL import Image
from PIL import __version__ as PILLOW

# Pillow's names. Formats that start other programs (EPS) or are no photographs are not among them.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")

# Files with these are looked at without asking what is in them.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .jfi .pjpeg .pjp .mpo .png .apng .webp .avif .tif .tiff .bmp .dib "
    ".gif .ppm .pgm .pbm .pnm .tga .jp2 .j2k .j2c .jpc .jpf .jpx".split()
)
_HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
# A camera's raw file is a TIFF for Pillow, with a small preview as its image.
_RAW_SUFFIXES = frozenset(
    ".dng .nef .nrw .cr2 .cr3 .crw .arw .sr2 .srf .orf .rw2 .pef .srw .raf .3fr .iiq .erf".split()
)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"))
_NEEDS_HEIF = "pip install pillow-heif, or convert"

# Errors that a file has for good; Pillow's own have no number.
_OF_THE_FILE = (
    None,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    # A damaged one leads to places that are none.
    errno.EINVAL,
)
# A larger file is no image, or one to burst the memory.
MOST_BYTES = 2**30


@functools.cache
def reads_heif() -> bool:
    """Whether the package pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


@functools.cache
def openers() -> str:
    """The versions of what opens images: others may open more, or give other pixels."""
    heif = importlib.metadata.version("pillow-heif") if reads_heif() else ""
    return f"{PILLOW} {heif}"


def suffix_of(name: str) -> str:
    """The suffix of a file's name, in small letters."""
    return pathlib.PurePosixPath(name).suffix.lower()


def is_image_name(name: str) -> bool:
    """Whether a file is looked at because of its name alone."""
    suffix = suffix_of(name)
    return suffix in SUFFIXES or (suffix in _HEIF_SUFFIXES and reads_heif())


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it, by relative path, is hidden.

    So are macOS's notes and the small copies that network drives of Synology make.
    """
    parts = name.split("/")
    return any(part.startswith(".") or part in ("__MACOSX", "@eaDir") for part in parts)


def is_the_disks(error: BaseException | None) -> bool:
    """Whether it is the disk that failed: another time, the same file may be read."""
    return isinstance(error, OSError) and error.errno not in _OF_THE_FILE


def is_image_file(file: IO[bytes], name: str) -> bool:
    """Whether an open file with a name that says nothing is an image by its content.

    Raises:
      OSError: the disk fails.
    """
    if suffix_of(name) in _RAW_SUFFIXES:
        return False
    try:
        open_image_file(file, name)
    # Pillow raises many kinds.
    except Exception as error:
        if is_the_disks(error):
            raise
        return False
    return True


def open_image_file(file: IO[bytes], name: str) -> Image.Image:
    """The image in an open file, not yet decoded, which owns the file; an error closes it.

    As ``PIL.Image.open``, but for its limit on pixels, which is a global of Pillow.

    Raises:
      ValueError: it is none of ``FORMATS``. Others, of Pillow: it is damaged.
    """
    try:
        image = _open(file, name)
    except BaseException:
        file.close()
        raise
    image._exclusive_fp = True
    return image


def _open(file: IO[bytes], name: str) -> Image.Image:
    prefix = file.read(16)
    Image.init()
    for kind in (*FORMATS, *(("TGA",) if suffix_of(name) == ".tga" else ())):
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory and (accept is None or accept(prefix) is True):
            file.seek(0)
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
                return factory(file, "")
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        if not reads_heif():
            raise ValueError(f"is HEIC: {_NEEDS_HEIF} it")
        import pillow_heif

        file.seek(0)
        return pillow_heif.HeifImageFile(file, "")
    raise ValueError("is none of " + ", ".join(FORMATS) if prefix else "is empty")


def what_to_do(suffix: str) -> str:
    """How files that are not looked at can be had, in brackets; empty where nothing is known."""
    if suffix in _HEIF_SUFFIXES:
        return f" ({_NEEDS_HEIF} them)"
    return " (raw: develop them to TIFF or JPEG)" if suffix in _RAW_SUFFIXES else ""
