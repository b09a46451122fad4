"""Gradients of a whole step: over micro-batches, over devices, and into the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lwgan.models.build import Params
from lwgan.models.placement import AXIS

# Weighted terms of a loss, or what else is measured, by name: float32 () each.
Terms = dict[str, jax.Array]


class Outcome(NamedTuple):
    """Of one micro-batch."""

    # Their sum is the loss.
    terms: Terms
    # Without influence on the gradients.
    measures: Terms
    # Running statistics for the next micro-batch.
    stats: Params


def accumulate(
    micro_batch: Callable[[Params, Params, jax.Array, Any], Outcome],
    params: Params,
    stats: Params,
    reals: Any,
    *,
    unroll: bool,
) -> tuple[Params, Terms, Params]:
    """Means of gradients, and of terms and measures, over micro-batches of ``reals`` (A, m, …).

    ``micro_batch(params, stats, index, reals)`` is what comes of one. ``unroll`` writes them out
    one after the other instead of in a loop.
    """
    count = len(jax.tree.leaves(reals)[0])

    def loss_fn(params: Params, stats: Params, micro: jax.Array, reals: Any):
        terms, measures, stats = micro_batch(params, stats, micro, reals)
        return sum(terms.values()), ({**terms, **measures}, stats)

    def body(carry: tuple[Params, Params], micro_and_reals: tuple[jax.Array, Any]):
        total, stats = carry
        grads, (terms, stats) = jax.grad(loss_fn, has_aux=True)(params, stats, *micro_and_reals)
        return (jax.tree.map(jnp.add, total, grads), stats), terms

    zeros = jax.tree.map(jnp.zeros_like, params)
    scan = _unrolled_scan if unroll else jax.lax.scan
    (total, stats), terms = scan(body, (zeros, stats), (jnp.arange(count), reals))
    return (
        jax.tree.map(lambda grad: grad / count, total),
        {name: term.mean() for name, term in terms.items()},
        stats,
    )


def apply_updates(
    tx: optax.GradientTransformation,
    grads: Params,
    opt: optax.OptState,
    params: Params,
    rate: jax.Array | float,
) -> tuple[Params, optax.OptState, jax.Array]:
    """New parameters and optimizer state from the gradients' mean over devices, and its norm ().

    ``rate`` multiplies the update.
    """
    grads = jax.lax.pmean(grads, AXIS)
    updates, opt = tx.update(grads, opt, params)
    params = optax.apply_updates(params, jax.tree.map(lambda u: u * rate, updates))
    return params, opt, optax.tree.norm(grads)


def _unrolled_scan(body: Callable, carry: Params, xs: Params) -> tuple[Params, Params]:
    """``jax.lax.scan`` as straight code; its own ``unroll`` keeps a loop round a single turn."""
    outputs = []
    for turn in range(len(jax.tree.leaves(xs)[0])):
        carry, output = body(carry, jax.tree.map(lambda x, turn=turn: x[turn], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)
