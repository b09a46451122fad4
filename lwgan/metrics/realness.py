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


def score_realness(
    critic: Critic, batches: Iterable[np.ndarray], labels: np.ndarray | None = None
) -> np.ndarray:
    """How real images uint8 (B, H, W, C) look, the mean of each one's logits: float32 (N,).

    ``labels`` (N, K) are theirs, None without.

    Real images score high. A discriminator that scores images it was trained with higher than
    others like them has learnt them by heart.
    """
    params, scores, seen = put(critic.params, whole()), [], 0
    for images in batches:
        missing = -len(images) % jax.device_count()
        padded = np.concatenate([images, images[:1].repeat(missing, 0)])
        own = None if labels is None else labels[seen : seen + len(images)]
        own = None if own is None else np.concatenate([own, own[:1].repeat(missing, 0)])
        seen += len(images)
        logits = _mean_logits(critic.discriminator, params, *put((padded, own), divided()))
        scores.append(fetch(logits)[: len(images)])
    return critic.real_sign * np.concatenate(scores)


@functools.partial(jax.jit, static_argnums=0)
def _mean_logits(
    discriminator: nn.Module, params: Any, images: jax.Array, labels: jax.Array | None
) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        output = discriminator.apply(
            {"params": params}, images.astype(jnp.float32) / 255, jnp.int32(0), labels
        )
    return output.logits.mean(1)
