"""The latents whose images come closest to given ones."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lwgan.metrics.extraction import batched
from lwgan.metrics.realness import Critic
from lwgan.models.build import Params
from lwgan.models.discriminator import Discriminator
from lwgan.models.generator import Generator, noise_shapes
from lwgan.sampling.sampler import Draws, Sampler

# Candidates looked at at once.
_BATCH = 16
# Steps of one compiled program.
CHUNK = 10
# Of the features' distance, which is near 1 for images that have nothing in common; that of pixels
# is near 0.3.
_FEATURES_WEIGHT = 0.1
_LEARNING_RATE = 0.1
# In parts of the usual length of a latent: further away lie images that nobody has seen.
_LONGEST = 1.25


class Effort(NamedTuple):
    """How long is searched."""

    # Latents that are tried first.
    candidates: int = 512
    # The best of them, from which the search goes on.
    starts: int = 3
    # Of each.
    steps: int = 400


class Found(NamedTuple):
    """What comes closest to an image."""

    # float32 (latent_dim,).
    latent: np.ndarray
    # Of each size, float32 (H, W, 1).
    noise: tuple[np.ndarray, ...]
    # Weights (K,); None without labels.
    label: np.ndarray | None
    # float32 (H, W, C), not clipped.
    image: np.ndarray
    # Peak signal to noise, in decibels.
    psnr: float


class _Moved(NamedTuple):
    """What the search moves, of each start."""

    latents: jax.Array
    noise: tuple[jax.Array, ...]


class _Goal(NamedTuple):
    """What it moves towards, and what that is looked at with."""

    target: jax.Array
    # What the discriminator sees in the target.
    features: list[jax.Array]
    labels: jax.Array | None
    params: Params
    stats: Params
    critic_params: Params


class _Networks(NamedTuple):
    """What is compiled for."""

    generator: Generator
    discriminator: Discriminator
    with_noise: bool
    steps: int


@jax.default_matmul_precision("highest")
def find_latent(
    sampler: Sampler,
    critic: Critic,
    target: np.ndarray,
    effort: Effort,
    *,
    seed: int = 0,
    label: np.ndarray | None = None,
    with_noise: bool = True,
    watch: Callable[[np.ndarray], None] = lambda image: None,
) -> Found:
    """The latent and noise inputs whose image comes closest to ``target`` (H, W, C) in [0, 1].

    Of many latents the nearest ones go on by gradient descent. Near is what the pixels say at all
    scales, and the features of the run's own discriminator, as in Deep Generative Prior (Pan et al.
    2020, arXiv:2003.13659).

    Args:
      sampler: what draws.
      critic: the discriminator that has learnt beside it.
      target: the image.
      effort: how long is searched.
      seed: of the latents that are tried first.
      label: weights (K,) of the image's label; by default that of each start.
      with_noise: whether the noise inputs are moved, too; else they are zero.
      watch: is shown the nearest image after every ``CHUNK`` steps, float32 (H, W, C).
    """
    networks = _Networks(sampler.generator, critic.discriminator, with_noise, effort.steps)
    images = jnp.asarray(target)[None]
    features = _features(critic.discriminator, critic.params, images)
    goal = _Goal(images, features, None, sampler.params, sampler.stats, critic.params)
    latents, labels = _starts(sampler, networks, goal, effort, seed=seed, label=label)
    goal = goal._replace(labels=labels)
    shapes = noise_shapes(sampler.generator.image_size)
    noise = tuple(jnp.zeros((len(latents), *shape, 1)) for shape in shapes)
    moved = _Moved(jnp.asarray(latents), noise)
    state = _optimizer(effort.steps).init(moved)
    for _ in range(0, effort.steps, CHUNK):
        moved, state, images = _descend(networks, goal, moved, state)
        images = np.asarray(images)
        errors = np.square(images.clip(0, 1) - target).mean((1, 2, 3))
        which = int(errors.argmin())
        watch(images[which])
    return Found(
        np.asarray(moved.latents[which]),
        tuple(np.asarray(each[which]) for each in moved.noise),
        None if labels is None else labels[which],
        images[which],
        float(-10 * np.log10(max(errors[which], 1e-10))),
    )


def _starts(
    sampler: Sampler,
    networks: _Networks,
    goal: _Goal,
    effort: Effort,
    *,
    seed: int,
    label: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The best of the candidates, and their labels, (starts, …) each."""
    latents = np.asarray(sampler.latents(seed, effort.candidates))
    labels = sampler.drawn_labels(Draws.of_seed(seed, effort.candidates))
    if label is not None:
        labels = np.broadcast_to(label, (effort.candidates, len(label)))
    drawn = batched(sampler.stream(latents, None, labels=labels), _BATCH)
    far = np.concatenate([_distance(networks, goal, np.stack(batch)) for batch in drawn])
    best = np.argsort(far)[: effort.starts]
    return latents[best], None if labels is None else labels[best]


def _optimizer(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, steps))


def _draw(networks: _Networks, goal: _Goal, moved: _Moved) -> jax.Array:
    variables = {"params": goal.params, "batch_stats": goal.stats}
    return networks.generator.apply(variables, *moved, goal.labels, train=False)


@functools.partial(jax.jit, static_argnums=0)
def _distance(networks: _Networks, goal: _Goal, images: jax.Array) -> jax.Array:
    """How far images (B, H, W, C) are from the target, (B,)."""
    features = _features(networks.discriminator, goal.critic_params, images)
    relative = [
        jnp.abs(b - a).mean((1, 2, 3)) / jnp.abs(a).mean()
        for a, b in zip(goal.features, features, strict=True)
    ]
    difference, scales = images - goal.target, []
    while min(difference.shape[1:3]) >= 4:
        scales.append(jnp.sqrt(jnp.square(difference).mean((1, 2, 3)) + 1e-8))
        difference = nn.avg_pool(difference, (2, 2), (2, 2))
    return sum(scales) / len(scales) + _FEATURES_WEIGHT * sum(relative) / len(relative)


@functools.partial(jax.jit, static_argnums=0)
def _features(discriminator: Discriminator, params: Params, images: jax.Array) -> list[jax.Array]:
    """What each block of the discriminator that halves images sees in them."""

    def halves(module: nn.Module, _: str) -> bool:
        return len(module.path) == 1 and module.path[0].startswith(("block_", "strided_"))

    labels = jnp.zeros((len(images), discriminator.num_labels))
    _, kept = discriminator.apply(
        {"params": params},
        images,
        jnp.int32(0),
        labels,
        capture_intermediates=halves,
        mutable=["intermediates"],
    )
    return jax.tree.leaves(kept)


@functools.partial(jax.jit, static_argnums=0)
def _descend(
    networks: _Networks, goal: _Goal, moved: _Moved, state: Any
) -> tuple[_Moved, Any, jax.Array]:
    """``CHUNK`` steps, and the images after them."""
    optimizer = _optimizer(networks.steps)
    dim = networks.generator.latent_dim

    def loss(moved: _Moved) -> jax.Array:
        return _distance(networks, goal, _draw(networks, goal, moved)).sum()

    def step(carry: Any, _: None) -> tuple[Any, None]:
        moved, state = carry
        gradients = jax.grad(loss)(moved)
        if not networks.with_noise:
            gradients = gradients._replace(noise=jax.tree.map(jnp.zeros_like, gradients.noise))
        updates, state = optimizer.update(gradients, state)
        moved = optax.apply_updates(moved, updates)
        lengths = jnp.linalg.norm(moved.latents, axis=1, keepdims=True)
        shorter = jnp.minimum(1, _LONGEST * jnp.sqrt(dim) / lengths)
        return (moved._replace(latents=moved.latents * shorter), state), None

    (moved, state), _ = jax.lax.scan(step, (moved, state), None, CHUNK)
    return moved, state, _draw(networks, goal, moved)
