"""Images at training size, decoded once and kept: in memory, in a file, or not at all."""

import hashlib
import io
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from lwgan.data.decode import (
    PIL_MODES,
    Info,
    centre_box,
    crop,
    read_image,
    resize,
    stored_side,
)
from lwgan.data.source import Source
from lwgan.data.threads import parallel_map
from lwgan.errors import UserError
from lwgan.runs.files import cache_root, remove_parts, replacing
from lwgan.runs.locks import locked

# What the random numbers of a seed are for, as part of a NumPy generator's key.
ORDER, CROP, HOLDOUT = 0, 1, 2
# Of the files that keep images; another number and they are made anew.
_FORMAT = 1


class Dataset(NamedTuple):
    """The images of a dataset at training size; those that do not decode are left out."""

    names: Sequence[str]
    # Of the source: the same for the same images, wherever they lie.
    fingerprint: str
    # Index -> uint8 (H, W, C), not yet cropped where crops are drawn.
    at: Callable[[int], np.ndarray]
    # uint8 (N, S, S, C) where all are kept and none is to be cropped.
    array: np.ndarray | None
    # Pixels.
    image_size: int
    crop_prob: float
    # Empty where images are read at each use.
    infos: Sequence[Info]
    # Why an image was left out, by name.
    errors: dict[str, str]
    # Where, in words, and how many bytes.
    kept: str

    def take(self, indices: np.ndarray, seed: int, positions: np.ndarray) -> np.ndarray:
        """A batch, uint8 (B, S, S, C). ``positions`` in the whole run decide the random crops."""
        if self.array is not None:
            return self.array[indices]
        return np.stack(
            [
                crop(self.at(i), self.image_size, self.crop_prob, (seed, CROP, position))
                for i, position in zip(indices, positions, strict=True)
            ]
        )

    def centre(self, index: int) -> np.ndarray:
        """uint8 (S, S, C): the middle of an image."""
        array = self.at(index)
        return resize(array, self.image_size, centre_box(*array.shape[:2]))


def load_dataset(source: Source, data: ConfigDict) -> Dataset:
    """The source's images at training size, kept as ``data.cache`` says.

    ``auto`` keeps them in memory if they fit into half of what is free, else in a file if they fit
    into half of the disk's, else not at all.

    Raises:
      UserError: more than half of the images do not decode, or they cannot be kept on disk.
    """
    # A resized image is rarely more than twice as long as it is wide.
    longer = 2 if data.crop_prob > 0 else 1
    needed = len(source.names) * longer * stored_side(data) ** 2 * len(PIL_MODES[data.mode])
    cache = data.cache
    if cache == "auto":
        rooms = {"memory": _free_memory, "disk": _free_disk}
        cache = next((name for name, free in rooms.items() if needed < free() / 2), "none")
    if cache == "none":
        return _read_at_each_use(source, data)
    if cache == "memory":
        file = io.BytesIO()
        index = _decode_all(source, data, file)
        pixels = np.frombuffer(file.getbuffer(), np.uint8)
        return _assemble(source, data, index, pixels, "in memory")
    try:
        folder = _kept_on_disk(source, data)
    except OSError as error:
        if data.cache == "auto":
            logging.warning("Images cannot be kept in %s: %s", cache_root(), error.strerror)
            return _read_at_each_use(source, data)
        raise UserError(
            "data.cache",
            data.cache,
            f"images cannot be kept in {cache_root()} ({error.strerror})",
            "name another place with XDG_CACHE_HOME, or use memory or none",
        ) from None
    index = json.loads((folder / "index.json").read_text())
    pixels = np.memmap(folder / "pixels", np.uint8, "r")
    return _assemble(source, data, index, pixels, f"in {folder}")


def _kept_on_disk(source: Source, data: ConfigDict) -> pathlib.Path:
    """The directory of the cache with these images, made if it is missing.

    Raises:
      OSError: it cannot be written.
      UserError: there is no place for a cache.
    """
    folder = _cache_folder(source, data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            remove_parts(folder.parent, f"{folder.name}*.part")
            with replacing(folder) as part:
                part.mkdir()
                with (part / "pixels").open("wb") as file:
                    index = _decode_all(source, data, file)
                (part / "index.json").write_text(json.dumps(index))
    return folder


def _decode_all(source: Source, data: ConfigDict, file: IO[bytes]) -> dict:
    """Appends every good image to ``file``; returns what is known of them, in terms of JSON."""
    from tqdm import tqdm

    infos: dict[int, Info] = {}
    errors: dict[int, str] = {}
    nothing = np.empty((0, 0, 0), np.uint8)

    def one(index: int) -> np.ndarray:
        try:
            infos[index], array = read_image(source, index, data)
            return array
        except ValueError as error:
            errors[index] = str(error)
            return nothing

    count = len(source.names)
    arrays = parallel_map(one, range(count), data.num_threads)
    shapes = []
    for array in tqdm(arrays, "Reading images", count, disable=None, leave=False):
        if array.size:
            file.write(array.data)
            shapes.append(array.shape)
    return {
        "shapes": shapes,
        "infos": [infos[index] for index in sorted(infos)],
        "errors": [[index, errors[index]] for index in sorted(errors)],
    }


def _assemble(
    source: Source, data: ConfigDict, index: dict, pixels: np.ndarray, where: str
) -> Dataset:
    """The dataset of what ``_decode_all`` wrote; names what was left out."""
    errors = {source.names[number]: reason for number, reason in index["errors"]}
    if 2 * len(errors) > len(source.names):
        name, reason = next(iter(errors.items()))
        raise UserError(
            "data.path",
            data.path,
            f"{len(errors)} of {len(source.names)} images do not decode",
            f"the first is {name} ({reason})",
        )
    for name, reason in list(errors.items())[:20]:
        logging.warning("Left out: %s (%s)", name, reason)
    shapes = index["shapes"]
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def at(number: int) -> np.ndarray:
        shape = shapes[number]
        return pixels[ends[number] - math.prod(shape) : ends[number]].reshape(shape)

    return Dataset(
        names=[name for name in source.names if name not in errors],
        fingerprint=source.fingerprint,
        at=at,
        array=pixels.reshape(-1, *shapes[0]) if data.crop_prob == 0 else None,
        image_size=data.image_size,
        crop_prob=data.crop_prob,
        infos=[Info(*info) for info in index["infos"]],
        errors=errors,
        kept=f"{where}, {pixels.size / 2**20:,.1f} MiB",
    )


def _read_at_each_use(source: Source, data: ConfigDict) -> Dataset:
    """An image that does not decode is replaced by the next that does."""
    errors: dict[str, str] = {}

    def at(index: int) -> np.ndarray:
        count = len(source.names)
        for number in (np.arange(count) + index) % count:
            try:
                return read_image(source, number, data)[1]
            except ValueError as error:
                name = source.names[number]
                if name not in errors:
                    logging.warning("Left out: %s (%s)", name, error)
                errors[name] = str(error)
        raise UserError(
            "data.path", data.path, "no image decodes", f"the last is {name} ({errors[name]})"
        )

    return Dataset(
        names=source.names,
        fingerprint=source.fingerprint,
        at=at,
        array=None,
        image_size=data.image_size,
        crop_prob=data.crop_prob,
        infos=(),
        errors=errors,
        kept="nowhere: read at each use",
    )


def _cache_folder(source: Source, data: ConfigDict) -> pathlib.Path:
    """Named by all that its pixels depend on."""
    parts = (_FORMAT, Image.__version__, source.fingerprint, data.mode, data.image_size)
    key = hashlib.sha256(repr((*parts, data.crop_prob > 0)).encode()).hexdigest()[:16]
    return cache_root() / key


def _free_disk() -> int:
    """Bytes that can be written where images are kept; 0 where they cannot be."""
    try:
        root = cache_root()
        while not root.exists():
            root = root.parent
    except (OSError, UserError):
        return 0
    return shutil.disk_usage(root).free if os.access(root, os.W_OK | os.X_OK) else 0


def _free_memory() -> int:
    """Bytes of memory that can be had now."""
    import psutil

    return psutil.virtual_memory().available
