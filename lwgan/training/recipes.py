"""From settings to what the step takes: its recipe, and how its images are laid out."""

import jax
import numpy as np
from ml_collections import ConfigDict

from lwgan.data.batches import Layout
from lwgan.models.build import CHANNELS
from lwgan.training.augment import prob_for
from lwgan.training.devices import precision_of
from lwgan.training.losses import LOSSES
from lwgan.training.step import Recipe


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
        augment_per_example=config.augment.per_example,
        hflip=config.augment.hflip,
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


def images_shape(config: ConfigDict) -> jax.ShapeDtypeStruct:
    """Of the images that this process hands to a step: uint8 (devices, R, A, m, H, W, C)."""
    side, channels = config.data.image_size, CHANNELS[config.data.mode]
    of_all = layout_of(config).positions(0).shape
    return jax.ShapeDtypeStruct(
        (jax.local_device_count(), *of_all[1:], side, side, channels), np.uint8
    )
