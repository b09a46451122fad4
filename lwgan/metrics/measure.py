"""Figures of samples beside real pictures, whose features are kept in the user's cache; pictures stream."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import __version__ as PILLOW

from lwgan.metrics.features import Features
from lwgan.metrics.frechet import Moments, frechet_distance, stream
from lwgan.metrics.kid import kernel_distance
from lwgan.metrics.neighbours import precision_and_recall
from lwgan.pictures import Pictures, cache_root, parallel_map, to_rgb

FEWEST = 8  # pictures of each set
FEWEST_FOR_FID = 2048  # with fewer, its bias is larger than most differences

_FORMAT = 1  # of the files that keep features; another number and they are made anew
_ROWS = 4096  # features taken into the moments at once


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a network saw in a set of pictures."""

    features: np.ndarray  # float32 (N, D)

    @functools.cached_property
    def moments(self) -> Moments:
        """Mean and covariance."""
        rows = range(0, len(self.features), _ROWS)
        return stream(self.features[first : first + _ROWS] for first in rows)


def _fid(samples: Seen, reals: Seen) -> dict[str, float]:
    return {"fid": frechet_distance(samples.moments, reals.moments)}


def _kid(samples: Seen, reals: Seen) -> dict[str, float]:
    mean, error = kernel_distance(samples.features, reals.features)
    return {"kid": mean, "kid_stderr": error}


def _pr(samples: Seen, reals: Seen) -> dict[str, float]:
    precision, recall = precision_and_recall(samples.features, reals.features)
    return {"precision": precision, "recall": recall}


METRICS: dict[str, Callable[[Seen, Seen], dict[str, float]]] = {
    "fid": _fid,
    "kid": _kid,
    "pr": _pr,
}


def measure(samples: Seen, reals: Seen, metrics: Iterable[str]) -> dict[str, float]:
    """The figures of ``metrics``, names in ``METRICS``; at least ``FEWEST`` pictures on each side."""
    found = {}
    for name in metrics:
        found |= METRICS[name](samples, reals)
    return found


def see(
    features: Features, batches: Iterable[Sequence[np.ndarray]], count: int, title: str
) -> Seen:
    """What the network sees in ``count`` pictures, with a bar of the progress.

    A batch is uint8 (B, H, W, 3), or a list of pictures (H, W, 3).
    """
    from tqdm import tqdm

    found = []
    with tqdm(None, title, count, unit=" pictures", disable=None, leave=False) as bar:
        for output in features.outputs(batches):
            found.append(output.features)
            bar.update(len(output.features))
    return Seen(np.concatenate(found))


def see_once(
    features: Features,
    batches: Iterable[Sequence[np.ndarray]],
    count: int,
    title: str,
    key: tuple[object, ...],
) -> Seen:
    """As ``see``, kept in the user's cache under ``key``: all that the pictures depend on."""
    parts = (_FORMAT, features.name, features.fingerprint, features.resize, *key)
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    path = cache_root() / "features" / f"{name}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # it is not there, or damaged
        return Seen(np.load(path, mmap_mode="r", allow_pickle=False))
    seen = see(features, batches, count, title)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.save(file, seen.features)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        logging.warning("What was seen cannot be kept in %s (%s)", path.parent, error.strerror)
    return seen


def choose(count: int, most: int) -> np.ndarray:
    """Which of ``count`` real pictures are looked at: all, or ``most`` of them, always the same."""
    if most >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def see_reals(
    features: Features,
    pictures: Pictures,
    fingerprint: str,
    data: ConfigDict,
    indices: np.ndarray,
    background: str,
    *,
    mirrored: bool = False,
) -> Seen:
    """The data set's own pictures at training size, each once and unaugmented, or their mirror images.

    ``fingerprint`` is the source's; what was seen is kept in the user's cache.
    """
    size = features.batch_size

    def batch(number: int) -> np.ndarray:
        here = indices[number * size : (number + 1) * size]
        images = to_rgb(np.stack([pictures.centre(index) for index in here]), background)
        return images[:, :, ::-1] if mirrored else images

    return see_once(
        features,
        parallel_map(batch, range(-(-len(indices) // size)), data.num_threads),
        len(indices),
        "Mirror images" if mirrored else "Real pictures",
        (fingerprint, PILLOW, data.mode, data.image_size, data.crop_prob > 0,
         hashlib.sha256(indices.tobytes()).hexdigest(), background, mirrored),
    )  # fmt: skip
