"""From latents to pictures, grids and rows between latents."""

import functools
import math
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from PIL import Image

from lwgan.keys import Draw, draw_latents, example_keys, seed_key
from lwgan.models.generator import Generator, draw_noise
from lwgan.state import Params


class Sampler(NamedTuple):
    """A generator with its weights, in evaluation mode and float32 products."""

    generator: Generator
    params: Params
    stats: Params

    def latents(self, seed: int, count: int, first: int = 0) -> jax.Array:
        """The latents of pictures ``first`` … of a seed: float32 (count, latent_dim)."""
        numbers = jnp.arange(first, first + count)
        keys = example_keys(seed_key(seed), Draw.SAMPLE_LATENTS, numbers)
        return draw_latents(keys, self.generator.latent_dim)

    def pictures(
        self, latents: jax.Array, seed: int, batch_size: int, first: int = 0
    ) -> np.ndarray:
        """float32 (B, S, S, C), not clipped, of latents (B, latent_dim).

        The noise inputs are those of pictures ``first`` … of the seed, so that neither the batch size
        nor the other pictures change one.
        """
        count = len(latents)
        size = min(batch_size, count)
        padded = jnp.pad(latents, ((0, -count % size), (0, 0)))
        chunks = [
            _generate(
                self.generator, self.params, self.stats, padded[i : i + size], seed, first + i
            )
            for i in range(0, count, size)
        ]
        return np.concatenate([np.asarray(chunk) for chunk in chunks])[:count]

    def stream(self, seed: int, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """The first ``count`` pictures of a seed in batches: uint8 (B, S, S, C)."""
        for first in range(0, count, batch_size):
            latents = self.latents(seed, batch_size, first)
            images = self.pictures(latents, seed, batch_size, first)
            yield to_uint8(images[: count - first])


@functools.partial(jax.jit, static_argnums=0)
def _generate(
    generator: Generator, params: Params, stats: Params, latents: jax.Array, seed: int, first: int
) -> jax.Array:
    numbers = first + jnp.arange(len(latents))
    noise_keys = example_keys(seed_key(seed), Draw.SAMPLE_NOISE, numbers)
    with jax.default_matmul_precision("highest"):
        return generator.apply(
            {"params": params, "batch_stats": stats},
            latents,
            draw_noise(noise_keys, generator.image_size),
            train=False,
        )


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Pictures of any range, clipped to [0, 1] and rounded to 0 … 255."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 (N, H, W, C) -> one picture (H', W', C), row by row, with 2 px of 0 round each."""
    images = np.pad(images, ((0, -len(images) % columns), (2, 0), (2, 0), (0, 0)))
    sheet = rearrange(images, "(r c) h w ch -> (r h) (c w) ch", c=columns)
    return np.pad(sheet, ((0, 2), (0, 2), (0, 0)))


def square_columns(count: int) -> int:
    """Columns of a nearly square grid of so many pictures."""
    return math.ceil(math.sqrt(count))


def between(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """Latents (N, D) each -> (N · steps, D): from each start to its end along the sphere, both included."""
    starts, ends = np.asarray(starts), np.asarray(ends)
    cosine = (starts * ends).sum(-1) / (
        np.linalg.norm(starts, axis=-1) * np.linalg.norm(ends, axis=-1)
    )
    angle = np.arccos(np.clip(cosine, -1 + 1e-6, 1 - 1e-6))[:, None, None]
    part = np.linspace(0, 1, steps)[None, :, None]
    path = np.sin((1 - part) * angle) * starts[:, None] + np.sin(part * angle) * ends[:, None]
    return (path / np.sin(angle)).reshape(-1, starts.shape[-1]).astype(np.float32)


def mean_distance(images: np.ndarray) -> float:
    """The mean Euclidean distance of two different pictures of (N, …), per value: a collapse shows in it."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    squared = np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0)
    np.fill_diagonal(squared, 0)
    count = len(images)
    return float(np.sqrt(squared / flat.shape[1]).sum() / max(1, count * (count - 1)))


def save_png(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 (H, W, C) whole or not at all; C is 1 (grey), 3 (rgb) or 4 (rgba)."""
    part = path.with_name(path.name + ".part")
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(part, "png")
    part.replace(path)
