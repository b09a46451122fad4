"""Images at training size, decoded once and kept: in memory, in a file, or not at all.

What is kept in a file is data from outside: its size is checked when it is opened, and each image
when it is first used. What does not match is made anew.
"""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from lwgan.data import kept, remembered
from lwgan.data.dataset import Dataset
from lwgan.data.decode import PIL_MODES, read_image, stored_excess, stored_shape
from lwgan.data.formats import is_the_disks
from lwgan.data.known import INDEX, Known, decode_all, ends_of, key_of, pack, read_known, unpack
from lwgan.data.labels import read_labels
from lwgan.data.limits import free_memory
from lwgan.data.source import Source, digest_of
from lwgan.errors import ENDING, UserError
from lwgan.runs import processes
from lwgan.runs.files import cache_root, remove, remove_parts, replacing
from lwgan.runs.locks import locked
from lwgan.settings.shapes import shape_of

# Seconds of decoding, from which on images in memory are kept on disk too.
_LONG = 3.0
# Seconds to wait before a disk that fails is asked again: a server may be started anew.
_PAUSES = (1, 5, 25, 125)


def load_dataset(source: Source, data: ConfigDict, *, keep: bool = True) -> Dataset:
    """The source's images at training size, kept as ``data.cache`` says.

    ``auto`` keeps them in memory if they fit into half of what is free, else in a file if they fit
    into the cache, else not at all. Without ``keep`` nothing is written.

    Raises:
      UserError: more than half of the images do not decode, or they cannot be kept on disk.
    """
    shape, channels = stored_shape(data), len(PIL_MODES[data.mode])
    most = len(source.names) * math.ceil(math.prod(shape) * stored_excess(data)) * channels
    cache = data.cache
    if cache == "auto":
        fits = most < free_memory() / 2 / processes.beside()
        cache = "memory" if fits else "disk" if most < kept.room() else "none"
    if cache == "memory":
        return _in_memory(source, data, most, keep=keep)
    if cache == "disk":
        try:
            if folder := _on_disk(source, data, most, keep=keep):
                pixels = np.memmap(folder / "pixels", np.uint8, "c")
                known = read_known(folder)
                return _assemble(source, data, known, pixels, folder)
        except OSError as error:
            if data.cache != "auto":
                raise _cannot_keep(error) from None
            logging.warning("Images cannot be kept in %s: %s", cache_root(), error.strerror)
    return _read_at_each_use(source, data, keep=keep)


def _cannot_keep(error: OSError) -> UserError:
    return UserError(
        "data.cache",
        "disk",
        f"images cannot be kept in {cache_root()} ({error.strerror})",
        "name another place with XDG_CACHE_HOME, or use memory or none",
    )


def _in_memory(source: Source, data: ConfigDict, most: int, *, keep: bool) -> Dataset:
    """From the file in the cache if there is one; else decoded, and written there if that took."""
    # Another process may remove it meanwhile, to make room.
    with contextlib.suppress(OSError):
        if folder := _whole_folder(source, data):
            pixels = np.fromfile(folder / "pixels", np.uint8)
            return _assemble(source, data, read_known(folder), pixels, folder)
    began = time.monotonic()
    try:
        # Only what is written to takes memory.
        pixels = np.empty(most, np.uint8)
    except MemoryError:
        raise UserError(
            "data.cache",
            data.cache,
            f"up to {most / 2**30:,.1f} GiB of images do not fit into memory",
            "use disk or none",
        ) from None
    end = 0

    def put(array: np.ndarray) -> None:
        nonlocal end
        pixels[end : end + array.size] = array.ravel()
        end += array.size

    known = decode_all(source, data, put)
    dataset = _assemble(source, data, known, pixels[:end])
    took = time.monotonic() - began
    if keep and data.cache == "auto" and took > _LONG and end < kept.room():
        try:
            with locked(_lock_of(source, data)):
                if not _whole_folder(source, data):
                    _write(source, data, end, lambda file: file.write(pixels[:end]) and known)
        except OSError as error:
            logging.warning("Images cannot be kept in %s: %s", cache_root(), error.strerror)
    return dataset


def _on_disk(source: Source, data: ConfigDict, most: int, *, keep: bool) -> pathlib.Path | None:
    """The folder in the cache with these images, made if it is missing; None if it may not be.

    Raises:
      OSError: it cannot be written.
      UserError: there is no place for a cache.
    """
    folder = _whole_folder(source, data)
    if folder or not keep:
        return folder
    with locked(_lock_of(source, data)):
        folder = _whole_folder(source, data)
        if not folder:
            _write(source, data, most, lambda file: decode_all(source, data, file.write))
    return _folder(source, data)


def _whole_folder(source: Source, data: ConfigDict) -> pathlib.Path | None:
    """The folder in the cache with these images, if it is there and has its size."""
    try:
        folder = _folder(source, data)
        if not folder.exists():
            return None
    except (OSError, UserError):
        return None
    try:
        infos = read_known(folder).infos
        whole = (folder / "pixels").stat().st_size == int(ends_of(infos, data)[-1:].sum())
    # A damaged file fails in every way.
    except Exception:
        whole = False
    if whole:
        remembered.used(folder)
        return folder
    logging.warning("What the cache has in %s is damaged; it is made anew", folder)
    return None


def _lock_of(source: Source, data: ConfigDict) -> pathlib.Path:
    folder = _folder(source, data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.with_suffix(".lock")


def _write(source: Source, data: ConfigDict, size: int, fill: Callable) -> None:
    """Makes the folder in the cache; ``fill`` writes the pixels and says what is known of them."""
    folder = _folder(source, data)
    remove_parts(folder.parent, f"{folder.name}*.part")
    remove(folder)
    kept.make_room(size)
    with replacing(folder) as part:
        part.mkdir()
        with (part / "pixels").open("wb") as file:
            known = fill(file)
        _require_most(source, data, known)
        with (part / INDEX).open("wb") as file:
            np.savez(file, **pack(known))
        where = data.path or data.name or data.source
        about = f"{len(known.numbers):,} images of {where}, {data.image_size} px, {data.mode}"
        (part / kept.ABOUT).write_text(about, errors="replace")


def _assemble(
    source: Source,
    data: ConfigDict,
    known: Known,
    pixels: np.ndarray,
    folder: pathlib.Path | None = None,
) -> Dataset:
    """The dataset of these pixels; those from a ``folder`` are checked at their first use."""
    where = f"in {folder}" if isinstance(pixels, np.memmap) else "in memory"
    infos, ends = known.infos, ends_of(known.infos, data)
    channels = len(PIL_MODES[data.mode])
    trusted = np.full(len(infos), folder is None)

    def at(index: int) -> np.ndarray:
        shape = int(infos["rows"][index]), int(infos["columns"][index]), channels
        last = int(ends[index])
        here = pixels[last - math.prod(shape) : last].reshape(shape)
        if not trusted[index]:
            if digest_of(here) != infos["digest"][index].tobytes():
                name = source.names[known.numbers[index]]
                logging.warning("The cache's copy of %s is damaged; it is made anew", name)
                here[:] = _read_again(source, int(known.numbers[index]), data)
                _mend(folder / "pixels", last - math.prod(shape), here)
            trusted[index] = True
        return here

    whole = pixels.reshape(-1, *stored_shape(data), channels) if not data.crop_prob else None

    def gather(indices: np.ndarray) -> np.ndarray:
        if folder:
            for index in indices[~trusted[indices]]:
                at(index)
        return whole[indices]

    size = f"{where}, {pixels.size / 2**20:,.1f} MiB"
    return _dataset(
        source, data, known, at=at, gather=None if whole is None else gather, where=size
    )


def _dataset(
    source: Source,
    data: ConfigDict,
    known: Known,
    *,
    at: Callable[[int], np.ndarray],
    gather: Callable[[np.ndarray], np.ndarray] | None,
    where: str,
) -> Dataset:
    """Names what was left out."""
    _require_most(source, data, known)
    errors = {source.names[number]: reason for number, reason in known.errors.items()}
    for name, reason in list(errors.items())[:20]:
        logging.warning("Left out: %s (%s)", name, reason)
    labels, label_names = read_labels(source, data)
    return Dataset(
        names=[source.names[number] for number in known.numbers] if errors else source.names,
        fingerprint=source.fingerprint,
        contents=source.digests[known.numbers],
        infos=known.infos,
        at=at,
        gather=gather,
        in_memory=where.startswith("in memory"),
        shape=shape_of(data.image_size),
        crop_prob=data.crop_prob,
        fit=data.fit,
        labels=None if labels is None else labels[known.numbers],
        label_names=label_names,
        errors=errors,
        skipped=source.skipped,
        kept=where,
    )


def _mend(path: pathlib.Path, first: int, array: np.ndarray) -> None:
    """Writes an image into the cache's file, if it may."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        file.seek(first)
        file.write(array.tobytes())


def _require_most(source: Source, data: ConfigDict, known: Known) -> None:
    """Refuses a set of which more than half does not decode."""
    if 2 * len(known.errors) > len(source.names):
        number, reason = next(iter(known.errors.items()))
        raise UserError(
            "data.path",
            data.path,
            f"{len(known.errors)} of {len(source.names)} images do not decode",
            f"the first is {source.names[number]} ({reason})",
        )


def _read_at_each_use(source: Source, data: ConfigDict, *, keep: bool) -> Dataset:
    """Which images decode is found out once, and remembered."""
    key = key_of(source, data)
    if table := remembered.recall("known", key):
        known = unpack(table)
    elif folder := _whole_folder(source, data):
        known = read_known(folder)
    else:
        known = decode_all(source, data, lambda array: None)
        if keep:
            remembered.keep(pack(known), "known", key)

    def at(index: int) -> np.ndarray:
        return _read_again(source, int(known.numbers[index]), data)

    where = "nowhere: read at each use"
    return _dataset(source, data, known, at=at, gather=None, where=where)


def _read_again(source: Source, number: int, data: ConfigDict) -> np.ndarray:
    """An image that has been decoded before; a disk that fails is asked again.

    Raises:
      UserError: it does not decode any more, or the disk goes on failing.
    """
    name = source.names[number]
    for pause in (*_PAUSES, None):
        try:
            return read_image(source, number, data)[1]
        except ValueError as error:
            if not is_the_disks(error.__cause__):
                problem = f"does not decode any more ({error})"
                do = "put it back as it was, or start again with --accept_new_data"
                raise UserError("data.path", name, problem, do) from None
            # Training saves, if it still may.
            if pause is None or ENDING.is_set():
                problem = f"cannot be read any more ({error})"
                raise UserError("data.path", name, problem, "mend that, and start again") from None
            logging.warning("%s cannot be read (%s); trying again in %d s", name, error, pause)
            ENDING.wait(pause)


def _folder(source: Source, data: ConfigDict) -> pathlib.Path:
    return cache_root() / key_of(source, data)
