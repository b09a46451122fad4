"""Images and settings that several tests of the data need."""

import numpy as np
from PIL import Image

from configs import default


def settings(**changes):
    config = default.get_config().data
    config.update({"image_size": 32, "cache": "memory", "num_threads": 2, **changes})
    return config


def noise(seed, size=(40, 33), mode="RGB"):
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def pixels(dataset):
    """All images of a dataset without crops, uint8 (N, S, S, C)."""
    return np.stack([dataset.at(index) for index in range(len(dataset.names))])
