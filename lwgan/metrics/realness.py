"""What the discriminator itself says of images: it knows those it was trained with."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lwgan.models.placement import divided, fetch, put, whole


class Critic(NamedTuple):
    """A discriminator with its weights; ``real_sign`` is 1 if it scores reals high, -1 if low."""

    discriminator: nn.Module
    params: Any
    real_sign: int


def score_realness(critic: Critic, batches: Iterable[np.ndarray]) -> np.ndarray:
    """How real images uint8 (B, S, S, C) look, the mean of each one's logits: float32 (N,).

    Real images score high. A discriminator that scores images it was trained with higher than
    others like them has learnt them by heart.
    """
    params, scores = put(critic.params, whole()), []
    for images in batches:
        missing = -len(images) % jax.device_count()
        padded = np.concatenate([images, images[:1].repeat(missing, 0)])
        divided_images = put(padded, divided())
        logits = _mean_logits(critic.discriminator, params, divided_images)
        scores.append(fetch(logits)[: len(images)])
    return critic.real_sign * np.concatenate(scores)


@functools.partial(jax.jit, static_argnums=0)
def _mean_logits(discriminator: nn.Module, params: Any, images: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        output = discriminator.apply(
            {"params": params}, images.astype(jnp.float32) / 255, jnp.int32(0)
        )
    return output.logits.mean(1)
