"""Fingerprints of runs that began when a dataset was told by names, sizes and ends of files."""

import hashlib
import os
from collections.abc import Callable, Sequence

from lwgan.data.formats import is_hidden
from lwgan.data.source import Extent, Source, select

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def earlier_source(
    source: Source, rows: Sequence[int], mark: Callable[["hashlib._Hash", int], None]
) -> Source:
    """The images among ``rows`` that were found then; ``mark`` adds one to the fingerprint."""
    names = source.names
    rows = [row for row in rows if names[row].lower().endswith(_SUFFIXES)]
    digest = hashlib.sha256()
    for row in rows:
        mark(digest, row)
    return select(source, rows, digest.hexdigest())


def was_hidden(name: str) -> bool:
    """Then, a leading ``./`` in a zip hid a file too."""
    return name.startswith("./") or is_hidden(name)


def add_ends(digest: "hashlib._Hash", name: str, extent: Extent, file_number: int) -> None:
    """Name, size, first and last bytes."""
    part = 4096
    tail = max(0, extent.size - part)
    digest.update(os.fsencode(name) + b"\0" + extent.size.to_bytes(8, "big"))
    digest.update(os.pread(file_number, min(part, extent.size), extent.first))
    digest.update(os.pread(file_number, extent.size - tail, extent.first + tail))
