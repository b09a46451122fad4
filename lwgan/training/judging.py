"""What the discriminator says of images, and the terms of the losses that come of it."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lwgan.models.build import Params
from lwgan.models.discriminator import DiscriminatorOutput, take_quadrant
from lwgan.models.placement import AXIS
from lwgan.training.gradients import Terms
from lwgan.training.losses import AdversarialLoss, reconstruction


class Judged(NamedTuple):
    """What the discriminator says of images, and of what it saw of them."""

    output: DiscriminatorOutput
    # (m, H, W, C), as the discriminator saw them.
    seen: jax.Array
    # Of the sum of all logits with respect to the images before they were looked at.
    gradient: jax.Array | None


def judge_images(
    network: nn.Module,
    params: Params,
    quadrant: jax.Array,
    images: jax.Array,
    look: Callable[[jax.Array], jax.Array],
    *,
    with_gradient: bool,
    labels: jax.Array | None = None,
) -> Judged:
    """The discriminator's output for ``look(images)``, with its gradient if that is asked for."""

    def total_score(images: jax.Array) -> tuple[jax.Array, tuple[DiscriminatorOutput, jax.Array]]:
        seen = look(images)
        output = network.apply({"params": params}, seen, quadrant, labels)
        return output.logits.sum() + output.side_logits.sum(), (output, seen)

    if with_gradient:
        gradient, (output, seen) = jax.grad(total_score, has_aux=True)(images)
        return Judged(output, seen, gradient)
    _, (output, seen) = total_score(images)
    return Judged(output, seen, None)


def painted_error(judged: Judged, quadrant: jax.Array) -> jax.Array:
    """How far the decoders' images are from what the discriminator saw: float32 ()."""
    error = reconstruction(judged.seen, judged.output.painted)
    if judged.output.painted_quadrant is not None:
        quarter = take_quadrant(judged.seen, quadrant)
        error += reconstruction(quarter, judged.output.painted_quadrant)
    return error


def mean_signs(loss: AdversarialLoss, real: jax.Array, fake: jax.Array) -> Terms:
    """1 where all logits (m, N) are those of real images, -1 where of fakes: float32 () each.

    Where only differences count, those are meant between the images of a place.
    """
    if loss.relative:
        real, fake = real - fake, fake - real
    return {
        "sign_of_reals": jnp.sign(loss.real_sign * real).mean(),
        "sign_of_fakes": jnp.sign(loss.real_sign * fake).mean(),
    }


def adversarial_terms(
    loss: Callable[[jax.Array | None, jax.Array], jax.Array],
    real: DiscriminatorOutput | None,
    fake: DiscriminatorOutput,
) -> Terms:
    """The loss of the main logits and of the 32 px head's, over the micro-batch of all devices."""

    def whole(logits: jax.Array) -> jax.Array:
        return jax.lax.all_gather(logits, AXIS, tiled=True)

    return {
        "adversarial": loss(real and whole(real.logits), whole(fake.logits)),
        "side": loss(real and whole(real.side_logits), whole(fake.side_logits)),
    }
