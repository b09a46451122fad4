"""EfficientNet-Lite: what small, freely licensed networks that know ImageNet see in an image.

Tan and Le 2019 (arXiv:1905.11946), in the "lite" variant of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: ReLU6, and no
squeeze and excitation. For inference: the batch normalisation is part of the convolutions.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lwgan.metrics.networks.layers import Output, Table


class Stage(NamedTuple):
    """Blocks of one shape; the first of them takes the stride."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    width: int


LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
# 1.1 times as wide, in multiples of 8, and 1.2 times as deep but for the first and last stage.
LITE2 = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)
# Stages, and pixels of the images.
VARIANTS = {"lite0": (LITE0, 224), "lite2": (LITE2, 260)}


class Depthwise(nn.Module):
    """A convolution of each channel by itself: (B, H, W, C) -> (B, H/s, W/s, C)."""

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, stride, (_, height, width, channels) = self.kernel, self.stride, x.shape
        kernel = self.param("kernel", nn.initializers.zeros, (size, size, 1, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        pads = [max(-(-n // stride) * stride - stride + size - n, 0) for n in (height, width)]
        x = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
        height, width = -(-height // stride), -(-width // stride)
        # A sum of shifted products: XLA's grouped convolution is many times slower on a CPU.
        total = bias[None, None, None]
        for row in range(size):
            for column in range(size):
                rows = slice(row, row + (height - 1) * stride + 1, stride)
                columns = slice(column, column + (width - 1) * stride + 1, stride)
                total = total + x[:, rows, columns] * kernel[row, column][None, None]
        return total


class EfficientNetLite(nn.Module):
    """float32 (B, S, S, 3), (x - 127) / 128 -> features (B, 1280), logits (B, 1000).

    S, the pixels of a side, is as in ``VARIANTS``.
    """

    stages: tuple[Stage, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> Output:
        # Of 1×1 px, a convolution is a dense layer of the channels: faster, on a CPU by half.
        relu6 = nn.relu6
        x = relu6(nn.Conv(32, (3, 3), 2, name="stem")(x))
        for number, stage, stride in blocks(self.stages):
            shortcut, name, width = x, f"block_{number}", x.shape[-1]
            if stage.expand > 1:
                x = relu6(nn.Dense(stage.expand * width, name=f"{name}_expand")(x))
            x = relu6(Depthwise(stage.kernel, stride, name=f"{name}_depthwise")(x))
            x = nn.Dense(stage.width, name=f"{name}_project")(x)
            if x.shape == shortcut.shape:
                x = x + shortcut
        features = relu6(nn.Dense(1280, name="head")(x)).mean((1, 2))
        return Output(features, nn.Dense(1000, name="classifier")(features))


def blocks(stages: Iterable[Stage]) -> Iterator[tuple[int, Stage, int]]:
    """Number, stage and stride of each block, in order."""
    number = 0
    for stage in stages:
        for place in range(stage.blocks):
            yield number, stage, stage.stride if place == 0 else 1
            number += 1


def table(stages: Iterable[Stage]) -> Table:
    """Our layers with the names of convolution and normalisation in the published state dict."""
    layers: Table = {"stem": ("_conv_stem", "_bn0")}
    for number, stage, _ in blocks(stages):
        theirs, ours = f"_blocks.{number}.", f"block_{number}_"
        if stage.expand > 1:
            layers[ours + "expand"] = (theirs + "_expand_conv", theirs + "_bn0")
        layers[ours + "depthwise"] = (theirs + "_depthwise_conv", theirs + "_bn1")
        layers[ours + "project"] = (theirs + "_project_conv", theirs + "_bn2")
    return layers | {"head": ("_conv_head", "_bn1"), "classifier": ("_fc", None)}
