"""From latents to pictures, grids and rows between latents."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

from lwgan.errors import UserError
from lwgan.keys import Draw, draw_latents, picture_keys
from lwgan.models.generator import Generator, draw_noise, noise_sizes
from lwgan.state import Params


class Draws(NamedTuple):
    """Whose random numbers: those of picture ``numbers[i]`` of ``seeds[i]``, uint32 and int32 (B,)."""

    seeds: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of_seed(cls, seed: int, count: int, first: int = 0) -> "Draws":
        """Pictures ``first`` … of one seed.

        Raises:
          UserError: there are none, or there is no such seed.
        """
        if count < 1:
            raise UserError("num_images", count, "must be at least 1", "ask for more")
        if not 0 <= seed < 2**32:
            raise UserError("seed", seed, f"must be from 0 to {2**32 - 1}", "choose another")
        return cls(np.full(count, seed, np.uint32), np.arange(first, first + count, dtype=np.int32))

    def part(self, where: slice) -> "Draws":
        """Some of them."""
        return Draws(self.seeds[where], self.numbers[where])


@dataclasses.dataclass(frozen=True)
class DrawnLatents:
    """Latents (B, latent_dim) of which only the slice that is asked for is drawn."""

    draws: Draws
    latent_dim: int

    def __len__(self) -> int:
        return len(self.draws.seeds)

    def __getitem__(self, where: slice) -> np.ndarray:
        return np.asarray(_latents(self.latent_dim, *self.draws.part(where)))


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """A generator with its weights, in evaluation mode and float32 products."""

    generator: Generator
    params: Params
    stats: Params

    def __call__(
        self, latents: np.ndarray, seed: int | None = 0, batch_size: int = 16, first: int = 0
    ) -> np.ndarray:
        """float32 (B, H, W, C), not clipped, of latents (B, latent_dim).

        The noise inputs are those of pictures ``first`` … of the seed, so that neither the batch size
        nor the other pictures change one; without a seed (None) they are zero.

        Raises:
          UserError: the latents have another shape, or are no numbers.
        """
        latents, dim = np.asarray(latents), self.generator.latent_dim
        if latents.shape[1:] != (dim,) or not len(latents) or latents.dtype.kind not in "fiu":
            found = f"{latents.dtype} {latents.shape}"
            raise UserError("latents", found, f"must be numbers (B, {dim})", "mend them")
        noise = None if seed is None else Draws.of_seed(seed, len(latents), first)
        return np.stack(list(self.stream(latents, noise, batch_size)))

    def sample(self, seed: int = 0, num_images: int = 16, truncation: float = 1.0) -> np.ndarray:
        """The first pictures of a seed: uint8 (B, H, W, C).

        ``truncation`` multiplies the latents; with 0, only the noise inputs differ. What follows the first
        layer is normalised: do not expect likelier pictures of 0.7, as in networks without that.
        """
        return np.stack(list(self.samples(seed, num_images, truncation=truncation)))

    def samples(
        self, seed: int, num_images: int, batch_size: int = 16, truncation: float = 1.0
    ) -> Iterator[np.ndarray]:
        """As ``sample``, one picture after the other: uint8 (H, W, C)."""
        draws = Draws.of_seed(seed, num_images)
        latents = DrawnLatents(draws, self.generator.latent_dim)
        return map(to_uint8, self.stream(latents, draws, batch_size, truncation))

    def latents(self, seed: int, count: int, first: int = 0) -> jax.Array:
        """The latents of pictures ``first`` … of a seed: float32 (count, latent_dim)."""
        return _latents(self.generator.latent_dim, *Draws.of_seed(seed, count, first))

    def stream(
        self,
        latents: np.ndarray | jax.Array | DrawnLatents,
        noise: Draws | None,
        batch_size: int = 16,
        truncation: float = 1.0,
    ) -> Iterator[np.ndarray]:
        """One picture after the other, float32 (H, W, C), not clipped; two batches are in memory.

        ``latents`` (B, latent_dim) may be anything with a length and slices; without ``noise`` the
        noise inputs are zero.
        """
        count, size = len(latents), min(batch_size, len(latents))
        before = None
        for first in range(0, count, size):
            where = slice(first, min(first + size, count))
            # One shape, so that one program is compiled.
            missing = (0, first + size - where.stop)
            padded = np.pad(np.asarray(latents[where], np.float32), (missing, (0, 0)), "edge")
            drawn = None
            if noise is not None:
                drawn = Draws(*(np.pad(each, missing, "edge") for each in noise.part(where)))
            batch = _generate(
                self.generator, self.params, self.stats, padded * np.float32(truncation), drawn
            )
            if before is not None:  # while the device is at work on the next
                yield from np.asarray(before)
            before = batch
        yield from np.asarray(before)[: where.stop - where.start]


@functools.partial(jax.jit, static_argnums=0)
def _latents(latent_dim: int, seeds: jax.Array, numbers: jax.Array) -> jax.Array:
    return draw_latents(picture_keys(seeds, Draw.SAMPLE_LATENTS, numbers), latent_dim)


def generate(
    generator: Generator, params: Params, stats: Params, latents: jax.Array, noise: Draws | None
) -> jax.Array:
    """float32 (B, S, S, C), not clipped, of latents (B, latent_dim) and whose noise it is."""
    if noise is None:
        drawn = tuple(
            jnp.zeros((len(latents), size, size, 1)) for size in noise_sizes(generator.image_size)
        )
    else:
        keys = picture_keys(noise.seeds, Draw.SAMPLE_NOISE, noise.numbers)
        drawn = draw_noise(keys, generator.image_size)
    with jax.default_matmul_precision("highest"):
        return generator.apply(
            {"params": params, "batch_stats": stats}, latents, drawn, train=False
        )


_generate = jax.jit(generate, static_argnums=0)


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


def sheet(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of pictures, uint8 (B, S, S, C), below each other with what they show: uint8 (H, W, 3).

    rgba lies over a checkerboard.
    """
    strips = []
    for title, images in rows.items():
        row = grid(over_checkerboard(images), len(images))
        label = Image.new("RGB", (row.shape[1], 20), (0, 0, 0))
        ImageDraw.Draw(label).text((4, 2), title, font=ImageFont.load_default(14))
        strips += [np.asarray(label), row]
    return np.concatenate(strips)


def over_checkerboard(images: np.ndarray) -> np.ndarray:
    """uint8 (B, S, S, 3) of pictures with 1, 3 or 4 channels."""
    if images.shape[-1] != 4:
        return np.broadcast_to(images, (*images.shape[:3], 3))
    squares = (np.indices(images.shape[1:3]) // 8).sum(0)
    board = np.where(squares % 2, 200.0, 150.0)[..., None]
    alpha = images[..., 3:] / 255
    return np.round(images[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)


def thumbnails(images: np.ndarray, size: int = 128) -> np.ndarray:
    """uint8 (B, S, S, C) -> (B, size, size, C), means over squares; smaller ones stay as they are."""
    side = max(1, images.shape[1] // size)
    blocks = rearrange(images, "b (h x) (w y) c -> b h w c (x y)", x=side, y=side)
    return np.round(blocks.mean(-1)).astype(np.uint8)


def between(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """Latents (N, D) each -> (N · steps, D): from each start to its end along the sphere, both included.

    The direction turns at constant speed (Shoemake, SIGGRAPH 1985), and the length changes at constant
    speed.
    """
    starts, ends = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    lengths = [np.linalg.norm(each, axis=-1)[:, None, None] for each in (starts, ends)]
    # Neither no angle nor half a turn has a direction.
    angle = np.clip(angles(starts, ends), 1e-3, np.pi - 1e-3)[:, None, None]
    part = np.linspace(0, 1, steps)[None, :, None]
    path = np.sin((1 - part) * angle) * starts[:, None] / lengths[0]
    path += np.sin(part * angle) * ends[:, None] / lengths[1]
    path *= ((1 - part) * lengths[0] + part * lengths[1]) / np.sin(angle)
    return path.reshape(-1, starts.shape[-1]).astype(np.float32)


def angles(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The angles (N,) in radians, float64, between latents (N, D) each."""
    starts, ends = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    lengths = np.linalg.norm(starts, axis=-1) * np.linalg.norm(ends, axis=-1)
    return np.arccos(np.clip((starts * ends).sum(-1) / lengths, -1, 1))


def closed_loop(keyframes: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents (K, D) -> a path (frames, D) through all and back to the first, and the K + 1 frames at them.

    Each way from one to the next takes whole frames in proportion to its angle, so that the angle from
    frame to frame is as constant as that allows. The last frame is the first.
    """
    following = np.roll(keyframes, -1, axis=0)
    turned = np.cumsum(angles(keyframes, following))
    stops = np.concatenate([[0], np.round(turned / turned[-1] * (frames - 1)).astype(int)])
    ways = [
        between(start[None], end[None], count + 1)[:-1]
        for start, end, count in zip(keyframes, following, np.diff(stops), strict=True)
    ]
    path = np.concatenate(ways)
    return np.concatenate([path, path[:1]]), stops


def mean_distance(images: np.ndarray) -> float:
    """The mean Euclidean distance of two different pictures of (N, …), per value: a collapse shows in it."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    squared = np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0)
    np.fill_diagonal(squared, 0)
    count = len(images)
    return float(np.sqrt(squared / flat.shape[1]).sum() / max(1, count * (count - 1)))


def save_picture(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 (H, W, C) whole or not at all, as .png, .webp (lossless) or .jpg.

    C is 1 (grey), 3 (rgb) or 4 (rgba, which a .jpg cannot hold).
    """
    part = path.with_name(path.name + ".part")
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
        part, Image.registered_extensions()[path.suffix], **_SAVE_OPTIONS.get(path.suffix, {})
    )
    part.replace(path)


_SAVE_OPTIONS = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}
