"""What a source of images is, and how the bytes of images are told apart."""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image


class Source(NamedTuple):
    """A set of images in a fixed order."""

    # One per image, for messages.
    names: Sequence[str]
    # The same for the same images, wherever they lie.
    fingerprint: str
    # Image by index, full size, any mode, perhaps not yet decoded.
    read: Callable[[int], Image.Image]


class Extent(NamedTuple):
    """Where the bytes of an image lie in a file."""

    first: int
    size: int


def bytes_at(file_number: int, extent: Extent) -> bytes:
    """The bytes of an open file there."""
    return os.pread(file_number, extent.size, extent.first)


def add_to_digest(digest: "hashlib._Hash", name: str, extent: Extent, file_number: int) -> None:
    """Name, size, first and last bytes: tells images apart without reading a large set whole."""
    part = 4096
    tail = max(0, extent.size - part)
    digest.update(os.fsencode(name) + b"\0" + extent.size.to_bytes(8, "big"))
    digest.update(os.pread(file_number, min(part, extent.size), extent.first))
    digest.update(os.pread(file_number, extent.size - tail, extent.first + tail))
