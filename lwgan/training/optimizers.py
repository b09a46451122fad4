"""Optimizers by name; a new one is a function and one line in ``OPTIMIZERS``.

What an optimizer's update is multiplied by in the course of a run is apart from it, so that its
state is the same with and without.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class BeliefState(NamedTuple):
    """What rectified AdaBelief remembers."""

    # int32 (), updates so far.
    count: jax.Array
    # Of the gradients.
    mean: optax.Updates
    # Of the squared distance of the gradients to their mean.
    deviation: optax.Updates


def adabelief(learning_rate: float, b1: float, b2: float) -> optax.GradientTransformation:
    """AdaBelief with the rectification of adabelief_pytorch 0.2.1, which lightweight-gan uses.

    Zhuang et al. 2020, arXiv:2010.07468. ``optax.adabelief`` has no rectification, and measures the
    deviation from the mean before the update.
    """
    eps = 1e-16
    rho_inf = 2 / (1 - b2) - 1

    def init(params: optax.Params) -> BeliefState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return BeliefState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: optax.Updates, state: BeliefState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, BeliefState]:
        del params
        count = state.count + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, grads)
        deviation = jax.tree.map(
            lambda s, g, m: b2 * s + (1 - b2) * jnp.square(g - m) + eps,
            state.deviation,
            grads,
            mean,
        )
        t = count.astype(jnp.float32)
        debias1, debias2 = 1 - b1**t, 1 - b2**t
        rho = rho_inf - 2 * t * b2**t / debias2
        rectify = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
        rectify = jnp.sqrt(jnp.maximum(rectify, 0) * debias2)
        adaptive = rho >= 5

        def step(m: jax.Array, s: jax.Array) -> jax.Array:
            scaled = jnp.where(adaptive, rectify * m / (jnp.sqrt(s) + eps), m)
            return -learning_rate * scaled / debias1

        return jax.tree.map(step, mean, deviation), BeliefState(count, mean, deviation)

    return optax.GradientTransformation(init, update)


def freezing(
    optimizer: optax.GradientTransformation, modules: Collection[str]
) -> optax.GradientTransformation:
    """The optimizer, which leaves the parameters of these modules as they are.

    Its state has the shape that it has without (``optax.masked`` would drop leaves), so that what
    is frozen may change within a run: to the optimizer, their gradients are zero meanwhile.
    """

    def still(tree: optax.Updates) -> optax.Updates:
        return {
            name: jax.tree.map(jnp.zeros_like, leaves) if name in modules else leaves
            for name, leaves in tree.items()
        }

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = optimizer.update(still(grads), state, params)
        # What is left of earlier gradients would move them.
        return still(updates), state

    return optax.GradientTransformation(optimizer.init, update)


def rate_factor(
    finished: jax.Array, num_steps: int, warmup: int, decay: float
) -> jax.Array | float:
    """What the learning rates are multiplied by in the next update: float32 (), 0 to 1.

    Args:
      finished: int32 (), updates before it.
      num_steps: updates of the whole run.
      warmup: updates in which it grows linearly to 1; 0: none.
      decay: share of the run, at its end, in which it falls to 0 as half a cosine (Loshchilov and
        Hutter 2017, arXiv:1608.03983); 0: none.
    """
    factor = 1.0
    if warmup:
        factor = jnp.minimum((finished + 1) / warmup, 1)
    if decay:
        left = (num_steps - finished) / (decay * num_steps)
        factor *= (1 - jnp.cos(jnp.pi * jnp.clip(left, 0, 1))) / 2
    return factor


OPTIMIZERS: dict[str, Callable[[float, float, float], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adabelief": adabelief,
}
