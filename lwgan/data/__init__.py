"""From files to batches, in the order in which an image takes its way.

sources    the table of sources; ``folder``, ``archives``, ``tfds``, ``openmoji``: a ``Source``
formats    which files are images, and how one is opened
decode     an image of any kind at training size: uint8 (H, W, C); ``values`` of any depth, profiles
cache      all of them, decoded once and kept: a ``Dataset``; ``known`` is what is known of each
kept       the user's cache as a whole; ``remembered`` are its small tables
holdout    which of them are held out, by their content
batches    the batch of a step, computed from the seed and the step
doctor     what a dataset is like, in words; ``duplicates`` are images that look alike

``threads`` runs a function over many images at once, by tf.data, and ``limits`` knows how much
memory and how many cores there are. Nothing here knows networks or JAX.
"""
