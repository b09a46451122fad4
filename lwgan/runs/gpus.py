"""Whose the GPUs are."""

import functools

from absl import logging


@functools.cache
def leave_gpus_to_jax() -> None:
    """Keeps TensorFlow off the GPUs, for it would take all of their memory; before it is used."""
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        # A program that uses lwgan has used TensorFlow before.
        logging.warning("TensorFlow keeps its GPU, and memory of it: %s", error)
