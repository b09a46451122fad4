"""Images at a network's size, as clean-fid or pytorch-fid resize them: two products with matrices.

Parmar et al. 2022 (arXiv:2104.11222) show how much a figure depends on this. Both ways are linear
and treat rows and columns alike, so each is the matrix of one side, exactly.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lwgan.models.placement import put


def clean(size: int, new_size: int) -> np.ndarray:
    """float64 (new_size, size): Pillow's bicubic filter (a = -0.5), wider where images shrink."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    centres = (np.arange(new_size)[:, None] + 0.5) * scale
    pixels = np.arange(size)
    # Pillow rounds where the filter begins and ends to whole pixels.
    first = np.floor(np.maximum(centres - 2 * stretch + 0.5, 0))
    end = np.floor(np.minimum(centres + 2 * stretch + 0.5, size))
    x = np.abs((pixels + 0.5 - centres) / stretch)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    weights = np.where((pixels >= first) & (pixels < end), weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def pytorch_fid(size: int, new_size: int) -> np.ndarray:
    """float64 (new_size, size): PyTorch's bilinear, align_corners=False, not antialiased."""
    # In float32, as there.
    scale, half = np.float32(size) / np.float32(new_size), np.float32(0.5)
    places = np.maximum((np.arange(new_size, dtype=np.float32) + half) * scale - half, 0)
    first = np.minimum(np.floor(places).astype(int), size - 1)
    share = places - first.astype(np.float32)
    weights = np.zeros((new_size, size))
    rows = np.arange(new_size)
    np.add.at(weights, (rows, first), 1 - share)
    np.add.at(weights, (rows, np.minimum(first + 1, size - 1)), share)
    return weights


RESIZES = {"clean": clean, "pytorch_fid": pytorch_fid}


@functools.lru_cache(maxsize=64)
def _matrix(way: str, size: int, padded: int, new_size: int) -> np.ndarray:
    weights = RESIZES[way](size, new_size).astype(np.float32)
    return np.pad(weights, ((0, 0), (0, padded - size)))


def resize_images(
    images: np.ndarray, new_size: int, way: str, sharding: NamedSharding | None = None
) -> jax.Array:
    """uint8 (B, H, W, C) -> float32 (B, new_size, new_size, C) in [0, 255], not rounded.

    ``way`` is a name in ``RESIZES``; ``sharding`` says on which devices, the default one by
    default.
    """
    height, width = images.shape[1:3]
    # Few shapes, for each is compiled; the matrices give the added pixels no weight.
    tall, wide = (_STEP * math.ceil(side / _STEP) for side in (height, width))
    images = np.pad(images, ((0, 0), (0, tall - height), (0, wide - width), (0, 0)))
    rows = _matrix(way, height, tall, new_size)
    columns = _matrix(way, width, wide, new_size)
    return _apply(put(images, sharding) if sharding else images, rows, columns)


def resize_image(image: np.ndarray, new_size: int, way: str) -> np.ndarray:
    """One image as ``resize_images`` does, on the host: uint8 (H, W, C) -> float32.

    Nothing is compiled, and of the image only a band is in float32 at once.
    """
    height, width, channels = image.shape
    rows = _matrix(way, height, height, new_size)
    columns = _matrix(way, width, width, new_size).T

    def narrow(channel: int) -> np.ndarray:
        bands = (image[first : first + _BAND, :, channel] for first in range(0, height, _BAND))
        return np.concatenate([band.astype(np.float32) @ columns for band in bands])

    return np.stack([rows @ narrow(channel) for channel in range(channels)], -1).clip(0, 255)


# Pixels.
_STEP = 64
# Rows of pixels.
_BAND = 256


@jax.jit
def _apply(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        x = jnp.einsum("vw,bhwc->bhvc", columns, images.astype(jnp.float32))
        x = jnp.einsum("uh,bhvc->buvc", rows, x)
    return jnp.clip(x, 0, 255)
