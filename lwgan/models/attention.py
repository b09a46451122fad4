"""lightweight-gan's attention: linear over the whole image beside softmax over each 3×3 window."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from lwgan.models.layers import Conv, kaiming_normal, softmax_over_pixels


class ChannelNorm(nn.Module):
    """Normalises each pixel over its channels (biased variance, eps 1e-5), in float32."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (1, 1, 1, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (1, 1, 1, x.shape[-1]))
        x = x.astype(jnp.float32)
        mean = x.mean(-1, keepdims=True)
        var = jnp.square(x - mean).mean(-1, keepdims=True)
        return ((x - mean) / jnp.sqrt(var + 1e-5) * scale + bias).astype(self.dtype)


class Attention(nn.Module):
    """x + attention(ChannelNorm(x)) for (B, H, W, C), with ``heads`` of ``head_dim`` channels each.

    Two branches side by side: linear attention over all pixels (Katharopoulos et al. 2020, with the
    softmaxes of Shen et al. 2018), and full attention of each pixel within its 3×3 neighbourhood,
    where the zeros beyond the border take part as keys.
    """

    heads: int
    head_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = self.heads * self.head_dim
        normed = ChannelNorm(dtype=self.dtype, name="norm")(x)

        def project(features: int, name: str, x: jax.Array = normed) -> jax.Array:
            return Conv(features, use_bias=False, dtype=self.dtype, name=name)(x)

        def heads(x: jax.Array) -> jax.Array:
            return rearrange(x, "b h w (n d) -> b h w n d", n=self.heads)

        depthwise = DepthwiseConv(dtype=self.dtype, name="linear_depthwise")(normed)
        q = heads(project(width, "linear_q"))
        k, v = map(heads, jnp.split(project(2 * width, "linear_kv", depthwise), 2, axis=-1))
        far = nn.gelu(linear_attention(q, k, v), approximate=False)

        q = heads(project(width, "local_q"))
        k, v = map(heads, jnp.split(project(2 * width, "local_kv"), 2, axis=-1))
        near = local_attention(q, k, v)

        both = jnp.concatenate([far, near], axis=3)
        both = rearrange(both, "b h w n d -> b h w (n d)")
        return x + Conv(x.shape[-1], dtype=self.dtype, name="out")(both)


def linear_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention linear in the number of pixels; all of (B, H, W, heads, head_dim)."""
    q = nn.softmax(q.astype(jnp.float32), axis=-1).astype(q.dtype) * q.shape[-1] ** -0.5
    context = jnp.einsum("bhwnd,bhwne->bnde", softmax_over_pixels(k), v)
    return jnp.einsum("bhwnd,bnde->bhwne", q, context)


def local_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention of each pixel to its 3×3 window; all of (B, H, W, heads, head_dim).

    One neighbour after the other: all windows at once would take nine times the memory, and longer.
    """
    scale = jnp.full(q.shape[-1], q.shape[-1] ** -0.5, q.dtype)
    # The sum over channels as a product, for XLA does not vectorise such sums on a CPU.
    logits = [jnp.einsum("bhwnd,d->bhwn", q * shifted, scale) for shifted in _shifts(k)]
    logits = jnp.stack(logits, axis=-1)
    weights = nn.softmax(logits.astype(jnp.float32), axis=-1).astype(q.dtype)
    return sum(weights[..., i, None] * shifted for i, shifted in enumerate(_shifts(v)))


def _shifts(x: jax.Array) -> list[jax.Array]:
    """``x`` shifted nine ways, as a 3×3 window sees it row by row: (B, H, W, …) each."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1)) + ((0, 0),) * (x.ndim - 3))
    return [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]


class DepthwiseConv(nn.Module):
    """A 3×3 convolution of each channel by itself, without bias.

    As nine shifted products: XLA's grouped convolution is far slower on a CPU.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kaiming_normal, (3, 3, 1, x.shape[-1]))
        taps = kernel.astype(self.dtype).reshape(9, 1, 1, 1, -1)
        return sum(shifted * tap for shifted, tap in zip(_shifts(x), taps, strict=True))
