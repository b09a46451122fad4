"""Whole batches of pictures, addressed by step.

A batch is a function of the seed and the step alone: there is no position to save, and resuming costs
nothing.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lwgan.pictures import Pictures, parallel_map

_ORDER, _HOLDOUT = 0, 2  # what a NumPy generator of a seed is for; 1 is a crop
_BYTES = 1 << 20  # read at once: each call takes a third of a millisecond more


def split(num_pictures: int, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures are trained with, and which are held out: int64 (N,) and (M,), both in order.

    ``holdout`` is the share of those that are held out, below 1.
    """
    shuffled = np.random.default_rng((seed, _HOLDOUT)).permutation(num_pictures)
    count = min(round(holdout * num_pictures), num_pictures - 1)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_pictures: int) -> np.ndarray:
    """The order of an epoch: a permutation, int64 (num_pictures,)."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(num_pictures)


def indices_at(seed: int, positions: np.ndarray, num_pictures: int) -> np.ndarray:
    """Which pictures lie at these positions of the endless row of shuffled epochs: int64, same shape."""
    epochs, offsets = np.divmod(positions, num_pictures)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), num_pictures)[offsets[here]]
    return indices


class Layout(NamedTuple):
    """How the pictures of one step are divided."""

    batches: int  # whole batches in a step: 2 where the generator's loss reads reals of its own
    batch_size: int  # pictures of one whole batch
    grad_accum: int  # micro-batches
    devices: int  # all of them

    def positions(self, step: int) -> np.ndarray:
        """Positions of the pictures of a step (from 0): int64 (devices, batches, micro-batches, m)."""
        first = step * self.batches * self.batch_size
        flat = np.arange(first, first + self.batches * self.batch_size)
        grid = flat.reshape(self.batches, self.grad_accum, self.devices, -1)
        return np.moveaxis(grid, 2, 0)


def batches(
    pictures: Pictures,
    among: np.ndarray,
    layout: Layout,
    *,
    seed: int,
    start_step: int,
    num_threads: int,
    devices: slice = slice(None),
) -> Iterator[np.ndarray]:
    """The pictures of each step from ``start_step`` on: uint8 (devices, batches, micro-batches, m, S, S, C).

    ``among`` are the indices of the pictures that are trained with.
    ``devices`` are those whose share is wanted, out of ``layout.devices``: a process asks for its own.

    Raises:
      UserError: a picture does not decode (when they are read at each use).
    """

    per_step = layout.positions(0)[devices]
    picture_bytes = pictures.image_size**2 * 4
    together = max(1, _BYTES // (per_step.size * picture_bytes))

    def positions_at(number: int) -> np.ndarray:
        first = start_step + number * together
        steps = range(first, first + together)
        return np.stack([layout.positions(step)[devices] for step in steps])

    def read(number: int) -> np.ndarray:
        positions = positions_at(number)
        flat = positions.ravel()
        taken = pictures.take(among[indices_at(seed, flat, len(among))], seed, flat)
        return taken.reshape(*positions.shape, *taken.shape[1:])

    if isinstance(pictures.array, np.memmap) or pictures.array is None:
        for steps in parallel_map(read, range(2**62 // together), num_threads):
            yield from steps
    else:  # microseconds a step: handing them from thread to thread would take longer
        for number in itertools.count():
            for indices in indices_at(seed, positions_at(number), len(among)):
                yield pictures.array[among[indices]]
