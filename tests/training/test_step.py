import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from lwgan.keys import Draw, draw_latents
from lwgan.models.generator import draw_noise
from lwgan.models.placement import AXIS
from lwgan.training.augment import Adaptive
from lwgan.training.ema import ramp_decay, reference_decay
from lwgan.training.judging import judge_images, mean_signs
from lwgan.training.losses import LOSSES, gradient_penalty
from lwgan.training.state import on_devices
from lwgan.training.step import (
    Reals,
    StepKeys,
    average_generator,
    discriminator_step,
    generate_fakes,
    generator_step,
    make_update,
    update_networks,
)
from tests import tiny

EVERYTHING = {"model__attn_resolutions": (16,), "train__grad_accum": 2}


def paths(tree):
    """Every leaf by its name, e.g. ``block_8/conv/bias``."""
    return {
        "/".join(str(key.key) for key in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def run(gan, recipe, devices, steps, **layout):
    """Several steps on the same images: the last state and the metrics of each step."""
    advance, state, metrics = make_update(gan, recipe), tiny.init(gan, devices), []
    for number in range(1, steps + 1):
        images = tiny.images(devices, **layout)
        if gan.generator.num_labels:
            images = tiny.labelled(images, gan.generator.num_labels)
        state, terms = advance(number, state, images)
        metrics.append({name: float(term) for name, term in terms.items()})
    return jax.device_get(state), metrics


# Batch normalisation, or a softmax over pixels, makes these without effect: their gradients are
# stopped.
WITHOUT_EFFECT = ("initial/bias", "block_*/conv/bias", "excitation_*/pixel_logits/bias")


def without_effect(name):
    first, *_, last = name.split("/")
    pattern = "/".join([first.rstrip("0123456789").replace("_", "_*"), *name.split("/")[1:]])
    return last == "bias" and pattern in WITHOUT_EFFECT


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"size": 32, "model__attn_resolutions": (8,), "model__side_attention": True},
            id="attention",
        ),
        pytest.param({"size": 128, "model__disc_output_size": 5}, id="excitation"),
        pytest.param({"size": "64x96", "model__attn_resolutions": (16,)}, id="wide"),
        pytest.param({"size": "96x64", "model__disc_output_size": 5}, id="tall"),
        pytest.param({"size": "128x32", "model__freq_chan_attn": True}, id="long"),
        pytest.param({"size": 32, "data__label_names": ("a", "b")}, id="labels"),
        pytest.param(
            {"size": 512, "model__freq_chan_attn": True, "model__fmap_max": 16},
            id="quadrants",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_parameter_gets_a_gradient_but_those_without_effect(options):
    size = options.pop("size")
    gan = tiny.gan(learning_rate=1.0, data__image_size=size, **options)
    before = jax.device_get(tiny.init(gan))
    recipe = dataclasses.replace(tiny.RECIPE, batch_size=2)
    accum = options.get("train__grad_accum", 1)
    advance = make_update(gan, recipe)
    images = tiny.images(1, accum, whole=4, size=size)
    if gan.generator.num_labels:
        images = tiny.labelled(images, gan.generator.num_labels)
    after, _ = advance(1, before, images)
    for network in ("g_params", "d_params"):
        old, new = paths(getattr(before, network)), paths(getattr(after, network))
        untouched = {name for name in old if np.array_equal(old[name], new[name])}
        assert untouched == set(filter(without_effect, old))


def everything_at(image_size):
    # Adam's first steps are as long however small a gradient is, which then is all rounding.
    options = EVERYTHING | {"data__image_size": image_size, "learning_rate": 1e-5}
    return pytest.param("hinge", options, marks=pytest.mark.slow, id=image_size)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        *map(everything_at, ["64x96", "96x64", "128x32"]),
        ("relativistic", {"data__label_names": ("a", "b", "c"), "train__grad_accum": 2}),
        pytest.param("hinge", EVERYTHING, marks=pytest.mark.slow),
        ("dual_contrastive", {"model__antialias": True}),
        ("relativistic", {"augment__target": 0.6}),
    ],
)
def test_one_and_four_devices_agree(loss, options):
    gan = tiny.gan(**options)
    accum, size = options.get("train__grad_accum", 1), options.get("data__image_size", 32)
    recipe = dataclasses.replace(
        tiny.RECIPE,
        loss=loss,
        augment_target=0.5,
        augment_adapt_over=80,
        # Micro-batches both in line and in a loop, which takes half as long to compile.
        unroll=accum == 1 or size == "128x32",
    )
    batches = 1 + LOSSES[loss].generator_needs_reals
    layout = {"accum": accum, "batches": batches, "size": size}
    # More pixels round more.
    close = 1e-4 if size == 32 else 1e-3
    one, one_metrics = run(gan, recipe, 1, 10, **layout)
    four, four_metrics = run(gan, recipe, 4, 10, **layout)
    for here, there in zip(one_metrics, four_metrics, strict=True):
        assert here.keys() == there.keys()
        for name in here:
            assert there[name] == pytest.approx(here[name], rel=close, abs=1e-5), name
    assert "d/penalty" in one_metrics[0] and "d/penalty" not in one_metrics[1]
    keys = jax.random.split(jax.random.key(1), 4)

    def images(state):
        return gan.generator.apply(
            {"params": state.ema_params, "batch_stats": state.ema_stats},
            draw_latents(keys, 8),
            draw_noise(keys, size),
            gan.generator.any_labels(4),
            train=False,
        )

    np.testing.assert_allclose(images(one), images(four), atol=1e-3)


@functools.cache
def small():
    """Tiny networks and their first state as NumPy arrays: the step cannot donate those."""
    gan = tiny.gan(learning_rate=0.1)
    return gan, jax.device_get(tiny.init(gan))


def test_a_loop_over_micro_batches_equals_them_in_line():
    gan, state = small()
    results = []
    for unroll in (True, False):
        recipe = dataclasses.replace(tiny.RECIPE, unroll=unroll, gp_weight=0.0)
        results.append(make_update(gan, recipe)(1, state, tiny.images(1, 2)))
    (state_a, terms_a), (state_b, terms_b) = jax.device_get(results)
    for name in terms_a:
        assert terms_b[name] == pytest.approx(terms_a[name], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state_a, state_b)


def test_the_body_runs_under_shard_map_too():
    gan, state = small()
    body = functools.partial(update_networks, gan, tiny.RECIPE, True)
    images = tiny.images(4)
    mesh = Mesh(np.array(jax.devices()[:4]), (AXIS,))
    mapped = jax.jit(
        jax.shard_map(
            lambda state, images: body(state, images[0]),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    )
    new_state, terms = jax.device_get(mapped(state, images))
    same_state, same_terms = jax.device_get(make_update(gan, tiny.RECIPE)(1, state, images))
    for name in terms:
        assert terms[name] == pytest.approx(same_terms[name], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new_state, same_state)


def test_both_networks_move_at_the_rate_of_their_step():
    """In warm-up a tenth as far; not at all where the rate has come down to zero."""
    networks, state = small()

    def moved(finished, **schedule):
        recipe = dataclasses.replace(tiny.RECIPE, gp_weight=0.0, **schedule)
        before = state.replace(step=np.int32(finished))
        after, terms = jax.device_get(make_update(networks, recipe)(2, before, tiny.images(1)))
        parts = ((after.d_params, state.d_params), (after.g_params, state.g_params))
        d_moved, g_moved = (jax.tree.map(np.subtract, *part) for part in parts)
        return d_moved, g_moved, terms

    (whole, _, _), (slow, generator, terms) = moved(0), moved(0, warmup=10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 10 * b, atol=1e-5), whole, slow)
    # By gradient descent: as far as its gradient is long, at a tenth of the rate of 0.1.
    assert optax.tree.norm(generator) == pytest.approx(0.01 * terms["g/grad_norm"], rel=1e-3)
    assert not any(leaf.any() for leaf in jax.tree.leaves(moved(1000, decay=1.0)[:2]))


def test_the_probability_follows_the_signs_of_the_reals():
    """Up while reals are told from fakes, and down below the target; the next step draws by it."""
    networks, state = small()
    recipe = dataclasses.replace(
        tiny.RECIPE, gp_weight=0.0, augment_target=0.6, augment_adapt_over=80.0
    )
    advance = make_update(networks, recipe)
    for sign, expected in ((1.0, 0.6), (-1.0, 0.4)):
        before = state.replace(adaptive=Adaptive(np.float32(0.5), np.float32(2.5 * sign)))
        after, terms = jax.device_get(advance(2, before, tiny.images(1)))
        assert after.adaptive.prob == pytest.approx(expected) == terms["d/augment_prob"]
        smoothed = 0.75 * 2.5 * sign + 0.25 * terms["d/sign_of_reals"]
        assert after.adaptive.sign == pytest.approx(smoothed, abs=1e-6)
    always, never = (
        advance(2, state.replace(adaptive=Adaptive(np.float32(prob), np.float32(0))), images)[1]
        for prob, images in ((1, tiny.images(1)), (0, tiny.images(1)))
    )
    fixed = dataclasses.replace(recipe, augment_target=0.0, augment_prob=0.0)
    _, plain = make_update(networks, fixed)(2, state, tiny.images(1))
    assert float(never["d/adversarial"]) == pytest.approx(float(plain["d/adversarial"]), rel=1e-6)
    assert float(always["d/adversarial"]) != pytest.approx(float(plain["d/adversarial"]), rel=1e-6)


def test_signs_say_whether_reals_and_fakes_are_told_apart():
    """As the loss means the logits, and where it means none, as they lie to each other."""
    high, low = jnp.array([[2.0], [3.0], [1.0], [5.0]]), jnp.array([[1.0], [1.0], [-1.0], [6.0]])
    signs = mean_signs(LOSSES["hinge"], high, low)
    assert signs == {"sign_of_reals": -1, "sign_of_fakes": -0.5}
    signs = mean_signs(LOSSES["relativistic"], high, low)
    assert signs == {"sign_of_reals": 0.5, "sign_of_fakes": -0.5}
    assert LOSSES["dual_contrastive"].relative


def test_bfloat16_comes_near_to_float32():
    networks, state = small()
    narrow = tiny.gan(learning_rate=0.1, train__precision="bfloat16")
    recipe = dataclasses.replace(tiny.RECIPE, gp_weight=0.0)
    _, wide_terms = make_update(networks, recipe)(1, state, tiny.images(1))
    recipe = dataclasses.replace(recipe, precision="bfloat16")
    after, terms = jax.device_get(make_update(narrow, recipe)(1, state, tiny.images(1)))
    for name, term in wide_terms.items():
        # A gradient's length hangs on its largest parts.
        rel = 0.25 if "norm" in name else 0.05
        assert terms[name] == pytest.approx(float(term), rel=rel, abs=0.05), name
        # Signs do not round.
        assert terms[name] != float(term) or "sign" in name, name
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {
        np.dtype("float32"),
        np.dtype("int32"),
    }


def test_two_programs_are_traced_once_each():
    gan, state = small()
    traces = []

    def update(grads, opt, params):
        traces.append(1)
        return gan.g_tx.update(grads, opt, params)

    counted = dataclasses.replace(gan, g_tx=optax.GradientTransformation(gan.g_tx.init, update))
    advance, state = make_update(counted, tiny.RECIPE), on_devices(state)
    for number in range(1, 10):
        state, _ = advance(number, state, tiny.images(4))
    assert len(traces) == 2
    assert int(state.step) == 9


def test_each_network_step_changes_its_own_network():
    gan, first = small()
    recipe = dataclasses.replace(tiny.RECIPE, gp_weight=0.0)

    def steps(state, images):
        images = images.astype(jnp.float32) / 255
        keys = StepKeys.of(recipe, state, images.shape[2])
        after_d, _ = discriminator_step(
            gan, recipe, state, Reals(images[0], None), keys, with_penalty=False
        )
        after_g, _ = generator_step(gan, recipe, after_d, Reals(images[-1], None), keys)
        return after_d, after_g, average_generator(recipe, after_g)

    mapped = jax.pmap(steps, AXIS, in_axes=(None, 0), out_axes=None)
    after_d, after_g, averaged = jax.device_get(mapped(first, tiny.images(1)))

    def differs(a, b):
        return any(
            not np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
        )

    for before, after, own, other in (
        (first, after_d, "d_params", "g_params"),
        (after_d, after_g, "g_params", "d_params"),
    ):
        assert differs(getattr(before, own), getattr(after, own))
        assert not differs(getattr(before, other), getattr(after, other))
        assert differs(before.g_stats, after.g_stats)
        assert not differs(before.ema_params, after.ema_params)

    decay = float(ramp_decay(jnp.int32(0), 8, 1000.0))
    jax.tree.map(
        lambda old, live, ema: np.testing.assert_allclose(
            ema, decay * old + (1 - decay) * live, atol=1e-6
        ),
        first.ema_params,
        averaged.g_params,
        averaged.ema_params,
    )


def test_the_penalty_and_its_gradient_against_finite_differences():
    gan, state = small()
    images = tiny.images(1, whole=4)
    both = jnp.asarray(images[0, 0, 0], jnp.float32) / 255
    real, fake = both[:2], both[2:]

    with jax.enable_x64(True):
        network = gan.discriminator.clone(dtype=jnp.float64)
        params, wide = jax.tree.map(jnp.float64, (state.d_params, both))
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)

        @jax.jit
        def score(params, images):
            output = network.apply({"params": params}, images, jnp.int32(0))
            return output.logits.sum(1) + output.side_logits.sum(1)

        slopes = jax.jit(jax.grad(lambda params, x: score(params, x).sum(), argnums=1))

        def mean_squared_norm(params):
            return (slopes(params, wide) ** 2).sum((1, 2, 3)).mean()

        def moved(size):
            return jax.tree.map(lambda p, d: p + size * d, params, direction)

        # Each gradient's norm is the difference quotient along the gradient itself.
        along = slopes(params, wide)
        along /= jnp.sqrt((along**2).sum((1, 2, 3), keepdims=True))
        norms = (score(params, wide + 1e-6 * along) - score(params, wide - 1e-6 * along)) / 2e-6
        expected = (norms**2).mean()
        # So near that no leaky ReLU turns: there the input gradient jumps.
        slope = (mean_squared_norm(moved(1e-8)) - mean_squared_norm(moved(-1e-8))) / 2e-8

    def penalty(params):
        judged = [
            judge_images(
                gan.discriminator, params, jnp.int32(0), x, lambda seen: seen, with_gradient=True
            )
            for x in (real, fake)
        ]
        return gradient_penalty(judged[0].gradient, judged[1].gradient)

    with jax.default_matmul_precision("highest"):
        value, grads = jax.jit(jax.value_and_grad(penalty))(state.d_params)
    assert value == pytest.approx(float(expected), rel=1e-4)
    along = sum(
        float(jnp.vdot(g, jnp.float32(d)))
        for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True)
    )
    assert along == pytest.approx(float(slope), rel=1e-3)


def test_the_steps_own_penalty_is_that_of_its_reals_and_fakes():
    """With nothing else to minimise, and no augmentation, as the step reports it."""
    gan, state = small()
    recipe = dataclasses.replace(tiny.RECIPE, augment_prob=0.0, hflip=False, gp_weight=7.0)
    images = tiny.images(1)

    def terms_and_fakes(state, images):
        reals = images.astype(jnp.float32)[0] / 255
        keys = StepKeys.of(recipe, state, reals.shape[1])
        _, terms = discriminator_step(
            gan, recipe, state, Reals(reals, None), keys, with_penalty=True
        )
        micro = jnp.int32(0)
        fakes, _ = generate_fakes(
            gan,
            state.g_params,
            state.g_stats,
            keys.of_examples(Draw.D_LATENTS, micro),
            keys.of_examples(Draw.D_NOISE, micro),
        )
        return terms["penalty"], fakes

    mapped = jax.pmap(terms_and_fakes, AXIS, in_axes=(None, 0))
    (found,), (fakes,) = jax.device_get(mapped(state, images))
    reals = jnp.asarray(images[0, 0, 0], jnp.float32) / 255

    @jax.jit
    def squared_norms(x):
        def total(x):
            output = gan.discriminator.apply({"params": state.d_params}, x, jnp.int32(0))
            return output.logits.sum() + output.side_logits.sum()

        return jnp.square(jax.grad(total)(x)).sum((1, 2, 3))

    with jax.default_matmul_precision("highest"):
        norms = np.concatenate([squared_norms(reals), squared_norms(fakes)])
    assert found == pytest.approx(7.0 * norms.mean(), rel=1e-4)


def test_the_ramp_reaches_its_half_life():
    early, late = (float(ramp_decay(jnp.int32(s), 10, 1000.0)) for s in (99, 10**6))
    assert early == pytest.approx(0.5 ** (10 / (0.05 * 1000)), rel=1e-5)
    assert late == pytest.approx(0.5 ** (10 / 1000), rel=1e-5)


def test_the_references_schedule():
    steps = np.arange(30_001)
    decays = np.asarray(reference_decay(jnp.asarray(steps), 0, 0.0))
    copies, averages = steps[decays == 0], steps[(decays > 0) & (decays < 1)]
    assert (copies[0], copies[1], copies[-1], len(copies)) == (2, 1002, 24_002, 25)
    assert (averages[0], averages[1]) == (20_010, 20_020)
    np.testing.assert_allclose(decays[averages], 0.995)
