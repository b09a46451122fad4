"""From latents to images."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lwgan.errors import UserError
from lwgan.keys import Draw, draw_latents, image_keys
from lwgan.models.build import CHANNELS, Params
from lwgan.models.generator import Generator, draw_noise, noise_shapes
from lwgan.models.placement import divided, fetch, put, whole
from lwgan.sampling.labels import Label, drawn_labels, one_label


class Draws(NamedTuple):
    """Whose random numbers: image ``numbers[i]`` of ``seeds[i]``, int32 and uint32 (B,)."""

    seeds: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of_seed(cls, seed: int, count: int, first: int = 0) -> "Draws":
        """Images ``first`` … of one seed.

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
    # Empty without labels.
    label_names: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    def __repr__(self) -> str:
        return f"Sampler({self.kind})"

    @property
    def kind(self) -> str:
        """Its images and latents in words: ``64 px rgb, latents of 64``."""
        generator = self.generator
        mode = next(name for name, count in CHANNELS.items() if count == generator.channels)
        kind = f"{generator.image_size} px {mode}, latents of {generator.latent_dim}"
        return kind + (f", {len(self.label_names)} labels" if self.label_names else "")

    @functools.cached_property
    def _on_devices(self) -> tuple[Params, Params]:
        """The weights, put on all devices once."""
        return put((self.params, self.stats), whole())

    def __call__(
        self,
        latents: np.ndarray,
        seed: int | None = 0,
        batch_size: int = 16,
        first: int = 0,
        *,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """float32 (B, H, W, C), not clipped, of latents (B, latent_dim).

        ``labels`` are weights (B, K); by default one is drawn for each image, by the seed.

        The noise inputs are those of images ``first`` … of the seed, so that neither the batch size
        nor the other images change one; without a seed (None) they are zero.

        Raises:
          UserError: the latents have another shape, or are no numbers.
        """
        latents, dim = np.asarray(latents), self.generator.latent_dim
        if latents.shape[1:] != (dim,) or not len(latents) or latents.dtype.kind not in "fiu":
            given = f"{latents.dtype} {latents.shape}"
            raise UserError("latents", given, f"must be numbers (B, {dim})", "mend them")
        noise = None if seed is None else Draws.of_seed(seed, len(latents), first)
        if labels is None and self.label_names:
            labels = self.drawn_labels(Draws.of_seed(seed or 0, len(latents), first))
        return np.stack(list(self.stream(latents, noise, batch_size, labels=labels)))

    def sample(
        self,
        seed: int = 0,
        num_images: int = 16,
        truncation: float = 1.0,
        *,
        label: Label | None = None,
    ) -> np.ndarray:
        """The first images of a seed: uint8 (B, H, W, C).

        ``label`` is a name or number; by default one is drawn for each image. ``truncation``
        multiplies the latents; with 0, only the noise inputs differ. What follows the first layer
        is normalised: do not expect likelier images of 0.7, as in networks without that.
        """
        labels = None if label is None else one_label(label, self.label_names, num_images)
        images = self.samples(seed, num_images, truncation=truncation, labels=labels)
        return np.stack(list(images))

    def samples(
        self,
        seed: int,
        num_images: int,
        batch_size: int = 16,
        truncation: float = 1.0,
        *,
        labels: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """As ``sample``, one image after the other, uint8 (H, W, C); of ``labels`` (B, K)."""
        draws = Draws.of_seed(seed, num_images)
        latents = DrawnLatents(draws, self.generator.latent_dim)
        if labels is None:
            labels = self.drawn_labels(draws)
        return map(to_uint8, self.stream(latents, draws, batch_size, truncation, labels=labels))

    def drawn_labels(self, draws: "Draws") -> np.ndarray | None:
        """A label for each image, weights (B, K); None without labels."""
        return drawn_labels(*draws, self.label_names) if self.label_names else None

    def latents(self, seed: int, count: int, first: int = 0) -> jax.Array:
        """The latents of images ``first`` … of a seed: float32 (count, latent_dim)."""
        return _latents(self.generator.latent_dim, *Draws.of_seed(seed, count, first))

    def stream(
        self,
        latents: np.ndarray | jax.Array | DrawnLatents,
        noise: Draws | None,
        batch_size: int = 16,
        truncation: float = 1.0,
        *,
        labels: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """One image after the other, float32 (H, W, C), not clipped; two batches are in memory.

        A batch is divided over the devices, and rounded up to their number.
        ``latents`` (B, latent_dim) may be anything with a length and slices; without ``noise`` the
        noise inputs are zero. ``labels`` (B, K) are needed where there are some.
        """
        count, devices = len(latents), jax.device_count()
        size = -(-min(batch_size, count) // devices) * devices
        params, stats = self._on_devices
        before = None
        for first in range(0, count, size):
            where = slice(first, min(first + size, count))
            # One shape, so that one program is compiled.
            missing = (0, first + size - where.stop)
            padded = np.pad(np.asarray(latents[where], np.float32), (missing, (0, 0)), "edge")
            drawn = None
            if noise is not None:
                drawn = Draws(*(np.pad(each, missing, "edge") for each in noise.part(where)))
            own = None if labels is None else np.pad(labels[where], (missing, (0, 0)), "edge")
            latents_, drawn, own = put((padded * np.float32(truncation), drawn, own), divided())
            batch = _generate(self.generator, params, stats, latents_, drawn, labels=own)
            # The device is at work on the next batch meanwhile.
            if before is not None:
                yield from fetch(before)
            before = batch
        yield from fetch(before)[: where.stop - where.start]


@functools.partial(jax.jit, static_argnums=0)
def _latents(latent_dim: int, seeds: jax.Array, numbers: jax.Array) -> jax.Array:
    return draw_latents(image_keys(seeds, Draw.SAMPLE_LATENTS, numbers), latent_dim)


def generate(
    generator: Generator,
    params: Params,
    stats: Params,
    latents: jax.Array,
    noise: Draws | None,
    *,
    labels: jax.Array | None = None,
) -> jax.Array:
    """float32 (B, H, W, C), not clipped, of latents (B, latent_dim) and whose noise it is.

    ``labels`` are weights float32 (B, K), None without.
    """
    if noise is None:
        shapes = noise_shapes(generator.image_size)
        drawn = tuple(jnp.zeros((len(latents), *shape, 1)) for shape in shapes)
    else:
        keys = image_keys(noise.seeds, Draw.SAMPLE_NOISE, noise.numbers)
        drawn = draw_noise(keys, generator.image_size)
    with jax.default_matmul_precision("highest"):
        variables = {"params": params, "batch_stats": stats}
        return generator.apply(variables, latents, drawn, labels, train=False)


_generate = jax.jit(generate, static_argnums=0)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images of any range, clipped to [0, 1] and rounded to 0 … 255."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
