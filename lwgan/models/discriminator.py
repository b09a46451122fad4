"""The discriminator of lightweight-gan 1.2.1."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lwgan.models.attention import Attention
from lwgan.models.layers import Conv, Decoder, Downsample, blur, leaky_relu, resize_nearest
from lwgan.settings.shapes import Shape, shape_of


class DiscriminatorOutput(NamedTuple):
    """What the discriminator says of images, all float32."""

    # (B, N): N is 1; or 25, of another shape others.
    logits: jax.Array
    # (B, 1), of the 32 px head.
    side_logits: jax.Array
    # (B, R, R, C), R = recon_size, or of the images' shape: the whole as the decoder sees it.
    painted: jax.Array
    # The same for one quadrant of the image, from 512 px on.
    painted_quadrant: jax.Array | None


class Discriminator(nn.Module):
    """Images (B, H, W, C) in [0, 1] and a quadrant -> ``DiscriminatorOutput``.

    ``quadrant``, an int32 () in 0 … 3 (row by row), says which quarter the second decoder paints.
    The features at S pixels, which are S × S for square images, have ``2**fmap_inverse_coef / S``
    channels, at most ``fmap_max``. ``output_size`` 1 or 5 gives 1 or 25 logits, the latter more for
    images that are not square. With ``num_labels`` both heads judge images as those of their labels
    (B, num_labels).
    """

    fmap_max: int
    fmap_inverse_coef: int
    attn_resolutions: tuple[int, ...]
    attn_heads: int
    attn_head_dim: int
    antialias: bool
    icnr_init: bool
    output_size: int
    side_channels: int
    side_attention: bool
    recon_size: int
    num_labels: int = 0
    # Compute activations again in the backward pass instead of keeping them.
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, quadrant: jax.Array, labels: jax.Array | None = None
    ) -> DiscriminatorOutput:
        shape = Shape(*images.shape[1:3])
        x = self._strided(images.astype(self.dtype), shape.size)
        features = {}
        shrink = nn.remat(Downsample) if self.remat else Downsample
        for size in sizes(min(shape.size, 256), 8):
            if size in self.attn_resolutions:
                x = self._attention(f"attention_{size}")(x)
            x = shrink(
                self._features(size // 2),
                self.antialias,
                dtype=self.dtype,
                name=f"block_{size // 2}",
            )(x)
            features[size // 2] = x

        decode = self._decoder(images.shape[-1])
        painted = decode("decoder")(features[8])
        painted_quadrant = None
        if shape.size >= 512:
            painted_quadrant = decode("quadrant_decoder")(take_quadrant(features[16], quadrant))
        output = DiscriminatorOutput(
            self._logits(features[8], labels),
            self._side_logits(images.astype(self.dtype), labels),
            painted,
            painted_quadrant,
        )
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), output)

    def _features(self, size: int) -> int:
        return min(2**self.fmap_inverse_coef // size, self.fmap_max)

    def _attention(self, name: str) -> Attention:
        attend = nn.remat(Attention) if self.remat else Attention
        return attend(self.attn_heads, self.attn_head_dim, dtype=self.dtype, name=name)

    def _decoder(self, channels: int):
        return lambda name: Decoder(
            self.recon_size, channels, self.icnr_init, dtype=self.dtype, name=name
        )

    def _strided(self, x: jax.Array, first: int) -> jax.Array:
        """Halves images of more than 256 px down to 256 px."""
        for size in sizes(first, 256):
            features = self._features(256) if size == 512 else x.shape[-1]
            if self.antialias:
                x = blur(x)
            conv = Conv(
                features, 4, stride=2, padding=1, dtype=self.dtype, name=f"strided_{size // 2}"
            )
            x = leaky_relu(conv(x))
        return x

    def _logits(self, x: jax.Array, labels: jax.Array | None) -> jax.Array:
        """(B, 8, 8, C) -> (B, output_size²), or of another shape."""
        kernel: int | tuple[int, int] = 4
        if self.output_size == 5:
            x = Conv(x.shape[-1], dtype=self.dtype, name="logits_hidden")(x)
        else:
            if self.antialias:
                x = blur(x)
            x = Conv(x.shape[-1], 3, stride=2, padding=1, dtype=self.dtype, name="logits_hidden")(x)
            kernel = x.shape[1:3]
        x = leaky_relu(x)
        logits = Conv(1, kernel, dtype=self.dtype, name="logits")(x).reshape(x.shape[0], -1)
        return self._with_match("labels", logits, x, labels)

    def _with_match(
        self, name: str, logits: jax.Array, x: jax.Array, labels: jax.Array | None
    ) -> jax.Array:
        if not self.num_labels:
            return logits
        return logits + Match(self.num_labels, dtype=self.dtype, name=name)(x, labels)

    def _side_logits(self, images: jax.Array, labels: jax.Array | None) -> jax.Array:
        """The head that sees the image at 32 px: (B, H, W, C) -> (B, 1)."""
        x = resize_nearest(images, Shape(*images.shape[1:3]).at(32)[0])
        x = Conv(self.side_channels, 3, padding=1, dtype=self.dtype, name="side_conv")(x)
        if self.side_attention:
            x = self._attention("side_attention_32")(x)
        x = Downsample(
            self.side_channels // 2, self.antialias, dtype=self.dtype, name="side_block"
        )(x)
        if self.side_attention:
            x = self._attention("side_attention_16")(x)
        x = nn.avg_pool(x, (4, 4), (4, 4))
        logits = Conv(1, x.shape[1:3], dtype=self.dtype, name="side_logits")(x).reshape(-1, 1)
        return self._with_match("side_labels", logits, x, labels)


class Match(nn.Module):
    """How well features (B, H, W, C) go with labels (B, num_labels): (B, 1), at first 0.

    A projection head (Miyato and Koyama 2018, arXiv:1802.05637).
    """

    num_labels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        shape = (self.num_labels, x.shape[-1])
        table = self.param("match_of_label", nn.initializers.zeros, shape).astype(self.dtype)
        return (x.mean((1, 2)) * (labels.astype(self.dtype) @ table)).sum(-1, keepdims=True)


def sizes(first: int, last: int) -> list[int]:
    """The sizes in pixels that are halved on the way from ``first`` down to ``last``."""
    return [last * 2**i for i in range((first // last).bit_length() - 1, 0, -1)]


def blocks(image_size: int | str) -> list[tuple[str, ...]]:
    """The blocks from the image on, highest resolution first: what their modules may be called.

    A block halves its input, down to 8 px; its attention, if it has one, goes before. The 32 px
    head, the logits and the decoders belong to none.
    """
    halved = sizes(shape_of(image_size).size, 8)
    return [(f"strided_{size // 2}", f"attention_{size}", f"block_{size // 2}") for size in halved]


def take_quadrant(x: jax.Array, quadrant: jax.Array) -> jax.Array:
    """(B, 2 H, 2 W, C) -> its quarter (B, H, W, C); ``quadrant`` counts row by row from 0."""
    batch, *whole, channels = x.shape
    height, width = (side // 2 for side in whole)
    start = (0, quadrant // 2 * height, quadrant % 2 * width, 0)
    return jax.lax.dynamic_slice(x, start, (batch, height, width, channels))
