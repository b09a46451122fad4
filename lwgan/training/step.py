"""One update of both networks: a pure function of state and images, and its ``pmap``."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lwgan.data.batches import Labelled
from lwgan.keys import Draw, draw_latents, example_keys, step_key
from lwgan.models.build import Params
from lwgan.models.discriminator import DiscriminatorOutput
from lwgan.models.generator import draw_noise
from lwgan.models.placement import AXIS
from lwgan.training.augment import adapt, augment_images
from lwgan.training.ema import EMA_DECAYS, mix
from lwgan.training.gradients import Outcome, Terms, accumulate, apply_updates
from lwgan.training.judging import adversarial_terms, judge_images, mean_signs, painted_error
from lwgan.training.losses import LOSSES, gradient_penalty
from lwgan.training.recipes import Recipe
from lwgan.training.state import Gan, TrainState

# The compiled update of one kind of step: of the state, the images and ``augment_prob``.
Program = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Terms]]

MATMUL_PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "highest"}


@dataclasses.dataclass(frozen=True)
class Update:
    """The step ``(step, state, images) -> (state, metrics)``: one program for each kind of step.

    ``step`` counts updates from 1 and chooses the program: with the gradient penalty in every
    ``gp_every``-th step, the first included. ``images`` are uint8 (devices, R, A, m, H, W, C): R =
    2 batches where the generator's loss reads reals of its own, else 1; A micro-batches; m images;
    or they are ``Labelled``.
    The state is whole on each device, and its buffers are donated.
    """

    plain: Program
    penalized: Program
    # Steps; 0: no step has the penalty.
    gp_every: int
    # float32 (); no part of the programs, for it changes with the number of images.
    augment_prob: np.float32

    def __call__(self, step: int, state: TrainState, images: jax.Array) -> tuple[TrainState, Terms]:
        with_penalty = self.gp_every and (step - 1) % self.gp_every == 0
        program = self.penalized if with_penalty else self.plain
        return program(state, images, self.augment_prob)

    def programs(self) -> dict[str, tuple[Program, float]]:
        """Those that training runs, by name, with their shares of the steps, in their order."""
        share = 1 / self.gp_every if self.gp_every else 0.0
        both = {"penalized": (self.penalized, share), "plain": (self.plain, 1 - share)}
        return {name: program for name, program in both.items() if program[1] > 0}


def make_update(gan: Gan, recipe: Recipe) -> Update:
    """The training step, compiled when it is first called."""

    def compiled(with_penalty: bool) -> Program:
        def body(state: TrainState, images: jax.Array, prob: jax.Array) -> tuple[TrainState, Terms]:
            own = dataclasses.replace(recipe, augment_prob=prob)
            return update_networks(gan, own, with_penalty, state, images)

        return jax.pmap(
            body, AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0
        )

    gp_every = recipe.gp_every if recipe.gp_weight > 0 else 0
    return Update(compiled(False), compiled(True), gp_every, np.float32(recipe.augment_prob))


def update_networks(
    gan: Gan, recipe: Recipe, with_penalty: bool, state: TrainState, images: jax.Array
) -> tuple[TrainState, Terms]:
    """One step on one device's share of the images, uint8 (R, A, m, H, W, C) or ``Labelled``.

    Knows other devices only by the name of their axis. Metrics are float32 () under ``d/`` and
    ``g/``.
    """
    with jax.default_matmul_precision(MATMUL_PRECISIONS[recipe.precision]):
        batches = Reals.of(images, gan.generator.num_labels)
        keys = StepKeys.of(recipe, state, batches.images.shape[2])
        if state.adaptive is not None:
            recipe = dataclasses.replace(recipe, augment_prob=state.adaptive.prob)
        state, d_terms = discriminator_step(
            gan, recipe, state, batches.batch(0), keys, with_penalty=with_penalty
        )
        state, g_terms = generator_step(gan, recipe, state, batches.batch(-1), keys)
        state = average_generator(recipe, state)
    terms = {f"d/{name}": term for name, term in d_terms.items()}
    terms |= {f"g/{name}": term for name, term in g_terms.items()}
    terms = jax.lax.pmean(terms, AXIS)
    if state.adaptive is not None:
        pace = recipe.batch_size / recipe.augment_adapt_over
        adaptive = adapt(state.adaptive, terms["d/sign_of_reals"], recipe.augment_target, pace)
        state = state.replace(adaptive=adaptive)
        terms["d/augment_prob"] = adaptive.prob
    return state.replace(step=state.step + 1), terms


class Reals(NamedTuple):
    """Real images with their labels."""

    # float32 (…, H, W, C).
    images: jax.Array
    # float32 (…, K); None without labels.
    labels: jax.Array | None

    @classmethod
    def of(cls, images: jax.Array | Labelled, num_labels: int) -> "Reals":
        """From what the data pipeline hands over."""
        labels = None
        if isinstance(images, Labelled):
            images, labels = images.images, jax.nn.one_hot(images.labels, num_labels)
        return cls(images.astype(jnp.float32) / 255, labels)

    def batch(self, index: int) -> "Reals":
        """One of the batches of a step."""
        return jax.tree.map(lambda each: each[index], self)


@dataclasses.dataclass(frozen=True)
class StepKeys:
    """The keys of one step for one device's share of the images, by what they are for."""

    # Of the step: a key ().
    key: jax.Array
    # Images of a micro-batch on this device: m.
    size: int
    # Whether each image has a coin of its own.
    coin_per_example: bool

    @classmethod
    def of(cls, recipe: Recipe, state: TrainState, size: int) -> "StepKeys":
        """Those of the step that the state stands before."""
        key = step_key(recipe.seed, state.recoveries, state.step)
        return cls(key, size, recipe.augment_per_example)

    def of_examples(self, draw: Draw, micro: jax.Array) -> jax.Array:
        """A key (m,) for each example of a micro-batch, by its index in the whole batch.

        The whole batch is laid out as (micro-batches, devices, m), so the index does not depend on
        the number of devices.
        """
        devices = jax.lax.psum(1, AXIS)
        first = (micro * devices + jax.lax.axis_index(AXIS)) * self.size
        return example_keys(self.key, draw, first + jnp.arange(self.size))

    def of_coins(self, draw: Draw, micro: jax.Array) -> jax.Array:
        """Keys (m,) for whether to augment: of each example, or m times the micro-batch's own."""
        if self.coin_per_example:
            return self.of_examples(draw, micro)
        return example_keys(self.key, draw, jnp.full(self.size, micro))

    def of_micro_batch(self, draw: Draw, micro: jax.Array) -> jax.Array:
        """The key () of a micro-batch, the same on all devices."""
        return example_keys(self.key, draw, micro.reshape(1))[0]


def discriminator_step(
    gan: Gan,
    recipe: Recipe,
    state: TrainState,
    real: Reals,
    keys: StepKeys,
    *,
    with_penalty: bool,
) -> tuple[TrainState, Terms]:
    """Updates the discriminator on reals (A, m, H, W, C) and as many fakes of the same labels.

    The penalty is on the squared gradient with respect to the raw reals, through their
    augmentation, and to the augmented fakes, as in lightweight-gan.
    """
    loss = LOSSES[recipe.loss]

    def micro_batch(params: Params, g_stats: Params, micro: jax.Array, real: Reals):
        latent_keys = keys.of_examples(Draw.D_LATENTS, micro)
        noise_keys = keys.of_examples(Draw.D_NOISE, micro)
        fake, g_stats = generate_fakes(
            gan, state.g_params, g_stats, latent_keys, noise_keys, labels=real.labels
        )
        fake_keys = keys.of_examples(Draw.D_FAKE_AUGMENT, micro)
        fake_coins = keys.of_coins(Draw.D_FAKE_COIN, micro)
        fake = jax.lax.stop_gradient(view(recipe, fake, fake_keys, fake_coins, real=False))
        real_keys = keys.of_examples(Draw.D_REAL_AUGMENT, micro)
        real_coins = keys.of_coins(Draw.D_REAL_COIN, micro)
        look = functools.partial(view, recipe, keys=real_keys, coin_keys=real_coins, real=True)
        quadrant = jax.random.randint(keys.of_micro_batch(Draw.D_QUADRANT, micro), (), 0, 4)

        network = gan.discriminator
        judge = functools.partial(judge_images, network, params, quadrant, labels=real.labels)
        judged_real = judge(real.images, look, with_gradient=with_penalty)
        judged_fake = judge(fake, lambda images: images, with_gradient=with_penalty)
        terms = adversarial_terms(loss.discriminator, judged_real.output, judged_fake.output)
        if recipe.aux_weight > 0:
            terms["reconstruction"] = recipe.aux_weight * painted_error(judged_real, quadrant)
        if with_penalty:
            penalty = gradient_penalty(judged_real.gradient, judged_fake.gradient)
            terms["penalty"] = recipe.gp_weight * penalty
        signs = mean_signs(loss, judged_real.output.logits, judged_fake.output.logits)
        return Outcome(terms, signs, g_stats)

    grads, terms, g_stats = accumulate(
        micro_batch, state.d_params, state.g_stats, real, unroll=recipe.unroll
    )
    d_params, d_opt, terms["grad_norm"] = apply_updates(
        gan.d_tx, grads, state.d_opt, state.d_params, recipe.rate(state.step)
    )
    return state.replace(d_params=d_params, d_opt=d_opt, g_stats=g_stats), terms


def generator_step(
    gan: Gan, recipe: Recipe, state: TrainState, real: Reals, keys: StepKeys
) -> tuple[TrainState, Terms]:
    """Updates the generator on fresh fakes of the labels of reals (A, m, H, W, C).

    The images of the reals serve losses that read them.
    """
    loss = LOSSES[recipe.loss]

    def micro_batch(params: Params, g_stats: Params, micro: jax.Array, real: Reals):
        def judge(images: jax.Array) -> DiscriminatorOutput:
            own = {"params": state.d_params}
            return gan.discriminator.apply(own, images, jnp.int32(0), real.labels)

        latent_keys = keys.of_examples(Draw.G_LATENTS, micro)
        noise_keys = keys.of_examples(Draw.G_NOISE, micro)
        fake, g_stats = generate_fakes(
            gan, params, g_stats, latent_keys, noise_keys, labels=real.labels
        )
        fake_keys = keys.of_examples(Draw.G_FAKE_AUGMENT, micro)
        fake_coins = keys.of_coins(Draw.G_FAKE_COIN, micro)
        fake_output = judge(view(recipe, fake, fake_keys, fake_coins, real=False))
        real_output = None
        if loss.generator_needs_reals:
            real_keys = keys.of_examples(Draw.G_REAL_AUGMENT, micro)
            real_coins = keys.of_coins(Draw.G_REAL_COIN, micro)
            real_output = judge(view(recipe, real.images, real_keys, real_coins, real=True))
        terms = adversarial_terms(loss.generator, real_output, fake_output)
        return Outcome(terms, {}, g_stats)

    grads, terms, g_stats = accumulate(
        micro_batch, state.g_params, state.g_stats, real, unroll=recipe.unroll
    )
    g_params, g_opt, terms["grad_norm"] = apply_updates(
        gan.g_tx, grads, state.g_opt, state.g_params, recipe.rate(state.step)
    )
    return state.replace(g_params=g_params, g_opt=g_opt, g_stats=g_stats), terms


def average_generator(recipe: Recipe, state: TrainState) -> TrainState:
    """Moves the EMA generator towards the live one, parameters and statistics."""
    decay = EMA_DECAYS[recipe.ema_schedule](state.step, recipe.batch_size, recipe.ema_half_life)
    return state.replace(
        ema_params=mix(state.ema_params, state.g_params, decay),
        ema_stats=mix(state.ema_stats, state.g_stats, decay),
    )


def generate_fakes(
    gan: Gan,
    params: Params,
    stats: Params,
    latent_keys: jax.Array,
    noise_keys: jax.Array,
    *,
    labels: jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    """Fakes (m, H, W, C) of the generator in training mode, and its new statistics."""
    latents = draw_latents(latent_keys, gan.generator.latent_dim)
    noise = draw_noise(noise_keys, gan.generator.image_size)
    fake, changed = gan.generator.apply(
        {"params": params, "batch_stats": stats},
        latents,
        noise,
        labels,
        train=True,
        mutable=["batch_stats"],
    )
    return fake, changed["batch_stats"]


def view(
    recipe: Recipe, images: jax.Array, keys: jax.Array, coin_keys: jax.Array, *, real: bool
) -> jax.Array:
    """Images as the discriminator sees them; fakes are flipped only as lightweight-gan does."""
    return augment_images(
        images,
        keys,
        coin_keys,
        types=recipe.augment_types,
        prob=recipe.augment_prob,
        hflip=recipe.hflip and (real or not recipe.augment_per_example),
        flip_unaugmented=recipe.augment_per_example,
    )
