"""From settings to what the step takes: its recipe, and how its images are laid out."""

import dataclasses
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lwgan.data.batches import Labelled, Layout
from lwgan.models.build import CHANNELS
from lwgan.settings.shapes import shape_of
from lwgan.training.augment import prob_for
from lwgan.training.devices import precision_of
from lwgan.training.losses import LOSSES
from lwgan.training.optimizers import rate_factor


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All the settings that the step depends on, as plain values."""

    seed: int
    # Real images that the discriminator sees in one step, over all devices.
    batch_size: int
    # A name in step.MATMUL_PRECISIONS.
    precision: str
    # A name in LOSSES.
    loss: str
    gp_weight: float
    # Steps.
    gp_every: int
    aux_weight: float
    augment_types: tuple[str, ...]
    augment_prob: float | jax.Array
    # Of the adaptive probability: the reals' mean sign, and images in which it may go from 0 to 1.
    augment_target: float
    augment_adapt_over: float
    # Else one coin for the whole micro-batch, as in lightweight-gan.
    augment_per_example: bool
    hflip: bool
    # Steps: of the whole run, and of the warm-up of the learning rates.
    num_steps: int
    warmup: int
    # Share of the run in which they fall.
    decay: float
    # A name in EMA_DECAYS.
    ema_schedule: str
    # Images.
    ema_half_life: float
    # Micro-batches in line, for XLA's CPU convolutions crawl inside a loop (jax#12868).
    unroll: bool

    def rate(self, finished: jax.Array) -> jax.Array | float:
        """What the learning rates are multiplied by after so many updates: int32 ()."""
        return rate_factor(finished, self.num_steps, self.warmup, self.decay)


def recipe_of(config: ConfigDict, num_images: int) -> Recipe:
    """What the step needs of the settings, and of how many images are trained with."""
    prob = config.augment.prob
    return Recipe(
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        precision=precision_of(config),
        loss=config.loss.kind,
        gp_weight=config.loss.gp_weight,
        gp_every=config.loss.gp_every,
        aux_weight=config.loss.aux_weight,
        augment_types=tuple(config.augment.types),
        augment_prob=prob if prob >= 0 else prob_for(num_images),
        augment_target=config.augment.target,
        augment_adapt_over=1000 * config.augment.adapt_over,
        augment_per_example=config.augment.per_example,
        hflip=config.augment.hflip,
        num_steps=config.train.num_steps,
        warmup=config.optim.warmup,
        decay=config.optim.decay,
        ema_schedule=config.ema.schedule,
        ema_half_life=1000 * config.ema.half_life,
        unroll=jax.default_backend() == "cpu" or config.train.grad_accum == 1,
    )


def layout_of(config: ConfigDict) -> Layout:
    """How the images of a step are divided over batches, micro-batches and devices."""
    return Layout(
        batches=1 + LOSSES[config.loss.kind].generator_needs_reals,
        batch_size=config.train.batch_size,
        grad_accum=config.train.grad_accum,
        devices=jax.device_count(),
    )


def images_shape(config: ConfigDict) -> Any:
    """Of what this process hands to a step: uint8 (devices, R, A, m, H, W, C), or ``Labelled``."""
    shape = (*shape_of(config.data.image_size), CHANNELS[config.data.mode])
    places = (jax.local_device_count(), *layout_of(config).positions(0).shape[1:])
    images = jax.ShapeDtypeStruct((*places, *shape), np.uint8)
    if config.data.label_names:
        return Labelled(images, jax.ShapeDtypeStruct(places, np.int32))
    return images
