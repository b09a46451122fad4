"""The parts that both networks are made of."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

# How the names of parameters (K, …) end that have a row for each label.
OF_LABEL = "_of_label"

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
kaiming_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")


def icnr(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """A kernel (1, 1, C, 4 F) whose filters repeat over the four sub-pixels of a pixel shuffle.

    The upsampled image then starts free of checkerboards (Aitken et al. 2017, arXiv:1707.02937).
    """
    *spatial, features_in, features_out = shape
    return jnp.repeat(
        kaiming_uniform(key, (*spatial, features_in, features_out // 4), dtype), 4, -1
    )


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for biases: uniform within ±1/√fan_in."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU with the slope 0.1 that lightweight-gan has everywhere."""
    return nn.leaky_relu(x, 0.1)


def softmax_over_pixels(x: jax.Array) -> jax.Array:
    """Of (B, H, W, …), computed in float32."""
    flat = x.reshape(x.shape[0], -1, *x.shape[3:]).astype(jnp.float32)
    return nn.softmax(flat, axis=1).reshape(x.shape).astype(x.dtype)


def blur(x: jax.Array) -> jax.Array:
    """Smooths (B, H, W, C) with [1, 2, 1] ⊗ [1, 2, 1] / 16, reflecting at the border."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
    return (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4


def resize_nearest(x: jax.Array, rows: int) -> jax.Array:
    """Resizes images (B, H, W, C) to so many rows, H / rows or rows / H whole; columns follow.

    Takes the pixel at floor(i · H / rows), as PyTorch's nearest does; ``jax.image.resize`` takes
    another.
    """
    height = x.shape[1]
    if rows <= height:
        return x[:, :: height // rows, :: height // rows]
    return x.repeat(rows // height, 1).repeat(rows // height, 2)


def pixel_shuffle(x: jax.Array) -> jax.Array:
    """(B, H, W, 4 C) -> (B, 2 H, 2 W, C) in PyTorch's channel order."""
    return rearrange(x, "b h w (c i j) -> b (h i) (w j) c", i=2, j=2)


def pixel_unshuffle(x: jax.Array) -> jax.Array:
    """(B, 2 H, 2 W, C) -> (B, H, W, 4 C), the inverse of ``pixel_shuffle``."""
    return rearrange(x, "b (h i) (w j) c -> b h w (c i j)", i=2, j=2)


class Conv(nn.Module):
    """A convolution with lightweight-gan's initialisation: Kaiming-normal kernel, PyTorch's bias.

    ``padding`` is zeros: one number for every side, or (before, after) for both axes.
    ``train_bias=False`` stops the bias's gradient, for a bias that a later normalisation cancels:
    its true gradient is zero, and Adam would turn the rounding of that zero into a random walk.
    """

    features: int
    size: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] = 0
    use_bias: bool = True
    train_bias: bool = True
    kernel_init: nn.initializers.Initializer = kaiming_normal
    bias_init: nn.initializers.Initializer | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.size,) * 2 if isinstance(self.size, int) else self.size
        shape = (*size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        pad = (self.padding,) * 2 if isinstance(self.padding, int) else self.padding
        if size == (1, 1) and self.stride == 1 and not any(pad):
            # The same, but XLA's gradient of such a convolution's kernel takes ten times as long on
            # a CPU.
            y = jnp.einsum("bhwc,cf->bhwf", x, kernel[0, 0])
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                (pad, pad),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.use_bias:
            bias_init = self.bias_init or torch_bias(math.prod(shape[:3]))
            bias = self.param("bias", bias_init, (self.features,)).astype(self.dtype)
            y += (bias if self.train_bias else jax.lax.stop_gradient(bias)).reshape(1, 1, 1, -1)
        return y


class BatchNorm(nn.Module):
    """Batch normalisation as in PyTorch: eps 1e-5, and a running variance that is the unbiased one.

    (``flax.linen.BatchNorm`` keeps the biased variance.) In training the statistics are those of
    the whole micro-batch over all devices of ``axis_name``; they are float32 whatever ``dtype`` is.
    With ``num_labels`` the scale and bias are those of the labels (B, num_labels), weights that sum
    up to 1: conditional batch normalisation (de Vries et al. 2017, arXiv:1707.00683).
    """

    axis_name: str | None
    num_labels: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, labels: jax.Array | None = None) -> jax.Array:
        features, axes = x.shape[-1:], tuple(range(x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, features).reshape(_last(x))
        bias = self.param("bias", nn.initializers.zeros, features).reshape(_last(x))
        if self.num_labels:
            scale = scale + self._of_labels("scale_of_label", x, labels)
            bias = bias + self._of_labels("bias_of_label", x, labels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "var", jnp.ones, features)
        x = x.astype(jnp.float32)

        if train:
            parallel = self.axis_name is not None and not self.is_initializing()
            devices = jax.lax.psum(1, self.axis_name) if parallel else 1
            count = devices * math.prod(x.shape[:-1])
            over_devices = (
                (lambda s: jax.lax.pmean(s, self.axis_name)) if parallel else (lambda s: s)
            )
            mean = over_devices(x.mean(axes))
            var = over_devices(jnp.square(x - mean.reshape(_last(x))).mean(axes))
            if not self.is_initializing():
                keep = self.momentum
                unbiased = var * count / (count - 1)
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        else:
            mean, var = running_mean.value, running_var.value

        factor = scale * jax.lax.rsqrt(var + self.epsilon).reshape(_last(x))
        y = (x - mean.reshape(_last(x))) * factor + bias
        return y.astype(self.dtype)

    def _of_labels(self, name: str, x: jax.Array, labels: jax.Array) -> jax.Array:
        """What a table adds for labels (B, num_labels), in line with ``x``; at first nothing."""
        table = self.param(name, nn.initializers.zeros, (self.num_labels, x.shape[-1]))
        return (labels @ table).reshape(-1, *_last(x)[1:-1], x.shape[-1])


def _last(x: jax.Array) -> tuple[int, ...]:
    """The shape that lines a vector of features up with the last axis of ``x``."""
    return (1,) * (x.ndim - 1) + (-1,)


class Upsample(nn.Module):
    """(B, H, W, C) -> (B, 2 H, 2 W, C): 1×1 convolution, SiLU, pixel shuffle."""

    icnr_init: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init = icnr if self.icnr_init else kaiming_normal
        x = Conv(
            4 * x.shape[-1],
            kernel_init=kernel_init,
            bias_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="conv",
        )(x)
        return pixel_shuffle(nn.silu(x))


class Downsample(nn.Module):
    """(B, 2 H, 2 W, C) -> (B, H, W, features): the sum of a convolutional and a pooled branch."""

    features: int
    antialias: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.antialias:
            x = blur(x)
        y = leaky_relu(Conv(self.features, dtype=self.dtype, name="conv1")(pixel_unshuffle(x)))
        y = leaky_relu(Conv(self.features, 3, padding=1, dtype=self.dtype, name="conv2")(y))
        pooled = nn.avg_pool(x, (2, 2), (2, 2))
        return y + leaky_relu(Conv(self.features, dtype=self.dtype, name="pooled")(pooled))


class Decoder(nn.Module):
    """Paints the image again from features of 8 pixels, at ``size`` pixels: (B, H, W, channels)."""

    size: int
    channels: int
    icnr_init: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        side = 8
        while side < self.size:
            side *= 2
            x = Upsample(self.icnr_init, dtype=self.dtype, name=f"upsample_{side}")(x)
            features = 2 * self.channels if side == self.size else x.shape[-1] // 2 * 2
            x = Conv(features, 3, padding=1, dtype=self.dtype, name=f"conv_{side}")(x)
            x = nn.glu(x)
        return x


class GlobalContext(nn.Module):
    """Skip-layer excitation by attention pooling: (B, H, W, C) -> gate (B, 1, 1, features)."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # The softmax over pixels ignores the bias of its logits.
        logits = Conv(1, train_bias=False, dtype=self.dtype, name="pixel_logits")(x)
        weights = softmax_over_pixels(logits)
        pooled = (x * weights).sum((1, 2), keepdims=True)
        return _gate(pooled, max(3, self.features // 2), self.features, self.dtype)


class FrequencyContext(nn.Module):
    """Skip-layer excitation by fixed cosines (FCANet, Qin et al. 2021), as in lightweight-gan.

    (B, H, W, C) -> a gate (B, 1, 1, features) in (0, 1).
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pooled = jnp.einsum("bhwc,hwc->bc", x, frequency_weights(*x.shape[1:]).astype(x.dtype))
        pooled = pooled.reshape(-1, 1, 1, x.shape[-1])
        return _gate(pooled, max(3, self.features // 4), self.features, self.dtype)


def frequency_weights(height: int, width: int, channels: int) -> jax.Array:
    """The cosines (height, width, channels) of ``FrequencyContext``.

    Sixteen groups of channels take the frequencies (0, 0) … (0, 7), (0, 0) … (7, 0), vertical
    first; the channels left over have weight zero.
    """

    def cosine(frequency: int, side: int) -> jax.Array:
        scale = 1.0 if frequency == 0 else math.sqrt(2)
        position = (jnp.arange(side) + 0.5) / side
        return jnp.cos(jnp.pi * frequency * position) * scale / math.sqrt(side)

    pairs = [(0, v) for v in range(8)] + [(u, 0) for u in range(8)]
    waves = jnp.stack([jnp.outer(cosine(u, height), cosine(v, width)) for u, v in pairs], axis=-1)
    group = channels // 16
    return jnp.pad(jnp.repeat(waves, group, -1), ((0, 0), (0, 0), (0, channels - 16 * group)))


def _gate(pooled: jax.Array, hidden: int, features: int, dtype: jnp.dtype) -> jax.Array:
    hidden = leaky_relu(Conv(hidden, dtype=dtype, name="squeeze")(pooled))
    return nn.sigmoid(Conv(features, dtype=dtype, name="excite")(hidden))
