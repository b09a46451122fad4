"""What a source of images is, and how images are told apart."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

# Ends fingerprints that are of nothing but the content of images.
BY_CONTENT = "-content"


class Source(NamedTuple):
    """A set of images in a fixed order."""

    # One per image, for messages.
    names: Sequence[str]
    # Of each image's file, uint8 (N, 16).
    digests: np.ndarray
    # The same for the same images, wherever they lie, whatever they are called.
    fingerprint: str
    # Image by index, full size, any mode, perhaps not yet decoded.
    read: Callable[[int], Image.Image]
    # Files that were not looked at, by suffix.
    skipped: Mapping[str, int]
    # The images as they were found when fingerprints were of names and sizes, with that one.
    earlier: Callable[[], "Source"]
    # A label for each image, where the source itself has them.
    labels: Callable[[], Sequence[str]] | None = None


class Extent(NamedTuple):
    """Where the bytes of an image lie in a file."""

    first: int
    size: int


def new_digest() -> "hashlib._Hash":
    """A digest of 16 bytes that tells contents apart, of nothing yet."""
    return hashlib.blake2b(digest_size=16)


def digest_of(*parts: bytes | np.ndarray) -> bytes:
    """The digest of bytes, or of contiguous arrays."""
    digest = new_digest()
    for part in parts:
        digest.update(part)
    return digest.digest()


def content_order(digests: np.ndarray) -> np.ndarray:
    """The order of images by their digests, uint8 (N, 16), whatever they are called: int64 (N,)."""
    first, second = np.ascontiguousarray(digests).view(">u8").reshape(-1, 2).T
    return np.lexsort((second, first))


def fingerprint_of(digests: np.ndarray) -> str:
    """The fingerprint of the images with these digests, uint8 (N, 16), in whatever order."""
    ordered = digests[content_order(digests)]
    return hashlib.sha256(ordered.tobytes()).hexdigest()[:32] + BY_CONTENT


def select(source: Source, rows: Sequence[int], fingerprint: str) -> Source:
    """Some of a source's images, under another fingerprint."""
    return source._replace(
        names=[source.names[row] for row in rows],
        digests=source.digests[list(rows)],
        fingerprint=fingerprint,
        read=lambda index: source.read(rows[index]),
        labels=source.labels and (lambda: np.array(source.labels())[list(rows)].tolist()),
    )
