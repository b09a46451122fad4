"""The inputs and weights of ``tests/fixtures/*.npz``, and what is kept of the outputs.

Inputs and weights depend on nothing but their names, and are not stored.
"""

import math
import pathlib
import zlib

import numpy as np

from lwgan.training.augment import Color

FOLDER = pathlib.Path(__file__).parent / "fixtures"
QUADRANT = 2


def uniform(name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """float32 from ``low`` to ``high``."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).random(shape)
    return (low + (high - low) * drawn).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of lightweight-gan's networks, about as large as its initialisation makes it."""
    if name.endswith(".running_var"):
        return uniform(name, *shape, low=0.5, high=2)
    # Of a norm.
    if name.endswith((".g", ".weight")) and math.prod(shape) == max(shape) > 1:
        return uniform(name, *shape, low=0.8, high=1.2)
    if len(shape) == 4 and name.endswith(".weight"):
        bound = math.sqrt(6 / math.prod(shape[1:]))
        return uniform(name, *shape, low=-bound, high=bound)
    return uniform(name, *shape, low=-0.3, high=0.3)


def is_buffer(name: str) -> bool:
    """Whether a tensor of lightweight-gan is no weight and no statistic."""
    return name.endswith((".f", ".dct_weights", ".num_batches_tracked"))


def seed_name(name: str) -> str:
    """What a tensor's numbers depend on: D_aug.D is D once more."""
    return name.removeprefix("D_aug.")


def generator_inputs(image_size: int, latent_dim: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Latents (2, latent_dim), and noise (2, S, S, 1) for each size from 8 px."""
    sizes = [2**r for r in range(3, int(math.log2(image_size)) + 1)]
    latents = uniform("latents", 2, latent_dim, low=-2, high=2)
    return latents, [uniform(f"noise {s}", 2, s, s, 1, low=-2, high=2) for s in sizes]


def images(size: int, channels: int, examples: int = 2) -> np.ndarray:
    """Images (examples, size, size, channels) of random pixels."""
    return uniform("images", examples, size, size, channels)


def logits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of reals and of fakes, (5, count) each."""
    real, fake = (uniform(name, 5, count, low=-4, high=4) for name in ("real", "fake"))
    return real, fake


def augmentation_draws(name: str, side: int):
    """Numbers for six images, as lwgan draws them."""
    drawn = uniform(name, 6, 3)
    if name.startswith("color"):
        return Color(drawn[:, 0] - 0.5, drawn[:, 1] * 2, drawn[:, 2] + 0.5)
    first, count, step = {
        "cutout": (0, side + 1, 1),
        "translation": (-side // 8, side // 4 + 1, 1),
    }.get(name, (-side, side + 1, 2))
    numbers = first + step * np.floor(drawn[:, :2] * count).astype(np.int32)
    numbers[:, 0] *= name != "offset_h"
    numbers[:, 1] *= name != "offset_v"
    return numbers


def thin(images: np.ndarray) -> np.ndarray:
    """Every few pixels (B, H, W, C), borders included."""
    side = images.shape[1]
    kept = np.unique([*range(0, side, max(1, side // 32 + 1)), 1, side - 2, side - 1])
    return np.asarray(images)[:, kept][:, :, kept]
