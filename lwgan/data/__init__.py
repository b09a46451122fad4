"""From files to batches, in the order in which an image takes its way.

sources    the table of sources; ``folder``, ``tfds`` and ``openmoji`` are one each, a ``Source``
decode     an image of any kind at training size: uint8 (H, W, C)
cache      all of them, decoded once and kept: a ``Dataset``
batches    the batch of a step, computed from the seed and the step
doctor     what a dataset is like, in words

``threads`` runs a function over many images at once, by tf.data. Nothing here knows networks or
JAX.
"""
