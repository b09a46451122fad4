"""Tables of what was read once, in the user's cache: a second start need not read it again."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from lwgan.errors import UserError
from lwgan.runs.files import cache_root, replacing

Table = Mapping[str, np.ndarray]


def path_of(kind: str, *key: object) -> pathlib.Path:
    """Where a table lies; ``key`` is all that it depends on.

    Raises:
      UserError: there is no place for a cache.
    """
    name = hashlib.sha256(repr(key).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_root() / kind / f"{name}.npz"


def read_table(path: pathlib.Path) -> Table:
    """The arrays of a file; the sums that are in it are checked.

    Raises:
      Exception: of several kinds, if it is damaged.
    """
    # NumPy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
        return {name: table[name] for name in table.files}


def recall(kind: str, *key: object) -> Table | None:
    """The table that was kept under this key, if there is one and it is whole."""
    try:
        path = path_of(kind, *key)
        found = read_table(path)
        used(path)
    # A damaged file fails in every way.
    except Exception:
        return None
    return found


def keep(table: Table, kind: str, *key: object) -> None:
    """Keeps a table under a key; where that is not possible, it is a warning."""
    try:
        path = path_of(kind, *key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **table)
    except (OSError, UserError) as error:
        logging.warning("What was read cannot be remembered (%s)", error)


def pack(names: Sequence[str]) -> np.ndarray:
    """Names of files as one array, uint8."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def unpack(packed: np.ndarray) -> list[str]:
    """What ``pack`` packed."""
    text = packed.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []


def used(path: pathlib.Path) -> None:
    """Notes that an entry is used."""
    # It may be somebody else's cache, or a read-only one.
    with contextlib.suppress(OSError):
        os.utime(path)
