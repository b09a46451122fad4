"""What is known of a source's images at training size, which is found out by decoding them."""

import concurrent.futures
import errno
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lwgan.data.dataset import RECORD
from lwgan.data.decode import PIL_MODES, read_image, stored_side
from lwgan.data.formats import openers
from lwgan.data.limits import num_cores
from lwgan.data.remembered import Table, read_table
from lwgan.data.source import Source
from lwgan.errors import UserError
from lwgan.runs.bars import counted

# Of the files that keep images; another number and they are made anew.
_FORMAT = 2
# Bytes of decoded images that wait to be written, and threads, at most.
_AHEAD, _MOST_THREADS = 1 << 26, 64
# Errors that a file has for good; Pillow's own have no number.
_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
# In a folder of the cache.
INDEX = "known.npz"


class Known(NamedTuple):
    """What is known of a source's images under some settings."""

    # Of those that decode, in the source: int64 (N,).
    numbers: np.ndarray
    # Of RECORD, (N,).
    infos: np.ndarray
    # Why others do not, by their number.
    errors: dict[int, str]


def decode_all(source: Source, data: ConfigDict, put: Callable[[np.ndarray], object]) -> Known:
    """Hands every good image to ``put`` in turn; returns what is known of them.

    Raises:
      UserError: the disk fails, or there is not enough memory.
    """
    count = len(source.names)
    infos = np.zeros(count, RECORD)
    errors: dict[int, str] = {}
    nothing = np.empty((0, 0, 0), np.uint8)

    def one(index: int) -> np.ndarray:
        try:
            info, array = read_image(source, index, data)
        except ValueError as error:
            _require_disk(error.__cause__, source.names[index])
            errors[index] = str(error)
            return nothing
        digest = np.frombuffer(info.digest, np.uint8)
        infos[index] = (*info[:-1], digest, *array.shape[:2])
        return array

    side = stored_side(data)
    ahead = max(2 * _MOST_THREADS, _AHEAD // (side * side * len(PIL_MODES[data.mode])))
    arrays = _in_order(one, count, data.num_threads, ahead)
    for array in counted(arrays, "Reading images", count):
        if array.size:
            put(np.ascontiguousarray(array))
    numbers = np.flatnonzero(infos["rows"])
    return Known(numbers, infos[numbers], dict(sorted(errors.items())))


def _require_disk(cause: BaseException | None, name: str) -> None:
    """Refuses what is the disk's fault: another time the image would not be left out."""
    if isinstance(cause, OSError) and cause.errno not in (None, *_OF_THE_FILE):
        raise UserError(
            "data.path", name, f"cannot be read ({cause.strerror})", "mend that, and start again"
        )


def _in_order(
    function: Callable[[int], np.ndarray], count: int, num_threads: int, ahead: int
) -> Iterator[np.ndarray]:
    """A function of 0, 1, … in order, on threads: no TensorFlow has to start for this."""
    workers = num_threads if num_threads > 0 else min(num_cores(), _MOST_THREADS)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for first in range(0, count, ahead):
            yield from pool.map(function, range(first, min(first + ahead, count)))


def read_known(folder: pathlib.Path) -> Known:
    """What a folder of the cache says of its images; the sums in the file are checked.

    Raises:
      Exception: of several kinds, if it is damaged.
    """
    return unpack(read_table(folder / INDEX))


def ends_of(infos: np.ndarray, data: ConfigDict) -> np.ndarray:
    """Where each image ends among the pixels, int64 (N,)."""
    sizes = infos["rows"].astype(np.int64) * infos["columns"]
    return np.cumsum(sizes * len(PIL_MODES[data.mode]))


def pack(known: Known) -> Table:
    """As arrays."""
    errors = json.dumps(list(known.errors.items())).encode()
    return {
        "numbers": known.numbers,
        "infos": known.infos,
        "errors": np.frombuffer(errors, np.uint8),
    }


def unpack(table: Table) -> Known:
    """What ``pack`` packed."""
    return Known(table["numbers"], table["infos"], dict(json.loads(table["errors"].tobytes())))


def key_of(source: Source, data: ConfigDict) -> str:
    """Of all that the images at training size depend on."""
    contents = hashlib.sha256(source.digests.tobytes()).hexdigest()
    parts = (_FORMAT, openers(), contents, data.mode, data.image_size)
    return hashlib.sha256(repr((*parts, data.crop_prob > 0)).encode()).hexdigest()[:16]
