"""Figures of samples beside real images: a table of functions of their features."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import numpy as np

from lwgan.errors import UserError
from lwgan.metrics.extraction import Extracted
from lwgan.metrics.frechet import Moments, frechet_distance, merge
from lwgan.metrics.kid import kernel_distance
from lwgan.metrics.neighbours import precision_and_recall

# Images of each set.
FEWEST = 8
# With fewer, FID's bias is larger than most differences.
FEWEST_FOR_FID = 10_000
# Figures that take in mirror images, where the generator learns from them.
DISTANCES = ("fid", "kid")


@dataclasses.dataclass(frozen=True)
class Reals:
    """Real images that samples are measured beside.

    Neighbours are counted among the images alone: the mirror image of a face is often its nearest
    neighbour.
    """

    images: Extracted
    # Of the same images, where a generator learns from both alike.
    mirrored: Extracted | None = None
    # Images that are compared with samples one by one, drawn evenly; None: all. All count for FID.
    most: int | None = None

    def part(self, rows: np.ndarray) -> "Reals":
        """Some of the images, by their indices, with their mirror images."""
        mirrored = self.mirrored and Extracted(self.mirrored.features[rows])
        return Reals(Extracted(self.images.features[rows]), mirrored, self.most)

    @functools.cached_property
    def moments(self) -> Moments:
        """Of all."""
        both = [self.images, *([self.mirrored] if self.mirrored else [])]
        return functools.reduce(merge, (each.moments for each in both))

    @functools.cached_property
    def some(self) -> np.ndarray:
        """Features of at most ``most`` images."""
        return self.images.features[self._rows]

    @functools.cached_property
    def some_with_mirrors(self) -> np.ndarray:
        """The same, and of their mirror images."""
        if not self.mirrored:
            return self.some
        return np.concatenate([self.some, self.mirrored.features[self._rows]])

    @property
    def _rows(self) -> np.ndarray | slice:
        count = len(self.images.features)
        if self.most is None or self.most >= count:
            return slice(None)
        return np.sort(np.random.default_rng(0).permutation(count)[: self.most])


def _fid(samples: Extracted, reals: Reals) -> dict[str, float]:
    return {"fid": frechet_distance(samples.moments, reals.moments)}


def _kid(samples: Extracted, reals: Reals) -> dict[str, float]:
    mean, error = kernel_distance(samples.features, reals.some_with_mirrors)
    return {"kid": mean, "kid_stderr": error}


def _pr(samples: Extracted, reals: Reals) -> dict[str, float]:
    precision, recall = precision_and_recall(samples.features, reals.some)
    return {"precision": precision, "recall": recall}


METRICS: dict[str, Callable[[Extracted, Reals], dict[str, float]]] = {
    "fid": _fid,
    "kid": _kid,
    "pr": _pr,
}


def measure(samples: Extracted, reals: Reals, metrics: Iterable[str]) -> dict[str, float]:
    """The figures of ``metrics``, names in ``METRICS``; at least ``FEWEST`` images on each side."""
    figures = {}
    for name in metrics:
        figures |= METRICS[name](samples, reals)
    return figures


def require_enough(what: str, count: int) -> None:
    """Refuses fewer images than figures can be made of.

    Raises:
      UserError: they are too few.
    """
    if count < FEWEST:
        raise UserError(what, f"{count} images", f"at least {FEWEST} are needed", "add some")
