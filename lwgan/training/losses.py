"""Losses: pure functions of the whole batch's logits, and of images. All float32 scalars ().

A new adversarial loss is two functions and one line in ``LOSSES``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp, relu, softplus

from lwgan.models.layers import resize_nearest


def hinge_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Hinge loss of logits (B, N) each; as in lightweight-gan 1.2.1, real images score low."""
    return (relu(1 + real) + relu(1 - fake)).mean()


def hinge_generator(real: jax.Array | None, fake: jax.Array) -> jax.Array:
    """The mean of the logits (B, N): the generator wants the low scores of real images."""
    del real
    return fake.mean()


def relativistic_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Each fake (B, N) against the real of its place (B, N), which is to score higher.

    The relativistic pairing loss (Jolicoeur-Martineau 2018, arXiv:1807.00734), in the form that
    R3GAN proves to converge with a zero-centred penalty on both sides (Huang et al. 2024,
    arXiv:2501.05441).
    """
    return softplus(fake - real).mean()


def relativistic_generator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """As the discriminator's, with reals and fakes changing places."""
    return relativistic_discriminator(fake, real)


def dual_contrastive(high: jax.Array, low: jax.Array) -> jax.Array:
    """Each logit of ``high`` (B, 1) against all of ``low`` (B, 1), and the reverse.

    Dual contrastive loss (Yu et al. 2021, arXiv:2103.16748): the cross-entropy of picking the one
    real image among fakes, plus that of picking the one fake among reals.
    """

    def one_against_all(one: jax.Array, others: jax.Array) -> jax.Array:
        together = jnp.broadcast_to(others.T, (one.shape[0], others.shape[0]))
        return (logsumexp(jnp.concatenate([one, together], axis=1), axis=1) - one[:, 0]).mean()

    return one_against_all(high, low) + one_against_all(-low, -high)


def dual_contrastive_generator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """As the discriminator's, with reals and fakes changing places."""
    return dual_contrastive(fake, real)


class AdversarialLoss(NamedTuple):
    """What each network minimises, of the logits of reals and of fakes."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array | None, jax.Array], jax.Array]
    # Whether the generator's reads a second batch of reals; without, it gets None for them.
    generator_needs_reals: bool
    # Whether it compares images with all others: there must be one logit for each.
    compares_images: bool
    # Whether only differences of logits count, and not the logits themselves.
    relative: bool
    # 1 where the discriminator learns to score reals high, -1 where low.
    real_sign: int


LOSSES = {
    "hinge": AdversarialLoss(
        hinge_discriminator,
        hinge_generator,
        generator_needs_reals=False,
        compares_images=False,
        relative=False,
        real_sign=-1,
    ),
    "relativistic": AdversarialLoss(
        relativistic_discriminator,
        relativistic_generator,
        generator_needs_reals=True,
        compares_images=False,
        relative=True,
        real_sign=1,
    ),
    "dual_contrastive": AdversarialLoss(
        dual_contrastive,
        dual_contrastive_generator,
        generator_needs_reals=True,
        compares_images=True,
        relative=True,
        real_sign=1,
    ),
}


def reconstruction(images: jax.Array, painted: jax.Array) -> jax.Array:
    """Mean squared error of ``painted`` (B, R, Q, C) to ``images`` (B, H, W, C) at its size."""
    return jnp.square(resize_nearest(images, painted.shape[1]) - painted).mean()


def gradient_penalty(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The mean over reals and fakes of the squared norm of each example's gradient.

    Gradients are (B, H, W, C), of the sum of the discriminator's logits; as in lightweight-gan
    1.2.1, which is centred at zero (Mescheder et al. 2018, arXiv:1801.04406) and on fakes too.
    """

    def squared_norm(gradient: jax.Array) -> jax.Array:
        return jnp.square(gradient).sum((1, 2, 3)).mean()

    return (squared_norm(real) + squared_norm(fake)) / 2
