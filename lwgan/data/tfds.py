"""Datasets of TensorFlow Datasets."""

import difflib
import functools
import hashlib
import io
import os
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from lwgan.data import remembered
from lwgan.data.formats import open_image_file
from lwgan.data.source import Extent, Source, digest_of, fingerprint_of
from lwgan.errors import UserError
from lwgan.runs.bars import counted
from lwgan.runs.files import local_path
from lwgan.runs.gpus import leave_gpus_to_jax

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def open_tfds(data: ConfigDict, *, keep: bool = True) -> Source:
    """A dataset of TensorFlow Datasets by ``data.name`` and ``data.split``.

    Downloaded and prepared first where it is not yet. Its TFRecord files are read by position, for
    TFDS itself reads them from the start only.

    Raises:
      UserError: no such name or split, no images in it, or neither prepared nor to be downloaded.
    """
    leave_gpus_to_jax()
    builder = _find_builder(data)
    if not builder.data_path.exists():
        _prepare_tfds(builder, data)
    try:
        split = builder.info.splits[data.split]
    except (ValueError, KeyError) as error:
        hint = f"choose from {', '.join(builder.info.splits)}, or a part such as train[:10%]"
        raise UserError("data.split", data.split, _first_line(error), hint) from None
    image_key = _image_key(builder, data)
    records = [
        (part.filename, extent)
        for part in split.file_instructions
        for extent in _records(part.filename)[part.skip :][: part.take if part.take >= 0 else None]
    ]
    before = hashlib.sha256(f"{builder.info.full_name} {data.split}".encode())
    before.update(repr([extent.size for _, extent in records]).encode())

    def content(index: int) -> bytes:
        return _features(*records[index])[image_key].bytes_list.value[0]

    names = [f"{data.name}, image {number} of {data.split}" for number in range(len(records))]
    digests = _digests(records, content, keep=keep)
    source = Source(
        names,
        digests,
        fingerprint_of(digests),
        lambda index: open_image_file(io.BytesIO(content(index)), ""),
        {},
        lambda: source._replace(fingerprint=before.hexdigest()),
        # Asked for when a run's labels are settled, and when its images are loaded.
        functools.cache(lambda: _labels(builder, records, data)),
    )
    return source


def _features(name: str, extent: Extent) -> Mapping[str, Any]:
    """What a record of a file holds."""
    import tensorflow as tf

    with open(name, "rb") as file:
        record = os.pread(file.fileno(), extent.size, extent.first)
    return tf.train.Example.FromString(record).features.feature


def _digests(
    records: list[tuple[str, Extent]], content: Callable[[int], bytes], *, keep: bool
) -> np.ndarray:
    """Of each image, uint8 (N, 16); remembered as long as its files do not change."""
    files = sorted({name for name, _ in records})
    statuses = [os.stat(name) for name in files]
    key = files, [(status.st_size, status.st_mtime_ns) for status in statuses]
    where = hashlib.sha256(repr([(name, *extent) for name, extent in records]).encode()).hexdigest()
    table = remembered.recall("records", key, where)
    if table and len(table["digests"]) == len(records):
        return table["digests"]
    digests = np.zeros((len(records), 16), np.uint8)
    for row in counted(range(len(records)), "Looking at records", len(records)):
        digests[row] = np.frombuffer(digest_of(content(row)), np.uint8)
    if keep:
        remembered.keep({"digests": digests}, "records", key, where)
    return digests


def _find_builder(data: ConfigDict) -> "tfds.core.DatasetBuilder":
    """What TFDS knows of ``data.name``."""
    import tensorflow_datasets as tfds

    if not data.name:
        raise UserError("data.name", data.name, "names no dataset", "for example oxford_flowers102")
    data_dir = local_path("data.data_dir", data.data_dir) if data.data_dir else None
    try:
        return tfds.builder(data.name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(data.name.split("/")[0], tfds.list_builders(), 3, 0.4)
        catalog = "see https://www.tensorflow.org/datasets/catalog"
        hint = f"did you mean {' or '.join(near)}?" if near else catalog
        raise UserError("data.name", data.name, "TFDS has no such dataset", hint) from None
    # Of a version or a configuration that does not exist.
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UserError("data.name", data.name, _first_line(error), "leave that part out") from None


def _image_key(builder: "tfds.core.DatasetBuilder", data: ConfigDict) -> str:
    """The feature that holds the images of a prepared dataset."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    keys = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    if not keys:
        raise UserError("data.name", data.name, "has no images", "name a dataset of images")
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        hint = "prepare it with file_format='tfrecord'"
        raise UserError("data.name", data.name, f"is prepared as {file_format}", hint)
    return keys[0]


def _labels(
    builder: "tfds.core.DatasetBuilder", records: list[tuple[str, Extent]], data: ConfigDict
) -> list[str]:
    """Of each record."""
    key, name_of = _label_key(builder, data)
    places = counted(records, "Reading labels", len(records))
    numbers = [_features(*place)[key].int64_list.value[0] for place in places]
    if without := sum(number < 0 for number in numbers):
        reason = f"{without} of {len(numbers)} images of {data.split} have none"
        raise UserError("data.labels", data.labels, reason, "use another split, or none")
    return list(map(name_of, numbers))


def _label_key(
    builder: "tfds.core.DatasetBuilder", data: ConfigDict
) -> tuple[str, Callable[[int], str]]:
    """The feature that holds the labels of a prepared dataset, and the name of each."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    labels = {k: f for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)}
    _, usual = builder.info.supervised_keys or (None, None)
    for key in (usual, *labels):
        if key in labels:
            return key, labels[key].int2str
    raise UserError("data.labels", "tfds", f"{data.name} has no labels", "use none")


def _prepare_tfds(builder: "tfds.core.DatasetBuilder", data: ConfigDict) -> None:
    """Downloads and prepares, after a probe: without a network TFDS itself tries for minutes."""
    import requests

    problem = f"is not prepared in {builder.data_path.parent}, and cannot be downloaded"
    hint = "prepare it where there is a network, and name its folder with --config.data.data_dir=…"
    try:
        requests.head("https://storage.googleapis.com", timeout=5)
        builder.download_and_prepare()
    except requests.RequestException as error:
        reason = type(error).__name__
        raise UserError("data.name", data.name, f"{problem} ({reason})", hint) from None
    # Each dataset fails in its own way.
    except Exception as error:
        raise UserError(
            "data.name", data.name, f"{problem} ({_first_line(error)})", hint
        ) from error


@functools.lru_cache(maxsize=1024)
def _records(path: str) -> list[Extent]:
    """Where records lie in a TFRecord file: each is a length, its checksum, the bytes, theirs."""
    extents = []
    with open(path, "rb") as file:
        while head := file.read(12):
            (size,) = struct.unpack("<Q", head[:8])
            extents.append(Extent(file.tell(), size))
            file.seek(size + 4, os.SEEK_CUR)
    return extents


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
