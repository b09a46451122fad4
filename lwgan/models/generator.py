"""The generator of lightweight-gan 1.2.1."""

import itertools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lwgan.models.attention import Attention
from lwgan.models.layers import (
    BatchNorm,
    Conv,
    FrequencyContext,
    GlobalContext,
    Upsample,
    blur,
    kaiming_normal,
    torch_bias,
)
from lwgan.settings.shapes import shape_of

# Skip-layer excitation: the features at the first size gate those at the second (in pixels).
EXCITATIONS = {16: 128, 32: 256, 64: 512, 128: 1024}

# What the last layer's values become: with "tanh" (FastGAN, arXiv:2101.04775) nothing is outside of
# [0, 1], and plain white needs no exact value.
OUTPUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda x: x,
    "tanh": lambda x: (1 + jnp.tanh(x)) / 2,
}


def noise_sizes(image_size: int | str) -> tuple[int, ...]:
    """The sizes in pixels at which the generator adds noise, from 8 on."""
    return tuple(2**r for r in range(3, shape_of(image_size).size.bit_length()))


def noise_shapes(image_size: int | str) -> tuple[tuple[int, int], ...]:
    """Rows and columns at these sizes."""
    shape = shape_of(image_size)
    return tuple(shape.at(size) for size in noise_sizes(image_size))


def draw_noise(keys: jax.Array, image_size: int | str) -> tuple[jax.Array, ...]:
    """One image's noise per key: (B,) keys -> a (B, H, W, 1) standard normal for each shape."""
    shapes = noise_shapes(image_size)
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    # One draw for all sizes: each more would take a second to compile.
    flat = jax.vmap(lambda key: jax.random.normal(key, (ends[-1],)))(keys)
    parts = jnp.split(flat, ends[:-1], axis=1)
    return tuple(part.reshape(-1, *own, 1) for part, own in zip(parts, shapes, strict=True))


class Generator(nn.Module):
    """Latents (B, latent_dim) and noise -> float32 images (B, H, W, channels).

    ``image_size`` is the side of a square, or names another shape, such as "256x384". A layer of
    ``S`` pixels is one of S × S features for a square.

    The images are meant for [0, 1], and bounded if ``output``, a name in ``OUTPUTS``, bounds them.
    ``noise`` is what ``draw_noise`` returns. With ``num_labels`` there are labels, float32 (B,
    num_labels): 1 for an image's own, or weights of several.
    A layer that puts out S pixels has ``2**(fmap_inverse_coef + 1) / S`` channels, at most
    ``fmap_max``; from 512 px on it has ``min_channels`` (negative: the image's, and at least 3).
    Collection ``batch_stats`` holds the running statistics, written when ``train``.
    """

    image_size: int | str
    channels: int
    latent_dim: int
    fmap_max: int
    fmap_inverse_coef: int
    min_channels: int
    attn_resolutions: tuple[int, ...]
    attn_heads: int
    attn_head_dim: int
    freq_chan_attn: bool
    antialias: bool
    icnr_init: bool
    output: str
    num_labels: int = 0
    # Compute activations again in the backward pass instead of keeping them.
    remat: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    def any_labels(self, count: int) -> jax.Array | None:
        """Labels (count, num_labels) of the right shape, None without."""
        return jnp.zeros((count, self.num_labels)) if self.num_labels else None

    def features(self, size: int) -> int:
        """The number of channels that the layer with this output size in pixels puts out."""
        if size >= 512:
            return self.min_channels if self.min_channels > 0 else max(3, self.channels)
        return min(2 ** (self.fmap_inverse_coef + 1) // size, self.fmap_max)

    @nn.compact
    def __call__(
        self,
        latents: jax.Array,
        noise: tuple[jax.Array, ...],
        labels: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        shape = shape_of(self.image_size)
        x = Initial(
            self.latent_dim,
            shape.at(4),
            self.axis_name,
            self.num_labels,
            dtype=self.dtype,
            name="initial",
        )(latents, labels, train=train)
        excite = FrequencyContext if self.freq_chan_attn else GlobalContext
        attend = nn.remat(Attention) if self.remat else Attention
        # ``train`` is the third argument.
        grow = nn.remat(UpBlock, static_argnums=3) if self.remat else UpBlock
        gates = {}
        for size, drawn in zip(noise_sizes(self.image_size), noise, strict=True):
            if size // 2 in self.attn_resolutions:
                x = attend(
                    self.attn_heads,
                    self.attn_head_dim,
                    dtype=self.dtype,
                    name=f"attention_{size // 2}",
                )(x)
            x = grow(
                self.features(size),
                self.antialias,
                self.icnr_init,
                self.axis_name,
                self.num_labels,
                dtype=self.dtype,
                name=f"block_{size}",
            )(x, drawn, train, labels)
            target = EXCITATIONS.get(size, math.inf)
            if target <= shape.size:
                gates[target] = excite(
                    self.features(target), dtype=self.dtype, name=f"excitation_{target}"
                )(x)
            if size in gates:
                x = x * gates[size]
        x = Conv(self.channels, 3, padding=1, dtype=self.dtype, name="out")(x)
        return OUTPUTS[self.output](x.astype(jnp.float32))


class Initial(nn.Module):
    """Latents (B, D) -> features (B, *shape, D) of unit length at each pixel."""

    latent_dim: int
    shape: tuple[int, int]
    axis_name: str | None
    num_labels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array | None, *, train: bool) -> jax.Array:
        # PyTorch takes the transposed convolution's fan-in from its outputs: 2 D channels times
        # 4×4.
        features = 2 * self.latent_dim
        init = torch_bias(features * math.prod(self.shape))
        kernel = self.param("kernel", init, (self.latent_dim, *self.shape, features))
        bias = self.param("bias", init, (features,))
        x = jnp.einsum("bd,dhwf->bhwf", latents.astype(self.dtype), kernel.astype(self.dtype))
        # Batch normalisation cancels this bias: see Conv.train_bias.
        x += jax.lax.stop_gradient(bias).astype(self.dtype).reshape(1, 1, 1, -1)
        norm = BatchNorm(self.axis_name, self.num_labels, dtype=self.dtype, name="norm")
        x = nn.glu(norm(x, train=train, labels=labels))
        x = x.astype(jnp.float32)
        length = jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))
        return (x / length).astype(self.dtype)


class UpBlock(nn.Module):
    """(B, H, W, C) and noise (B, 2 H, 2 W, 1) -> (B, 2 H, 2 W, features)."""

    features: int
    antialias: bool
    icnr_init: bool
    axis_name: str | None
    num_labels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, noise: jax.Array, train: bool, labels: jax.Array | None
    ) -> jax.Array:
        x = Upsample(self.icnr_init, dtype=self.dtype, name="upsample")(x)
        if self.antialias:
            x = blur(x)
        x = Conv(
            2 * self.features,
            4,
            padding=(2, 1),
            # Batch normalisation cancels it.
            train_bias=False,
            kernel_init=kaiming_normal,
            dtype=self.dtype,
            name="conv",
        )(x)
        gain = self.param("noise_gain", nn.initializers.zeros, (1,)).reshape(1, 1, 1, 1)
        x += gain.astype(self.dtype) * noise.astype(self.dtype)
        norm = BatchNorm(self.axis_name, self.num_labels, dtype=self.dtype, name="norm")
        return nn.glu(norm(x, train=train, labels=labels))
