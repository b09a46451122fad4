"""From settings to networks: the only place of this room that knows settings."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lwgan.models.discriminator import Discriminator
from lwgan.models.generator import Generator, draw_noise
from lwgan.models.placement import AXIS
from lwgan.settings.shapes import shape_of

# A tree of float32 arrays.
Params = Any

# Of the images, by ``data.mode``.
CHANNELS = {"rgb": 3, "rgba": 4, "grey": 1}
COMPUTE_DTYPES = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_generator(config: ConfigDict, dtype: jnp.dtype = jnp.float32) -> Generator:
    """The generator that the settings describe."""
    model = config.model
    return Generator(
        image_size=config.data.image_size,
        channels=CHANNELS[config.data.mode],
        latent_dim=model.latent_dim,
        fmap_max=model.fmap_max,
        fmap_inverse_coef=model.fmap_inverse_coef,
        min_channels=model.min_channels,
        attn_resolutions=tuple(model.attn_resolutions),
        attn_heads=model.attn_heads,
        attn_head_dim=model.attn_head_dim,
        freq_chan_attn=model.freq_chan_attn,
        antialias=model.antialias,
        icnr_init=model.icnr_init,
        output=model.output,
        num_labels=len(config.data.label_names),
        remat=model.remat,
        axis_name=AXIS,
        dtype=dtype,
    )


def build_discriminator(config: ConfigDict, dtype: jnp.dtype = jnp.float32) -> Discriminator:
    """The discriminator that the settings describe."""
    model = config.model
    own_coef = model.disc_fmap_inverse_coef
    return Discriminator(
        fmap_max=model.fmap_max,
        fmap_inverse_coef=own_coef if own_coef >= 0 else model.fmap_inverse_coef,
        attn_resolutions=tuple(model.attn_resolutions),
        attn_heads=model.attn_heads,
        attn_head_dim=model.attn_head_dim,
        antialias=model.antialias,
        icnr_init=model.icnr_init,
        output_size=model.disc_output_size,
        side_channels=model.side_channels or 64,
        side_attention=model.side_attention,
        recon_size=model.recon_size,
        num_labels=len(config.data.label_names),
        remat=model.remat,
        dtype=dtype,
    )


def generator_shapes(generator: Generator) -> Params:
    """Shapes of the generator's collections ``params`` and ``batch_stats``; nothing is computed."""

    def init(key: jax.Array) -> Params:
        latents = jnp.zeros((1, generator.latent_dim))
        noise = draw_noise(key[None], generator.image_size)
        return generator.init(key, latents, noise, generator.any_labels(1), train=False)

    return jax.eval_shape(init, jax.random.key(0))


def discriminator_shapes(
    discriminator: Discriminator, image_size: int | str, channels: int
) -> Params:
    """Shapes of the discriminator's ``params`` for such images; nothing is computed."""

    def init(key: jax.Array) -> Params:
        images = jnp.zeros((1, *shape_of(image_size), channels))
        labels = jnp.zeros((1, discriminator.num_labels))
        return discriminator.init(key, images, jnp.int32(0), labels)["params"]

    return jax.eval_shape(init, jax.random.key(0))
