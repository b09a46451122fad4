"""How fast the EMA generator follows the live one; a new schedule is a function and a line."""

import jax
import jax.numpy as jnp

from lwgan.models.build import Params


def ramp_decay(finished: jax.Array, batch_size: int, half_life: float) -> jax.Array:
    """Decay of a half-life that grows to ``half_life`` images, a twentieth of those seen before.

    As in StyleGAN 2 (Karras et al. 2020, arXiv:1912.04958). ``finished``: int32 (), updates before
    this one.
    """
    seen = (finished + 1).astype(jnp.float32) * batch_size
    return 0.5 ** (batch_size / jnp.minimum(half_life, 0.05 * seen))


def reference_decay(finished: jax.Array, batch_size: int, half_life: float) -> jax.Array:
    """The schedule of lightweight-gan 1.2.1, which knows neither batch size nor half-life.

    A copy at updates 2, 1002, … up to 25000, then 0.995 at every tenth update after 20000.
    """
    del batch_size, half_life
    copies = (finished <= 25_000) & (finished % 1000 == 2)
    averages = (finished > 20_000) & (finished % 10 == 0)
    return jnp.where(copies, 0.0, jnp.where(averages, 0.995, 1.0))


EMA_DECAYS = {"ramp": ramp_decay, "reference": reference_decay}


def mix(old: Params, new: Params, decay: jax.Array) -> Params:
    """``old`` moved towards ``new``, leaf by leaf; ``decay`` float32 () of ``old`` stays."""
    return jax.tree.map(lambda o, n: o * decay + n * (1 - decay), old, new)
