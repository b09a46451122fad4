"""A function over many numbers, in order, on threads."""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from lwgan.data.limits import num_cores
from lwgan.errors import UserError
from lwgan.runs.gpus import leave_gpus_to_jax

# Numbers that a thread takes at once, at most: small images are done sooner than handed over.
_RUN = 16

T = TypeVar("T")


def plain_map(
    function: Callable[[Sequence[int]], list[T]], numbers: Sequence[int], workers: int, ahead: int
) -> Iterator[T]:
    """What a function of several numbers gives for each, in order, on plain threads.

    About ``ahead`` numbers at most are in work or wait to be taken; TensorFlow is not needed.
    """
    run = max(1, min(_RUN, ahead // (4 * workers)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(numbers), ahead):
            part = numbers[first : first + ahead]
            runs = (part[start : start + run] for start in range(0, len(part), run))
            for results in pool.map(function, runs):
                yield from results


def parallel_map(
    function: Callable[[int], np.ndarray],
    numbers: range,
    num_threads: int,
    kind: type[np.generic] = np.uint8,
) -> Iterator[np.ndarray]:
    """``map`` in order on tf.data's threads, a little ahead; a ``UserError`` comes through.

    Arrays are of the dtype ``kind``. Without a number of threads above 0 there is one for each
    core that the process may use.
    """
    import tensorflow as tf

    leave_gpus_to_jax()
    errors = []

    def call(number: np.ndarray) -> np.ndarray:
        try:
            return function(int(number))
        except UserError as error:
            errors.append(error)
            raise

    dataset = tf.data.Dataset.range(numbers.start, numbers.stop).map(
        lambda number: tf.numpy_function(call, [number], kind),
        num_parallel_calls=num_threads if num_threads > 0 else num_cores(),
        deterministic=True,
    )
    # The thread that tunes sleeps for up to a minute, and the end of the iterator waits for it.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    try:
        yield from dataset.prefetch(2).as_numpy_iterator()
    except tf.errors.OpError:
        if errors:
            raise errors[0] from None
        raise
