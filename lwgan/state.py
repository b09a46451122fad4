"""What never changes in a run, and what does."""

import dataclasses
import itertools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from lwgan.keys import Draw, draw_latents, example_keys, seed_key
from lwgan.models.discriminator import Discriminator, blocks
from lwgan.models.generator import Generator, draw_noise
from lwgan.optimizers import OPTIMIZERS, freezing

Params = Any  # a tree of float32 arrays

AXIS = "batch"  # the name of the axis over devices
CHANNELS = {"rgb": 3, "rgba": 4, "grey": 1}
COMPUTE_DTYPES = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Gan:
    """What never changes in a run: both networks and their optimizers."""

    generator: nn.Module
    discriminator: nn.Module
    g_tx: optax.GradientTransformation
    d_tx: optax.GradientTransformation


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; saving it saves the run. Arrays only."""

    step: jax.Array  # int32 (), finished updates
    recoveries: jax.Array  # int32 (), times that training went back from a non-finite loss
    g_params: Params
    g_stats: Params  # running statistics of the generator's batch normalisation
    d_params: Params
    ema_params: Params  # the averaged generator …
    ema_stats: Params  # … and its statistics
    g_opt: optax.OptState
    d_opt: optax.OptState


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
        dtype=dtype,
    )


def build(config: ConfigDict) -> Gan:
    """The networks and optimizers that the settings describe."""
    dtype = COMPUTE_DTYPES[config.train.precision]
    optim = config.optim
    optimizer = OPTIMIZERS[optim.name]
    frozen = itertools.chain(*blocks(config.data.image_size)[: optim.freeze_d])
    d_optimizer = optimizer(optim.learning_rate * optim.ttur_mult, optim.b1, optim.b2)
    return Gan(
        build_generator(config, dtype),
        build_discriminator(config, dtype),
        optimizer(optim.learning_rate, optim.b1, optim.b2),
        freezing(d_optimizer, set(frozen)),
    )


def init_state(gan: Gan, seed: int) -> TrainState:
    """The state before the first step, on the default device."""
    generator, root = gan.generator, seed_key(seed)
    keys = example_keys(root, Draw.INIT_GENERATOR, jnp.arange(2))
    latents = draw_latents(keys, generator.latent_dim)
    g_variables = generator.init(
        keys[0], latents, draw_noise(keys, generator.image_size), train=True
    )
    images = jnp.zeros((1, generator.image_size, generator.image_size, generator.channels))
    d_key = jax.random.fold_in(root, Draw.INIT_DISCRIMINATOR)
    d_params = gan.discriminator.init(d_key, images, jnp.int32(0))["params"]
    g_params, g_stats = g_variables["params"], g_variables["batch_stats"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        recoveries=jnp.zeros((), jnp.int32),
        g_params=g_params,
        g_stats=g_stats,
        d_params=d_params,
        # Copies: the step donates its buffers, and refuses the same one twice.
        ema_params=jax.tree.map(jnp.copy, g_params),
        ema_stats=jax.tree.map(jnp.copy, g_stats),
        g_opt=gan.g_tx.init(g_params),
        d_opt=gan.d_tx.init(d_params),
    )


def on_devices(state: TrainState) -> TrainState:
    """The state replicated over this process's devices, laid out as the step returns it.

    With another layout the first two steps would each compile the program anew.
    """
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
