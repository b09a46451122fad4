"""What is known of a source's images at training size, which is found out by decoding them."""

import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lwgan.data.dataset import RECORD
from lwgan.data.decode import PIL_MODES, Info, how_kept, middle, read_image, stored_shape
from lwgan.data.duplicates import TINY, perceptual_hashes
from lwgan.data.formats import is_the_disks, openers
from lwgan.data.limits import num_cores
from lwgan.data.remembered import Table, read_table
from lwgan.data.source import Source, digest_of
from lwgan.data.threads import plain_map
from lwgan.errors import UserError
from lwgan.runs.bars import counted
from lwgan.settings.shapes import Shape, shape_of

# Of the files that keep images; another number and they are made anew.
_FORMAT = 3
# Bytes of decoded images that wait to be written, and threads, at most.
_AHEAD, _MOST_THREADS = 1 << 26, 64
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

    def some(indices: Sequence[int]) -> list[np.ndarray]:
        found = {}
        for index in indices:
            try:
                found[index] = read_image(source, index, data)
            except ValueError as error:
                require_disk(error.__cause__, "data.path", source.names[index])
                errors[index] = str(error)
        if found:
            infos[list(found)] = _records(list(found.values()), data)
        return [found[index][1] if index in found else nothing for index in indices]

    size = math.prod(stored_shape(data)) * len(PIL_MODES[data.mode])
    ahead = max(2 * _MOST_THREADS, _AHEAD // size)
    workers = data.num_threads if data.num_threads > 0 else min(num_cores(), _MOST_THREADS)
    arrays = plain_map(some, range(count), workers, ahead)
    for array in counted(arrays, "Reading images", count):
        if array.size:
            put(array)
    numbers = np.flatnonzero(infos["rows"])
    return Known(numbers, infos[numbers], dict(sorted(errors.items())))


def _records(images: list[tuple[Info, np.ndarray]], data: ConfigDict) -> np.ndarray:
    """What is to be known of decoded images, of RECORD (N,); together, for many are small."""
    infos, arrays = zip(*images, strict=True)
    records = np.zeros(len(infos), RECORD)
    for name, column in zip(Info._fields, zip(*infos, strict=True), strict=True):
        records[name] = column
    # Of the middle, so that random crops change nothing about which images look alike.
    shape = shape_of(data.image_size)
    tiny = np.stack([middle(array, shape, Shape(TINY, TINY)) for array in arrays])
    tiny = tiny[..., :3].astype(np.int16)
    records["hash"] = perceptual_hashes(tiny)
    if data.mode != "grey":
        # NumPy is slow along a short last axis.
        channels = np.ascontiguousarray(np.moveaxis(tiny, -1, 0))
        records["grey"] |= (np.ptp(channels, 0) <= 4).all((1, 2))
    digests = b"".join(digest_of(array) for array in arrays)
    records["digest"] = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    records["rows"], records["columns"] = np.transpose([array.shape[:2] for array in arrays])
    return records


def require_disk(cause: BaseException | None, what: str, name: str) -> None:
    """Lets an error pass but for the disk's, after which an image would not be left out.

    Raises:
      UserError: the disk has failed; it names ``what`` and the image.
    """
    if is_the_disks(cause):
        problem = f"cannot be read ({cause.strerror})"
        raise UserError(what, name, problem, "mend that, and start again") from None


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
    return hashlib.sha256(repr((*parts, *how_kept(data))).encode()).hexdigest()[:16]
