"""The networks with their optimizers, and the state that training changes."""

import dataclasses
import itertools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from lwgan.keys import Draw, draw_latents, example_keys, seed_key
from lwgan.models.build import COMPUTE_DTYPES, Params, build_discriminator, build_generator
from lwgan.models.discriminator import blocks
from lwgan.models.generator import draw_noise
from lwgan.models.placement import whole_here
from lwgan.settings.shapes import shape_of
from lwgan.training.augment import Adaptive
from lwgan.training.devices import precision_of
from lwgan.training.optimizers import OPTIMIZERS, freezing


@dataclasses.dataclass(frozen=True)
class Gan:
    """What never changes in a run: both networks and their optimizers."""

    generator: nn.Module
    discriminator: nn.Module
    g_tx: optax.GradientTransformation
    d_tx: optax.GradientTransformation
    # The probability of augmentation before the first step, if it is adaptive.
    first_prob: float | None = None


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; saving it saves the run. Arrays only."""

    # int32 (), finished updates.
    step: jax.Array
    # int32 (), times that training went back from a non-finite loss.
    recoveries: jax.Array
    g_params: Params
    # Running statistics of the generator's batch normalisation.
    g_stats: Params
    d_params: Params
    # The EMA generator …
    ema_params: Params
    # … and its statistics.
    ema_stats: Params
    g_opt: optax.OptState
    d_opt: optax.OptState
    # None where the probability of augmentation stays.
    adaptive: Adaptive | None = None


def build_gan(config: ConfigDict) -> Gan:
    """The networks and optimizers that the settings describe."""
    dtype = COMPUTE_DTYPES[precision_of(config)]
    optim = config.optim
    optimizer = OPTIMIZERS[optim.name]
    frozen = itertools.chain(*blocks(config.data.image_size)[: optim.freeze_d])
    d_optimizer = optimizer(optim.learning_rate * optim.ttur_mult, optim.b1, optim.b2)
    return Gan(
        build_generator(config, dtype),
        build_discriminator(config, dtype),
        optimizer(optim.learning_rate, optim.b1, optim.b2),
        freezing(d_optimizer, set(frozen)),
        max(0.0, config.augment.prob) if config.augment.target else None,
    )


def init_state(gan: Gan, seed: int) -> TrainState:
    """The state before the first step, on the default device."""
    generator, root = gan.generator, seed_key(seed)
    keys = example_keys(root, Draw.INIT_GENERATOR, jnp.arange(2))
    latents = draw_latents(keys, generator.latent_dim)
    g_variables = generator.init(
        keys[0],
        latents,
        draw_noise(keys, generator.image_size),
        generator.any_labels(2),
        train=True,
    )
    images = jnp.zeros((1, *shape_of(generator.image_size), generator.channels))
    d_key = jax.random.fold_in(root, Draw.INIT_DISCRIMINATOR)
    d_params = gan.discriminator.init(d_key, images, jnp.int32(0), generator.any_labels(1))[
        "params"
    ]
    return new_state(gan, g_variables, g_variables, d_params, step=0)


def first_state(gan: Gan, seed: int) -> TrainState:
    """``init_state``, compiled on a CPU with few of LLVM's optimizations: in half of the time."""
    few = {"xla_backend_optimization_level": 1}
    options = few if jax.default_backend() == "cpu" else None
    return jax.jit(lambda: init_state(gan, seed), compiler_options=options)()


def new_state(
    gan: Gan, generator: Params, ema_generator: Params, d_params: Params, *, step: int
) -> TrainState:
    """A state of these weights, with optimizers that have seen nothing.

    Both generators are the collections ``params`` and ``batch_stats``.
    """
    g_params = generator["params"]
    return TrainState(
        step=jnp.int32(step),
        recoveries=jnp.int32(0),
        g_params=g_params,
        g_stats=generator["batch_stats"],
        d_params=d_params,
        # Copies: the step donates its buffers, and refuses the same one twice.
        ema_params=jax.tree.map(jnp.copy, ema_generator["params"]),
        ema_stats=jax.tree.map(jnp.copy, ema_generator["batch_stats"]),
        g_opt=gan.g_tx.init(g_params),
        d_opt=gan.d_tx.init(d_params),
        adaptive=None if gan.first_prob is None else Adaptive.start(gan.first_prob),
    )


def on_devices(state: TrainState) -> TrainState:
    """The state replicated over this process's devices, laid out as the step returns it.

    With another layout the first two steps would each compile the program anew.
    """
    return jax.device_put(state, whole_here())


def state_shapes(gan: Gan) -> TrainState:
    """Shapes of the state as ``on_devices`` lays it out; nothing is computed."""
    shapes = jax.eval_shape(lambda: init_state(gan, 0))
    return jax.tree.map(lambda leaf: leaf.update(sharding=whole_here()), shapes)
