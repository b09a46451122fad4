"""The whole scheme of randomness: one key per draw, by what it is for and for which example.

A draw in training depends on the seed, the number of recoveries, the step, its purpose and the
example's index in the whole batch, and on nothing else: not on devices, processes, threads or
clocks. A draw in sampling depends on the seed, its purpose and the image's number.
"""

import enum

import jax


class Draw(enum.IntEnum):
    """What a draw is for. The numbers are part of a run: append, never reorder."""

    INIT_GENERATOR = 1
    INIT_DISCRIMINATOR = 2
    D_LATENTS = 3
    D_NOISE = 4
    D_FAKE_AUGMENT = 5
    D_FAKE_COIN = 6
    D_REAL_AUGMENT = 7
    D_REAL_COIN = 8
    D_QUADRANT = 9
    G_LATENTS = 10
    G_NOISE = 11
    G_FAKE_AUGMENT = 12
    G_FAKE_COIN = 13
    G_REAL_AUGMENT = 14
    G_REAL_COIN = 15
    SAMPLE_LATENTS = 16
    SAMPLE_NOISE = 17
    SAMPLE_LABELS = 18


def seed_key(seed: int) -> jax.Array:
    """The root of every draw of a seed: a typed threefry key ()."""
    return jax.random.key(seed, impl="threefry2x32")


def step_key(seed: int, recoveries: jax.Array, step: jax.Array) -> jax.Array:
    """The key () of one training step, from how many steps are finished: int32 () each."""
    return jax.random.fold_in(jax.random.fold_in(seed_key(seed), recoveries), step)


def example_keys(key: jax.Array, draw: Draw, indices: jax.Array) -> jax.Array:
    """One key per example by its index: int32 (B,) -> keys (B,)."""
    purpose = jax.random.fold_in(key, draw)
    return jax.vmap(lambda index: jax.random.fold_in(purpose, index))(indices)


def image_keys(seeds: jax.Array, draw: Draw, numbers: jax.Array) -> jax.Array:
    """One key per sampled image: number int32 (B,) of seed uint32 (B,) -> keys (B,)."""
    return jax.vmap(
        lambda seed, number: jax.random.fold_in(jax.random.fold_in(seed_key(seed), draw), number)
    )(seeds, numbers)


def draw_latents(keys: jax.Array, latent_dim: int) -> jax.Array:
    """One standard normal latent per key: (B,) keys -> float32 (B, latent_dim)."""
    return jax.vmap(lambda key: jax.random.normal(key, (latent_dim,)))(keys)
