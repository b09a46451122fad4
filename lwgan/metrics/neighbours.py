"""What nearest neighbours in feature space tell: precision, recall, memorisation.

All float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Neighbours that an image's surroundings are measured by.
K = 3
# Of a block of distances: 64 MiB.
ROWS, COLUMNS = 1024, 8192
# Of the mean squared distance: what is closer is one image twice.
SAME = 1e-6


def precision_and_recall(samples: np.ndarray, reals: np.ndarray, k: int = K) -> tuple[float, float]:
    """Improved precision and recall of features (N, D) and (M, D), in float64 (arXiv:1904.06991).

    Precision is the share of samples that lie no farther from some real image than its k-th nearest
    real one does; recall is the same with the sets exchanged. Each has more than ``k`` images.
    """
    return _covered(samples, reals, k), _covered(reals, samples, k)


def _covered(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    radii = np.concatenate([_kth(rows, centres, k) for _, rows in _parts(centres, ROWS)])
    inside = [
        np.any(
            [
                (_squared(rows, part) <= radii[first : first + len(part)]).any(1)
                for first, part in _parts(centres, COLUMNS)
            ],
            axis=0,
        )
        for _, rows in _parts(points, ROWS)
    ]
    return float(np.concatenate(inside).mean())


def _kth(rows: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """The squared distance (R,) of each row, one of the centres, to its k-th nearest other."""
    nearest = np.empty((len(rows), 0))
    for _, part in _parts(centres, COLUMNS):
        nearest = np.hstack([nearest, _squared(rows, part)])
        nearest = np.partition(nearest, min(k, nearest.shape[1] - 1), 1)[:, : k + 1]
    return nearest.max(1)


class Memorisation(NamedTuple):
    """How near samples come to training images."""

    # Int (N, K), the training images nearest to each sample, nearest first.
    nearest: np.ndarray
    # (N,), distance to the nearest in units of its own to its nearest neighbour.
    ratios: np.ndarray
    # Share of samples closer to it than that neighbour is.
    closer: float
    # The same share of images of the same kind that were not learnt from.
    closer_if_new: float
    # Share of samples closer than all but one in twenty of such images come.
    copies: float


def memorisation(samples: np.ndarray, training: np.ndarray, mirrored: np.ndarray) -> Memorisation:
    """Of features of samples (N, D), training images (M, D) and their mirror images; M > K.

    "Closer than that image's own nearest neighbour" is the test of Alaa et al. 2022
    (arXiv:2102.08921). Now and then it strikes new images, too; how often, and how near they come,
    is seen from every training image in turn, compared with the others. Distances are to an image
    or to its mirror image, whichever is nearer; an image that is there twice, or mirrored too,
    counts once. Where all are the same but K, nothing can be said: NaN.
    """
    once = _without_doubles(training, mirrored)
    training, mirrored = training[once], mirrored[once]
    if len(once) <= K:
        unknown = float("nan")
        return Memorisation(
            np.zeros((len(samples), K), int), np.full(len(samples), unknown), *[unknown] * 3
        )
    indices, distances = _nearest(samples, training, mirrored)
    own_indices, own = _nearest(training, training, mirrored, among_themselves=True)
    ratios = distances[:, 0] / own[indices[:, 0], 0]
    # The nearest neighbour of an image's neighbour, were the image itself not there.
    neighbour = own_indices[:, 0]
    is_itself = own_indices[neighbour, 0] == np.arange(len(training))
    new_ratios = own[:, 0] / np.where(is_itself, own[neighbour, 1], own[neighbour, 0])
    return Memorisation(
        once[indices],
        ratios,
        float((ratios < 1).mean()),
        float((new_ratios < 1).mean()),
        float((ratios < np.quantile(new_ratios, 0.05)).mean()),
    )


def _without_doubles(training: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """The first of each image that is there, or its mirror image, more than once: int (M',)."""
    limit = SAME * 2 * training.var(0, dtype=np.float64).sum()
    kept = np.ones(len(training), bool)
    for row, rows in _parts(training, ROWS):
        for first, part in _parts(training, COLUMNS):
            earlier = first + np.arange(len(part)) < row + np.arange(len(rows))[:, None]
            squared = np.minimum(
                _squared(rows, part), _squared(rows, mirrored[first : first + len(part)])
            )
            same = earlier & (squared < limit)
            kept[row : row + len(rows)] &= ~same.any(1)
    return np.flatnonzero(kept)


def _nearest(
    points: np.ndarray,
    training: np.ndarray,
    mirrored: np.ndarray,
    *,
    among_themselves: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The K nearest training images of each point, and their distances: (N, K) each.

    ``among_themselves``: the points are the training images, and none is its own neighbour.
    """
    blocks = []
    for row, rows in _parts(points, ROWS):
        indices, best = np.empty((len(rows), 0), int), np.empty((len(rows), 0))
        for first, part in _parts(training, COLUMNS):
            here = np.arange(first, first + len(part))
            squared = np.minimum(
                _squared(rows, part), _squared(rows, mirrored[first : first + len(part)])
            )
            if among_themselves:
                squared[row + np.arange(len(rows))[:, None] == here] = np.inf
            indices = np.hstack([indices, np.broadcast_to(here, squared.shape)])
            best = np.hstack([best, squared])
            order = np.argsort(best, 1, kind="stable")[:, :K]
            indices, best = (np.take_along_axis(x, order, 1) for x in (indices, best))
        blocks.append((indices, np.sqrt(best)))
    indices, distances = zip(*blocks, strict=True)
    return np.concatenate(indices), np.concatenate(distances)


def _parts(features: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Where a part begins, and its features as float64."""
    for first in range(0, len(features), size):
        yield first, features[first : first + size].astype(np.float64)


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The squared distances of (N, D) and (M, D): (N, M)."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)
    return np.maximum(squares - 2 * x @ y.T, 0)
