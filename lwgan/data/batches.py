"""Whole batches of images, addressed by step.

A batch is a function of the seed and the step alone: there is no position to save, and resuming
costs nothing.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lwgan.data.dataset import ORDER, Dataset
from lwgan.data.threads import parallel_map

# Read at once: each call takes a third of a millisecond more.
_BYTES = 1 << 20


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order of an epoch: a permutation, int64 (num_images,)."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(num_images)


def indices_at(seed: int, positions: np.ndarray, num_images: int) -> np.ndarray:
    """Which images lie at these positions of the endless row of shuffled epochs: int64 alike."""
    epochs, offsets = np.divmod(positions, num_images)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), num_images)[offsets[here]]
    return indices


def balanced_at(seed: int, positions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """As ``indices_at``, with images of all ``labels``, int (N,), in turn: int64 like positions."""
    kinds = np.unique(labels)
    rounds, turns = np.divmod(positions, len(kinds))
    indices = np.empty_like(positions)
    for turn, kind in enumerate(kinds):
        members = np.flatnonzero(labels == kind)
        here = turns == turn
        indices[here] = members[indices_at(seed, rounds[here], len(members))]
    return indices


def drawn_at(
    seed: int, positions: np.ndarray, num_images: int, labels: np.ndarray | None
) -> np.ndarray:
    """``balanced_at`` of labels, or ``indices_at`` without."""
    if labels is None:
        return indices_at(seed, positions, num_images)
    return balanced_at(seed, positions, labels)


class Labelled(NamedTuple):
    """The images of a step, with their labels."""

    # uint8 (…, H, W, C).
    images: np.ndarray
    # int32 (…).
    labels: np.ndarray


class Layout(NamedTuple):
    """How the images of one step are divided."""

    # Whole batches in a step: 2 where the generator's loss reads reals of its own.
    batches: int
    # Images of one whole batch.
    batch_size: int
    # Micro-batches.
    grad_accum: int
    # All of them.
    devices: int

    def positions(self, step: int) -> np.ndarray:
        """Positions of the images of a step (from 0): int64 (devices, batches, accum, m)."""
        first = step * self.batches * self.batch_size
        flat = np.arange(first, first + self.batches * self.batch_size)
        grid = flat.reshape(self.batches, self.grad_accum, self.devices, -1)
        return np.moveaxis(grid, 2, 0)


def read_batches(
    dataset: Dataset,
    among: np.ndarray,
    layout: Layout,
    *,
    seed: int,
    start_step: int,
    num_threads: int,
    devices: slice = slice(None),
    balanced: bool = False,
) -> Iterator[np.ndarray | Labelled]:
    """The images of each step from ``start_step`` on, of those that ``among`` are the indices of.

    A step's are uint8 (devices, batches, micro-batches, m, H, W, C), with labels where the dataset
    has some. ``devices`` are those whose share is wanted, out of ``layout.devices``: a process asks
    for its own. ``balanced``: as many of each label.

    Raises:
      UserError: an image does not decode (when they are read at each use).
    """
    labels = dataset.labels[among] if balanced else None
    per_step = layout.positions(0)[devices]
    image_bytes = 4 * math.prod(dataset.shape)
    together = max(1, _BYTES // (per_step.size * image_bytes))

    def positions_at(number: int) -> np.ndarray:
        first = start_step + number * together
        steps = range(first, first + together)
        return np.stack([layout.positions(step)[devices] for step in steps])

    def rows_at(positions: np.ndarray) -> np.ndarray:
        return among[drawn_at(seed, positions, len(among), labels)]

    def labelled(images: np.ndarray, rows: np.ndarray) -> np.ndarray | Labelled:
        return images if dataset.labels is None else Labelled(images, dataset.labels[rows])

    def read(number: int) -> np.ndarray:
        positions = positions_at(number)
        rows = rows_at(positions)
        taken = dataset.take(rows.ravel(), seed, positions.ravel())
        return taken.reshape(*positions.shape, *taken.shape[1:])

    if dataset.in_memory and dataset.gather:
        # Microseconds a step: handing them from thread to thread would take longer.
        for number in itertools.count():
            for rows in rows_at(positions_at(number)):
                yield labelled(dataset.gather(rows), rows)
    else:
        for number, steps in enumerate(parallel_map(read, range(2**62 // together), num_threads)):
            yield from map(labelled, steps, rows_at(positions_at(number)))
