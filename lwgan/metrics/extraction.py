"""From images to features, which are kept in the user's cache for real images; images stream."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import __version__ as PILLOW

from lwgan.data.dataset import Dataset
from lwgan.data.decode import how_kept, to_rgb
from lwgan.data.threads import parallel_map
from lwgan.errors import UserError
from lwgan.metrics.frechet import Moments, stream
from lwgan.metrics.networks.features import Features
from lwgan.runs import processes
from lwgan.runs.bars import counted
from lwgan.runs.files import cache_root, replacing

# Of the files that keep features; another number and they are made anew.
_FORMAT = 2
# Features taken into the moments at once.
_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The features of a set of images, float32 (N, D)."""

    features: np.ndarray

    @functools.cached_property
    def moments(self) -> Moments:
        """Mean and covariance."""
        rows = range(0, len(self.features), _ROWS)
        return stream(self.features[first : first + _ROWS] for first in rows)


def batched(images: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Lists of ``size`` images in turn; the last may be shorter."""
    while batch := list(itertools.islice(images, size)):
        yield batch


def extract(
    features: Features, batches: Iterable[Sequence[np.ndarray]], count: int, title: str
) -> Extracted:
    """The features of ``count`` images, with a bar of the progress.

    A batch is uint8 (B, H, W, 3), or a list of images (H, W, 3).
    """
    outputs = counted(features.outputs(batches), title, count, size=lambda out: len(out.features))
    return Extracted(np.concatenate([output.features for output in outputs]))


def extract_once(
    features: Features,
    batches: Iterable[Sequence[np.ndarray]],
    count: int,
    title: str,
    key: tuple[object, ...],
) -> Extracted:
    """As ``extract``, kept in the user's cache under ``key``: all that the images depend on."""
    parts = (_FORMAT, features.name, features.fingerprint, features.resize, *key)
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    known = None
    # The cache may be damaged, or there is no place for one.
    with contextlib.suppress(OSError, ValueError, EOFError, UserError):
        path = cache_root() / "features" / f"{name}.npy"
        known = Extracted(np.load(path, mmap_mode="r", allow_pickle=False))
    if all(processes.gather(known is not None)):
        return known
    extracted = extract(features, batches, count, title)
    if not processes.is_first():
        return extracted
    try:
        path = cache_root() / "features" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, extracted.features)
    except (OSError, UserError) as error:
        logging.warning("Features cannot be kept (%s)", error)
    return extracted


def extract_dataset(
    features: Features,
    dataset: Dataset,
    indices: np.ndarray,
    data: ConfigDict,
    *,
    background: str,
    mirrored: bool = False,
) -> Extracted:
    """The features of a dataset's own images at training size, or of their mirror images.

    Each of ``indices`` once, unaugmented; ``data`` are the settings that the dataset was read with.
    """
    size = features.batch_size

    def batch(number: int) -> np.ndarray:
        here = indices[number * size : (number + 1) * size]
        images = to_rgb(np.stack([dataset.centre(index) for index in here]), background)
        return images[:, :, ::-1] if mirrored else images

    looked_at = hashlib.sha256(dataset.contents[indices].tobytes()).hexdigest()
    decoded = (PILLOW, data.mode, data.image_size, *how_kept(data))
    return extract_once(
        features,
        parallel_map(batch, range(-(-len(indices) // size)), data.num_threads),
        len(indices),
        "Mirror images" if mirrored else "Real images",
        (*decoded, looked_at, background, mirrored),
    )
