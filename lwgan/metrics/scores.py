"""What the discriminator itself says of pictures: it knows those it was trained with."""

import functools
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lwgan.losses import AdversarialLoss


def realness(
    discriminator: nn.Module,
    params: Any,
    loss: AdversarialLoss,
    batches: Iterable[np.ndarray],
) -> np.ndarray:
    """How real pictures uint8 (B, S, S, C) look, the mean of each one's logits: float32 (N,).

    Real pictures score high, whichever sign ``loss`` gives them. A discriminator that scores pictures
    it was trained with higher than others like them has learnt them by heart.
    """
    one = jnp.ones((1, 1))
    sign = 1 if loss.discriminator(one, -one) < loss.discriminator(-one, one) else -1
    return sign * np.concatenate(
        [np.asarray(_logits(discriminator, params, images)) for images in batches]
    )


@functools.partial(jax.jit, static_argnums=0)
def _logits(discriminator: nn.Module, params: Any, images: jax.Array) -> jax.Array:
    pictures = images.astype(jnp.float32) / 255
    with jax.default_matmul_precision("highest"):
        output = discriminator.apply({"params": params}, pictures, jnp.int32(0))
    return output.logits.mean(1)
