"""A function over many numbers, in order, on tf.data's threads."""

import os
from collections.abc import Callable, Iterator

import numpy as np

from lwgan.errors import UserError


def parallel_map(
    function: Callable[[int], np.ndarray], numbers: range, num_threads: int
) -> Iterator[np.ndarray]:
    """``map`` in order on tf.data's threads, a little ahead; a ``UserError`` comes through."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    errors = []

    def call(number: np.ndarray) -> np.ndarray:
        try:
            return function(int(number))
        except UserError as error:
            errors.append(error)
            raise

    dataset = tf.data.Dataset.range(numbers.start, numbers.stop).map(
        lambda number: tf.numpy_function(call, [number], tf.uint8),
        num_parallel_calls=num_threads if num_threads > 0 else os.cpu_count(),
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
