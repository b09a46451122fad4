"""Inception-v3 as the FID papers use it: the graph that TensorFlow published in 2015.

Szegedy et al. 2015 (arXiv:1512.00567). https://github.com/mseitzer/pytorch-fid has its weights for
PyTorch, and shows where it differs from torchvision's: 1008 classes, averages that leave the
padding out, and a maximum instead of an average in the last block. For inference: the batch
normalisation is part of the convolutions.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from lwgan.metrics.networks.layers import Output, Table


class InceptionV3(nn.Module):
    """Images float32 (B, 299, 299, 3) in [-1, 1] -> features (B, 2048), logits (B, 1008)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> Output:
        x = _conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")(x)
        x = _conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID")(x)
        x = _conv("Conv2d_2b_3x3", 64, (3, 3))(x)
        x = _shrink(x)
        x = _conv("Conv2d_3b_1x1", 80, (1, 1))(x)
        x = _conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID")(x)
        x = _shrink(x)
        for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = BlockA(pooled, name=f"Mixed_{name}")(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = BlockC(inner, name=f"Mixed_{name}")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE("average", name="Mixed_7b")(x)
        x = BlockE("maximum", name="Mixed_7c")(x)
        features = x.mean((1, 2))
        return Output(features, nn.Dense(1008, name="fc")(features))


class BlockA(nn.Module):
    """35×35 px: 1×1, 5×5, twice 3×3, and a pooled branch of ``pooled`` channels."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = _conv("branch1x1", 64, (1, 1))(x)
        five = _conv("branch5x5_1", 48, (1, 1))(x)
        five = _conv("branch5x5_2", 64, (5, 5))(five)
        three = _conv("branch3x3dbl_1", 64, (1, 1))(x)
        three = _conv("branch3x3dbl_2", 96, (3, 3))(three)
        three = _conv("branch3x3dbl_3", 96, (3, 3))(three)
        pooled = _conv("branch_pool", self.pooled, (1, 1))(_average(x))
        return jnp.concatenate([one, five, three, pooled], -1)


class BlockB(nn.Module):
    """35×35 px to 17×17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv("branch3x3", 384, (3, 3), 2, "VALID")(x)
        double = _conv("branch3x3dbl_1", 64, (1, 1))(x)
        double = _conv("branch3x3dbl_2", 96, (3, 3))(double)
        double = _conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID")(double)
        return jnp.concatenate([three, double, _shrink(x)], -1)


class BlockC(nn.Module):
    """17×17 px: 7×7 as rows and columns, ``inner`` channels between them."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row, column, inner = (1, 7), (7, 1), self.inner
        one = _conv("branch1x1", 192, (1, 1))(x)
        seven = _conv("branch7x7_1", inner, (1, 1))(x)
        seven = _conv("branch7x7_2", inner, row)(seven)
        seven = _conv("branch7x7_3", 192, column)(seven)
        double = _conv("branch7x7dbl_1", inner, (1, 1))(x)
        double = _conv("branch7x7dbl_2", inner, column)(double)
        double = _conv("branch7x7dbl_3", inner, row)(double)
        double = _conv("branch7x7dbl_4", inner, column)(double)
        double = _conv("branch7x7dbl_5", 192, row)(double)
        pooled = _conv("branch_pool", 192, (1, 1))(_average(x))
        return jnp.concatenate([one, seven, double, pooled], -1)


class BlockD(nn.Module):
    """17×17 px to 8×8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv("branch3x3_1", 192, (1, 1))(x)
        three = _conv("branch3x3_2", 320, (3, 3), 2, "VALID")(three)
        seven = _conv("branch7x7x3_1", 192, (1, 1))(x)
        seven = _conv("branch7x7x3_2", 192, (1, 7))(seven)
        seven = _conv("branch7x7x3_3", 192, (7, 1))(seven)
        seven = _conv("branch7x7x3_4", 192, (3, 3), 2, "VALID")(seven)
        return jnp.concatenate([three, seven, _shrink(x)], -1)


class BlockE(nn.Module):
    """8×8 px; ``pooling`` is "average" or "maximum"."""

    pooling: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = _conv("branch1x1", 320, (1, 1))(x)
        three = _conv("branch3x3_1", 384, (1, 1))(x)
        double = _conv("branch3x3dbl_1", 448, (1, 1))(x)
        double = _conv("branch3x3dbl_2", 384, (3, 3))(double)
        both = [
            _conv(f"{name}{part}", 384, kernel)(branch)
            for name, branch in (("branch3x3_2", three), ("branch3x3dbl_3", double))
            for part, kernel in (("a", (1, 3)), ("b", (3, 1)))
        ]
        around = (
            _average(x) if self.pooling == "average" else nn.max_pool(x, (3, 3), (1, 1), "SAME")
        )
        pooled = _conv("branch_pool", 192, (1, 1))(around)
        return jnp.concatenate([one, *both, pooled], -1)


class ConvRelu(nn.Conv):
    """A convolution, and what is below 0 becomes 0."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu(super().__call__(x))


def _conv(
    name: str, width: int, kernel: tuple[int, int], stride: int = 1, padding: str = "SAME"
) -> ConvRelu:
    return ConvRelu(width, kernel, stride, padding=padding, name=name)


def _average(x: jax.Array) -> jax.Array:
    """Of 3×3 px round each; at the border of those that there are."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


_shrink = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="VALID")


def table() -> Table:
    """Our layers with the names of convolution and normalisation in pytorch-fid's state dict."""
    images = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    params = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)["params"]
    layers: Table = {"fc": ("fc", None)}
    for block, inner in params.items():
        if "kernel" in inner and block != "fc":
            layers[block] = (f"{block}.conv", f"{block}.bn")
        elif block != "fc":
            for branch in inner:
                layers[f"{block}/{branch}"] = (f"{block}.{branch}.conv", f"{block}.{branch}.bn")
    return layers
