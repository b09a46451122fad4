"""What nearest neighbours in feature space tell: precision, recall, memorisation.

All pairs are compared on the devices, block by block, in float32, about the mean so that little is
lost; where figures hang on the distances themselves, the few that matter are taken in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lwgan.data.duplicates import connected
from lwgan.models.placement import divided, fetch, put, whole

# Neighbours that an image's surroundings are measured by.
K = 3
# Images whose distances to as many others are taken at once: 16 MiB, which caches like best. On
# each device it is a multiple of UNIT, for other sizes multiply far slower on a CPU.
BLOCK, UNIT = 2048, 64
# Of the mean squared distance: what is closer is one image twice.
SAME = 1e-6
# Neighbours whose distances are taken in float64, and rows of them at once.
_CANDIDATES, _EXACT_ROWS = 16, 256


class Points(NamedTuple):
    """Features on the devices, float32."""

    # (R, D).
    features: jax.Array
    # Squared, (R,); infinite for padding.
    norms: jax.Array


class Block(NamedTuple):
    """Some features, padded: all blocks of a set are as large."""

    # Index of the first one.
    first: int
    # Without the padding.
    count: int
    # Divided over the devices …
    rows: Points
    # … and whole on each.
    columns: Points

    @property
    def here(self) -> slice:
        """Where its features are among all."""
        return slice(self.first, self.first + self.count)


def precision_and_recall(samples: np.ndarray, reals: np.ndarray, k: int = K) -> tuple[float, float]:
    """Improved precision and recall of features (N, D) and (M, D) (arXiv:1904.06991).

    Precision is the share of samples that lie no farther from some real image than its k-th nearest
    real one does; recall is the same with the sets exchanged. Each has more than ``k`` images.
    """
    mean = reals.mean(0, dtype=np.float64)
    rows, columns = _blocks(samples, mean), _blocks(reals, mean)
    row_nearest, column_nearest = _nearest_others(rows, k), _nearest_others(columns, k)
    precise, recalled = np.zeros(len(samples), bool), np.zeros(len(reals), bool)
    for row, near in zip(rows, row_nearest, strict=True):
        for column, around in zip(columns, column_nearest, strict=True):
            of_rows, of_columns = _covered(row.rows, column.columns, near, around)
            precise[row.here] |= fetch(of_rows)[: row.count]
            recalled[column.here] |= fetch(of_columns)[: column.count]
    return float(precise.mean()), float(recalled.mean())


@jax.jit
def _covered(
    rows: Points,
    columns: Points,
    row_nearest: jax.Array,
    column_nearest: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Which rows lie in the ball of some column, and which columns in that of some row."""
    squared = _squared_on_device(rows, columns)

    def radii(points: Points, nearest: jax.Array) -> jax.Array:
        # Nothing lies within the ball of padding.
        return jnp.where(jnp.isfinite(points.norms), nearest[:, -1], -jnp.inf)

    of_rows, of_columns = radii(rows, row_nearest), radii(columns, column_nearest)
    return (squared <= of_columns[None]).any(1), (squared <= of_rows[:, None]).any(0)


def _nearest_others(blocks: list[Block], k: int) -> list[jax.Array]:
    """Of each block the squared distances of each image to itself and its k nearest: (R, k + 1)."""
    best = [np.full((len(block.rows.features), k + 1), np.inf, np.float32) for block in blocks]
    for i, row in enumerate(blocks):
        for j, column in enumerate(blocks[i:], i):
            of_row, of_column = _smallest(row.rows, column.columns, best[i], best[j])
            best[i] = of_row
            if i < j:
                best[j] = of_column
    return best


@jax.jit
def _smallest(
    rows: Points,
    columns: Points,
    of_rows: jax.Array,
    of_columns: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The smallest squared distances so far of each row, and of each column."""
    squared = _squared_on_device(rows, columns)
    return _with_smallest(of_rows, squared, 1), _with_smallest(of_columns, squared, 0)


def _with_smallest(best: jax.Array, squared: jax.Array, axis: int) -> jax.Array:
    """The smallest of ``best`` (N, k) and of all along the axis: (N, k).

    What to choose from is thinned out by minima and maxima of whole slices, in the pass that the
    distances are written in; ``top_k`` alone takes as long as the product of matrices.
    """
    parts = jnp.split(squared, squared.shape[axis] // UNIT, axis)
    smallest = [jnp.full_like(parts[0], jnp.inf)] * best.shape[1]
    for part in parts:
        for place, so_far in enumerate(smallest):
            smallest[place] = jnp.minimum(so_far, part)
            part = jnp.maximum(so_far, part)
    few = jnp.concatenate(smallest, axis)
    few = -jax.lax.top_k(-(few if axis else few.T), best.shape[1])[0]
    return -jax.lax.top_k(-jnp.concatenate([best, few], 1), best.shape[1])[0]


def _blocks(features: np.ndarray, mean: np.ndarray) -> list[Block]:
    """Features about a mean on the devices, in blocks of one size."""
    parts = -(-len(features) // BLOCK)
    unit = UNIT * jax.device_count()
    size = -(-len(features) // parts // unit) * unit
    blocks = []
    for first in range(0, len(features), size):
        part = (features[first : first + size] - mean).astype(np.float32)
        padded = np.pad(part, ((0, size - len(part)), (0, 0)))
        norms = np.square(padded).sum(1)
        norms[len(part) :] = np.inf
        rows, columns = (put(Points(padded, norms), how) for how in (divided(), whole()))
        blocks.append(Block(first, len(part), rows, columns))
    return blocks


def _squared_on_device(x: Points, y: Points) -> jax.Array:
    """The squared distances of N and M points: (N, M)."""
    products = jnp.matmul(x.features, y.features.T, precision="highest")
    # Below 0 by a little where they are the same.
    return x.norms[:, None] + y.norms[None] - 2 * products


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
    indices, squared = _nearest(samples, training, mirrored)
    own_indices, own_squared = _nearest(training, training, mirrored, among_themselves=True)
    distances, own = np.sqrt(squared), np.sqrt(own_squared)
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
    """The first of each image that is there, or its mirror image, more than once: int (M',).

    Of images that are there often, each knows a few, and these know others.
    """
    limit = SAME * 2 * training.var(0, dtype=np.float64).sum()
    indices, squared = _nearest(
        training, training, mirrored, among_themselves=True, count=_CANDIDATES
    )
    rows, places = np.nonzero(squared < limit)
    labels = connected(np.stack([rows, indices[rows, places]]), len(training))
    return np.sort(np.unique(labels, return_index=True)[1])


def _nearest(
    points: np.ndarray,
    training: np.ndarray,
    mirrored: np.ndarray,
    *,
    among_themselves: bool = False,
    count: int = K,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training images of each point, and their squared distances: (N, count) each.

    ``among_themselves``: the points are the training images, and none is its own neighbour.
    """
    mean = training.mean(0, dtype=np.float64)
    columns, turned = _blocks(training, mean), _blocks(mirrored, mean)
    indices, squared = [], []
    for row in _blocks(points, mean):
        own = row.first + np.arange(len(row.rows.features)) if among_themselves else -1
        shape = len(row.rows.features), min(_CANDIDATES, len(training))
        best = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int32)
        for column, mirror in zip(columns, turned, strict=True):
            best = _candidates(row.rows, column, mirror.columns, own, best)
        found = fetch(best[1])[: row.count]
        for first in range(0, row.count, _EXACT_ROWS):
            some = found[first : first + _EXACT_ROWS]
            start = row.first + first
            exact = _exact(points[start : start + len(some)], some, training, mirrored)
            # What stands in for an image itself.
            exact[some < 0] = np.inf
            order = np.lexsort((some, exact), axis=1)[:, :count]
            indices.append(np.take_along_axis(some, order, 1))
            squared.append(np.take_along_axis(exact, order, 1))
    return np.concatenate(indices), np.concatenate(squared)


@jax.jit
def _candidates(
    rows: Points,
    column: Block,
    mirrored: Points,
    own: jax.Array | int,
    best: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The smallest squared distances so far, and whose they are: -1 for none."""
    here = column.first + jnp.arange(len(column.columns.features))
    squared = jnp.minimum(
        _squared_on_device(rows, column.columns), _squared_on_device(rows, mirrored)
    )
    itself = here[None] == jnp.reshape(own, (-1, 1))
    there = (jnp.arange(len(here)) < column.count)[None] & ~itself
    squared = jnp.where(there, squared, jnp.inf)
    whose = jnp.broadcast_to(jnp.where(there, here[None], -1), squared.shape)
    both, of_both = (jnp.concatenate(pair, 1) for pair in zip(best, (squared, whose), strict=True))
    values, order = jax.lax.top_k(-both, best[0].shape[1])
    return -values, jnp.take_along_axis(of_both, order, 1)


def _exact(
    points: np.ndarray, indices: np.ndarray, training: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """The squared distances, float64 (N, C), to these training images or their mirror images."""
    return np.minimum(
        *(
            np.square(points[:, None].astype(np.float64) - images[indices]).sum(-1)
            for images in (training, mirrored)
        )
    )
