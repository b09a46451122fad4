"""One update of both networks: a pure function of state and pictures, and its ``pmap``."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lwgan.augment import augment
from lwgan.keys import Draw, draw_latents, example_keys, step_key
from lwgan.losses import LOSSES, reconstruction, squared_gradient
from lwgan.models.discriminator import DiscriminatorOutput, take_quadrant
from lwgan.models.generator import draw_noise
from lwgan.state import AXIS, Gan, Params, TrainState

Terms = dict[str, jax.Array]  # weighted terms of a loss by name, float32 () each
Program = Callable[[TrainState, jax.Array], tuple[TrainState, Terms]]  # of one kind of step
Keys = Callable[[Draw, jax.Array], jax.Array]  # (purpose, micro-batch) -> keys (m,)

MATMUL_PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "highest"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All the settings that the step depends on, as plain values."""

    seed: int
    batch_size: int  # real pictures that the discriminator sees in one step, over all devices
    precision: str  # a name in MATMUL_PRECISIONS
    loss: str  # a name in LOSSES
    gp_weight: float
    gp_every: int  # steps
    aux_weight: float
    augment_types: tuple[str, ...]
    augment_prob: float
    augment_per_example: bool  # else one coin for the whole micro-batch, as in lightweight-gan
    hflip: bool
    ema_schedule: str  # a name in EMA_DECAYS
    ema_half_life: float  # pictures
    unroll: (
        bool  # micro-batches in line, for XLA's CPU convolutions crawl inside a loop (jax#12868)
    )


@dataclasses.dataclass(frozen=True)
class Update:
    """The training step ``(step, state, images) -> (state, metrics)``: one program for each kind of step.

    ``step`` counts updates from 1 and chooses the program: with the gradient penalty in every
    ``gp_every``-th step, the first included. ``images`` are uint8 (devices, R, A, m, H, W, C): R = 2
    batches where the generator's loss reads reals of its own, else 1; A micro-batches; m pictures. The
    state is whole on each device, and its buffers are donated.
    """

    plain: Program
    penalized: Program
    gp_every: int  # steps; 0: no step has the penalty

    def __call__(self, step: int, state: TrainState, images: jax.Array) -> tuple[TrainState, Terms]:
        with_penalty = self.gp_every and (step - 1) % self.gp_every == 0
        return (self.penalized if with_penalty else self.plain)(state, images)

    def programs(self) -> dict[str, tuple[Program, float]]:
        """Those that training runs, by name, each with its share of the steps; the first step's first."""
        share = 1 / self.gp_every if self.gp_every else 0.0
        both = {"penalized": (self.penalized, share), "plain": (self.plain, 1 - share)}
        return {name: program for name, program in both.items() if program[1] > 0}


def make_update(gan: Gan, recipe: Recipe) -> Update:
    """The training step, compiled when it is first called."""

    def compiled(with_penalty: bool) -> Program:
        body = functools.partial(update, gan, recipe, with_penalty)
        return jax.pmap(body, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0)

    gp_every = recipe.gp_every if recipe.gp_weight > 0 else 0
    return Update(compiled(False), compiled(True), gp_every)


def update(
    gan: Gan, recipe: Recipe, with_penalty: bool, state: TrainState, images: jax.Array
) -> tuple[TrainState, Terms]:
    """One step on one device's share of the pictures, uint8 (R, A, m, H, W, C).

    Knows other devices only by the name of their axis. Metrics are float32 () under ``d/`` and ``g/``.
    """
    with jax.default_matmul_precision(MATMUL_PRECISIONS[recipe.precision]):
        images = images.astype(jnp.float32) / 255
        keys = functools.partial(_keys, recipe, state, images.shape[2])
        coins = (
            keys if recipe.augment_per_example else functools.partial(_coin, recipe, state, images)
        )
        state, d_terms = discriminator_step(
            gan, recipe, state, images[0], keys, coins, with_penalty
        )
        state, g_terms = generator_step(gan, recipe, state, images[-1], keys, coins)
        state = average(recipe, state)
    terms = {f"d/{name}": term for name, term in d_terms.items()}
    terms |= {f"g/{name}": term for name, term in g_terms.items()}
    return state.replace(step=state.step + 1), jax.lax.pmean(terms, AXIS)


def discriminator_step(
    gan: Gan,
    recipe: Recipe,
    state: TrainState,
    real: jax.Array,
    keys: Keys,
    coins: Keys,
    with_penalty: bool,
) -> tuple[TrainState, Terms]:
    """Updates the discriminator on reals float32 (A, m, H, W, C) and as many fakes.

    The penalty is on the squared gradient with respect to the raw reals, through their augmentation,
    and to the augmented fakes, as in lightweight-gan.
    """
    loss = LOSSES[recipe.loss]
    # The penalty needs float32, and its gradients share their forward pass with the losses.
    network = gan.discriminator.clone(dtype=jnp.float32) if with_penalty else gan.discriminator

    def micro_batch(params: Params, g_stats: Params, micro: jax.Array, images: jax.Array):
        latent_keys, noise_keys = keys(Draw.D_LATENTS, micro), keys(Draw.D_NOISE, micro)
        fake, g_stats = generate(gan, state.g_params, g_stats, latent_keys, noise_keys)
        fake_keys, fake_coins = keys(Draw.D_FAKE_AUGMENT, micro), coins(Draw.D_FAKE_COIN, micro)
        fake = jax.lax.stop_gradient(view(recipe, fake, fake_keys, fake_coins, real=False))
        real_keys, real_coins = keys(Draw.D_REAL_AUGMENT, micro), coins(Draw.D_REAL_COIN, micro)
        quadrant_key = example_keys(_step_key(recipe, state), Draw.D_QUADRANT, micro.reshape(1))[0]
        quadrant = jax.random.randint(quadrant_key, (), 0, 4)

        def scored(seen: jax.Array, raw: bool):
            if raw:
                seen = view(recipe, seen, real_keys, real_coins, real=True)
            output = network.apply({"params": params}, seen, quadrant)
            return output.logits.sum() + output.side_logits.sum(), (output, seen)

        if with_penalty:
            differentiated = jax.grad(scored, has_aux=True)
            real_gradient, (real_output, seen) = differentiated(images, True)
            fake_gradient, (fake_output, _) = differentiated(fake, False)
        else:
            _, (real_output, seen) = scored(images, True)
            _, (fake_output, _) = scored(fake, False)

        terms = adversarial_terms(loss.discriminator, real_output, fake_output)
        if recipe.aux_weight > 0:
            painted = reconstruction(seen, real_output.painted)
            if real_output.painted_quadrant is not None:
                painted += reconstruction(
                    take_quadrant(seen, quadrant), real_output.painted_quadrant
                )
            terms["reconstruction"] = recipe.aux_weight * painted
        if with_penalty:
            both = squared_gradient(real_gradient) + squared_gradient(fake_gradient)
            terms["penalty"] = recipe.gp_weight * both / 2
        return terms, g_stats

    grads, terms, g_stats = accumulate(
        micro_batch, state.d_params, state.g_stats, real, unroll=recipe.unroll
    )
    d_params, d_opt = apply_updates(gan.d_tx, grads, state.d_opt, state.d_params)
    return state.replace(d_params=d_params, d_opt=d_opt, g_stats=g_stats), terms


def generator_step(
    gan: Gan, recipe: Recipe, state: TrainState, real: jax.Array, keys: Keys, coins: Keys
) -> tuple[TrainState, Terms]:
    """Updates the generator on fresh fakes; reals (A, m, H, W, C) serve losses that read them."""
    loss = LOSSES[recipe.loss]

    def micro_batch(params: Params, g_stats: Params, micro: jax.Array, images: jax.Array):
        latent_keys, noise_keys = keys(Draw.G_LATENTS, micro), keys(Draw.G_NOISE, micro)
        fake, g_stats = generate(gan, params, g_stats, latent_keys, noise_keys)

        def judge(pictures: jax.Array) -> DiscriminatorOutput:
            return gan.discriminator.apply({"params": state.d_params}, pictures, jnp.int32(0))

        fake_keys, fake_coins = keys(Draw.G_FAKE_AUGMENT, micro), coins(Draw.G_FAKE_COIN, micro)
        fake_output = judge(view(recipe, fake, fake_keys, fake_coins, real=False))
        real_output = None
        if loss.generator_needs_reals:
            real_keys, real_coins = keys(Draw.G_REAL_AUGMENT, micro), coins(Draw.G_REAL_COIN, micro)
            real_output = judge(view(recipe, images, real_keys, real_coins, real=True))
        return adversarial_terms(loss.generator, real_output, fake_output), g_stats

    grads, terms, g_stats = accumulate(
        micro_batch, state.g_params, state.g_stats, real, unroll=recipe.unroll
    )
    g_params, g_opt = apply_updates(gan.g_tx, grads, state.g_opt, state.g_params)
    return state.replace(g_params=g_params, g_opt=g_opt, g_stats=g_stats), terms


def accumulate(
    micro_batch: Callable[[Params, Params, jax.Array, jax.Array], tuple[Terms, Params]],
    params: Params,
    stats: Params,
    images: jax.Array,
    *,
    unroll: bool,
) -> tuple[Params, Terms, Params]:
    """Means of gradients and terms over micro-batches of ``images`` (A, m, …).

    ``micro_batch(params, stats, index, images) -> (terms, stats)``; the loss is the sum of its terms,
    and the statistics go from each micro-batch to the next.
    """
    count = images.shape[0]

    def loss_fn(params: Params, stats: Params, micro: jax.Array, images: jax.Array):
        terms, stats = micro_batch(params, stats, micro, images)
        return sum(terms.values()), (terms, stats)

    def body(carry: tuple[Params, Params], micro_and_images: tuple[jax.Array, jax.Array]):
        total, stats = carry
        grads, (terms, stats) = jax.grad(loss_fn, has_aux=True)(params, stats, *micro_and_images)
        return (jax.tree.map(jnp.add, total, grads), stats), terms

    zeros = jax.tree.map(jnp.zeros_like, params)
    scan = _unrolled_scan if unroll else jax.lax.scan
    (total, stats), terms = scan(body, (zeros, stats), (jnp.arange(count), images))
    return (
        jax.tree.map(lambda grad: grad / count, total),
        {name: term.mean() for name, term in terms.items()},
        stats,
    )


def apply_updates(
    tx: optax.GradientTransformation, grads: Params, opt: optax.OptState, params: Params
) -> tuple[Params, optax.OptState]:
    """New parameters and optimizer state from the gradients' mean over devices."""
    updates, opt = tx.update(jax.lax.pmean(grads, AXIS), opt, params)
    return optax.apply_updates(params, updates), opt


def generate(
    gan: Gan, params: Params, stats: Params, latent_keys: jax.Array, noise_keys: jax.Array
) -> tuple[jax.Array, Params]:
    """Fakes (m, H, W, C) of the generator in training mode, and its new statistics."""
    latents = draw_latents(latent_keys, gan.generator.latent_dim)
    noise = draw_noise(noise_keys, gan.generator.image_size)
    fake, changed = gan.generator.apply(
        {"params": params, "batch_stats": stats},
        latents,
        noise,
        train=True,
        mutable=["batch_stats"],
    )
    return fake, changed["batch_stats"]


def view(
    recipe: Recipe, images: jax.Array, keys: jax.Array, coin_keys: jax.Array, *, real: bool
) -> jax.Array:
    """Pictures as the discriminator sees them; fakes are flipped only where lightweight-gan does so."""
    return augment(
        images,
        keys,
        coin_keys,
        types=recipe.augment_types,
        prob=recipe.augment_prob,
        hflip=recipe.hflip and (real or not recipe.augment_per_example),
        flip_unaugmented=recipe.augment_per_example,
    )


def adversarial_terms(
    loss: Callable[[jax.Array | None, jax.Array], jax.Array],
    real: DiscriminatorOutput | None,
    fake: DiscriminatorOutput,
) -> Terms:
    """The loss of the main logits and of the 32 px head's, over the micro-batch of all devices."""

    def whole(logits: jax.Array) -> jax.Array:
        return jax.lax.all_gather(logits, AXIS, tiled=True)

    return {
        "adversarial": loss(real and whole(real.logits), whole(fake.logits)),
        "side": loss(real and whole(real.side_logits), whole(fake.side_logits)),
    }


def average(recipe: Recipe, state: TrainState) -> TrainState:
    """Moves the averaged generator towards the live one, parameters and statistics."""
    decay = EMA_DECAYS[recipe.ema_schedule](state.step, recipe.batch_size, recipe.ema_half_life)

    def mix(old: Params, new: Params) -> Params:
        return jax.tree.map(lambda o, n: o * decay + n * (1 - decay), old, new)

    return state.replace(
        ema_params=mix(state.ema_params, state.g_params),
        ema_stats=mix(state.ema_stats, state.g_stats),
    )


def ramp_decay(finished: jax.Array, batch_size: int, half_life: float) -> jax.Array:
    """Decay of a half-life that grows to ``half_life`` pictures, a twentieth of those seen before.

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


def _unrolled_scan(body: Callable, carry: Params, xs: Params) -> tuple[Params, Params]:
    """``jax.lax.scan`` as straight code; its own ``unroll`` keeps a loop round a single turn."""
    outputs = []
    for turn in range(len(jax.tree.leaves(xs)[0])):
        carry, output = body(carry, jax.tree.map(lambda x, turn=turn: x[turn], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def _step_key(recipe: Recipe, state: TrainState) -> jax.Array:
    return step_key(recipe.seed, state.recoveries, state.step)


def _keys(recipe: Recipe, state: TrainState, size: int, draw: Draw, micro: jax.Array) -> jax.Array:
    """A key (m,) for each example of this device's micro-batch, by its index in the whole batch.

    The whole batch is laid out as (micro-batches, devices, m), so the index does not depend on the
    number of devices.
    """
    devices = jax.lax.psum(1, AXIS)
    first = (micro * devices + jax.lax.axis_index(AXIS)) * size
    return example_keys(_step_key(recipe, state), draw, first + jnp.arange(size))


def _coin(
    recipe: Recipe, state: TrainState, images: jax.Array, draw: Draw, micro: jax.Array
) -> jax.Array:
    """One key for the whole micro-batch, (m,) times the same."""
    return example_keys(_step_key(recipe, state), draw, jnp.full(images.shape[2], micro))
