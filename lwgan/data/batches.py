"""Whole batches of images, addressed by step.

A batch is a function of the seed and the step alone: there is no position to save, and resuming
costs nothing.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
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


Order = Callable[[int, int, int], np.ndarray]


def indices_at(
    seed: int, positions: np.ndarray, num_images: int, order: Order = epoch_order
) -> np.ndarray:
    """Which images lie at these positions of the endless row of shuffled epochs: int64 alike."""
    epochs, offsets = np.divmod(positions, num_images)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = order(seed, int(epoch), num_images)[offsets[here]]
    return indices


Drawing = Callable[[np.ndarray], np.ndarray]


def drawing(seed: int, num_images: int, labels: np.ndarray | None = None) -> Drawing:
    """From positions in the endless row of draws to indices of images, int64 alike.

    With ``labels``, int (N,), those take turns, each with shuffled epochs of its own images.
    """
    if labels is None:
        return lambda positions: indices_at(seed, positions, num_images)
    members = [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    order = functools.lru_cache(2 * len(members))(epoch_order.__wrapped__)

    def balanced(positions: np.ndarray) -> np.ndarray:
        rounds, turns = np.divmod(positions, len(members))
        indices = np.empty_like(positions)
        for turn in np.unique(turns):
            here, own = turns == turn, members[turn]
            indices[here] = own[indices_at(seed, rounds[here], len(own), order)]
        return indices

    return balanced


def drawing_from(dataset: Dataset, among: np.ndarray, seed: int, *, balanced: bool) -> Drawing:
    """The same from positions to indices of a dataset, of those that ``among`` are.

    ``balanced`` makes its labels take turns, where there are some.
    """
    labels = dataset.labels[among] if balanced and dataset.labels is not None else None
    drawn = drawing(seed, len(among), labels)
    return lambda positions: among[drawn(positions)]


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
    drawn = drawing_from(dataset, among, seed, balanced=balanced)
    per_step = layout.positions(0)[devices]
    image_bytes = 4 * math.prod(dataset.shape)
    together = max(1, _BYTES // (per_step.size * image_bytes))

    def positions_at(number: int) -> np.ndarray:
        first = start_step + number * together
        steps = range(first, first + together)
        return np.stack([layout.positions(step)[devices] for step in steps])

    def labelled(images: np.ndarray, rows: np.ndarray) -> np.ndarray | Labelled:
        return images if dataset.labels is None else Labelled(images, dataset.labels[rows])

    def read(number: int) -> np.ndarray:
        positions = positions_at(number)
        taken = dataset.take(drawn(positions).ravel(), seed, positions.ravel())
        return taken.reshape(*positions.shape, *taken.shape[1:])

    if dataset.in_memory and dataset.gather:
        # Microseconds a step: handing them from thread to thread would take longer.
        for number in itertools.count():
            for rows in drawn(positions_at(number)):
                yield labelled(dataset.gather(rows), rows)
    else:
        for number, steps in enumerate(parallel_map(read, range(2**62 // together), num_threads)):
            if dataset.labels is None:
                yield from steps
            else:
                yield from map(labelled, steps, drawn(positions_at(number)))
