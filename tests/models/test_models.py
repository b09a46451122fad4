import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from lwgan.models import attention, layers
from lwgan.models.build import CHANNELS
from lwgan.models.discriminator import take_quadrant
from lwgan.models.generator import draw_noise
from lwgan.training.state import build_gan, init_state
from tests import tiny


def shapes(config):
    """The state that the settings lead to, without computing it."""
    gan = build_gan(config)
    return gan, jax.eval_shape(lambda: init_state(gan, 0))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def full(**overrides):
    config = default.get_config()
    for name, value in overrides.items():
        group, setting = name.split("__")
        config[group][setting] = value
    return config


# What lightweight-gan 1.2.1 has, with attention at 32 px.
@pytest.mark.parametrize(
    ("size", "logits", "generator", "discriminator"),
    [
        (32, 1, 21_254_918, 10_904_588),
        (64, 1, 23_615_623, 11_727_848),
        (128, 1, 23_961_513, 11_804_904),
        (256, 1, 24_047_931, 11_823_976),
        (256, 5, 24_047_931, 9_726_824),
        (512, 1, 24_054_991, 12_953_246),
        (1024, 1, 24_055_618, 12_953_393),
    ],
)
def test_parameter_counts_are_the_references(size, logits, generator, discriminator):
    _, first = shapes(full(data__image_size=size, model__disc_output_size=logits))
    assert (count(first.g_params), count(first.d_params)) == (generator, discriminator)


OPTIONS = {
    "grey": {"data__mode": "grey"},
    "rgba": {"data__mode": "rgba"},
    "no_attention": {"model__attn_resolutions": ()},
    "more_attention": {"model__attn_resolutions": (16, 32, 64)},
    "frequencies": {"model__freq_chan_attn": True},
    "antialias": {"model__antialias": True},
    "25_logits": {"model__disc_output_size": 5},
    "narrow": {"model__fmap_max": 16},
    "own_widths": {"model__disc_fmap_inverse_coef": 9},
    "min_channels": {"model__min_channels": 8},
    "side": {"model__side_channels": 16, "model__side_attention": False},
    "recon": {"model__recon_size": 64},
    "tanh": {"model__output": "tanh"},
}


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("option", OPTIONS)
def test_shapes_of_every_option(option, size):
    config = full(data__image_size=size, **OPTIONS[option])
    gan, first = shapes(config)
    channels = CHANNELS[config.data.mode]

    def both(first, key):
        keys = jax.random.split(key, 2)
        latents = jnp.zeros((2, config.model.latent_dim))
        generator = {"params": first.g_params, "batch_stats": first.g_stats}
        images = gan.generator.apply(generator, latents, draw_noise(keys, size), train=False)
        return images, gan.discriminator.apply({"params": first.d_params}, images, jnp.int32(0))

    images, output = jax.eval_shape(both, first, jax.random.key(0))
    assert images.shape == (2, size, size, channels)
    assert output.logits.shape == (2, config.model.disc_output_size**2)
    assert output.side_logits.shape == (2, 1)
    painted = (2, *[config.model.recon_size] * 2, channels)
    assert output.painted.shape == painted
    assert getattr(output.painted_quadrant, "shape", None) == (painted if size >= 512 else None)
    assert {leaf.dtype for leaf in jax.tree.leaves((images, output))} == {jnp.dtype("float32")}


def test_wide_layers_of_512_px_follow_the_image_or_the_setting():
    widths = {}
    for mode, setting in [("rgb", -1), ("rgba", -1), ("grey", -1), ("rgba", 3), ("rgb", 8)]:
        config = full(data__image_size=512, data__mode=mode, model__min_channels=setting)
        widths[mode, setting] = shapes(config)[1].g_params["out"]["kernel"].shape[2]
    assert widths == {
        ("rgb", -1): 3,
        ("rgba", -1): 4,
        ("grey", -1): 3,
        ("rgba", 3): 3,
        ("rgb", 8): 8,
    }


def test_bfloat16_computes_narrow_and_keeps_parameters_wide():
    config = full(data__image_size=64, train__precision="bfloat16")
    gan, first = shapes(config)
    assert {leaf.dtype for leaf in jax.tree.leaves((first.g_params, first.g_stats))} == {
        jnp.dtype("float32")
    }
    jaxpr = str(
        jax.make_jaxpr(lambda p, x: gan.discriminator.apply({"params": p}, x, jnp.int32(0)))(
            first.d_params, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
        )
    )
    convolutions = [line for line in jaxpr.splitlines() if "= conv_general_dilated" in line]
    assert convolutions and all("bf16" in line.split("=")[0] for line in convolutions)


def test_pixel_shuffle_puts_channel_4c_2i_j_at_row_i_column_j():
    x = jnp.arange(8.0).reshape(1, 1, 1, 8)
    y = layers.pixel_shuffle(x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(y[0, :, :, 1], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(layers.pixel_unshuffle(y), x)


def test_blur_of_a_point_and_of_a_border():
    point = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(16)
    np.testing.assert_array_equal(
        layers.blur(point)[0, 1:4, 1:4, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    )
    corner = jnp.zeros((1, 5, 5, 1)).at[0, 1, 1, 0].set(16)
    # Seen from each side of the mirror.
    assert layers.blur(corner)[0, 0, 0, 0] == 4


def test_resize_nearest_takes_the_floor():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(layers.resize_nearest(x, 2)[0, :, :, 0], [[0, 2], [8, 10]])
    up = layers.resize_nearest(x, 8)[0, :, :, 0]
    np.testing.assert_array_equal(up[:2, :4], [[0, 0, 1, 1], [0, 0, 1, 1]])


def test_icnr_repeats_filters_over_sub_pixels():
    kernel = layers.icnr(jax.random.key(0), (1, 1, 5, 12)).reshape(5, 3, 4)
    np.testing.assert_array_equal(kernel, jnp.broadcast_to(kernel[..., :1], kernel.shape))
    assert len(np.unique(kernel)) == 15
    assert np.abs(kernel).max() <= math.sqrt(6 / 5)


@pytest.mark.parametrize(("quadrant", "corner"), [(0, 0), (1, 2), (2, 8), (3, 10)])
def test_quadrants_go_row_by_row(quadrant, corner):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert take_quadrant(x, jnp.int32(quadrant))[0, 0, 0, 0] == corner


def test_frequency_weights_are_orthonormal_cosines():
    weights = np.asarray(layers.frequency_weights(16, 16, 35)).reshape(256, 35)
    assert not weights[:, 32:].any()
    waves = weights[:, :32:2]
    np.testing.assert_array_equal(waves, weights[:, 1:32:2])
    # (0, 0) comes twice.
    np.testing.assert_allclose(waves[:, 0], waves[:, 8])
    distinct = np.delete(waves, 8, axis=1)
    np.testing.assert_allclose(distinct.T @ distinct, np.eye(15), atol=1e-6)
    # (1, 0) varies from row to row.
    vertical = waves.reshape(16, 16, 16)[..., 9]
    np.testing.assert_allclose(vertical, np.repeat(vertical[:, :1], 16, 1), atol=1e-7)


def test_local_attention_against_a_plain_loop():
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 4, 5, 2, 3))
    out = np.asarray(attention.local_attention(*map(jnp.float32, (q, k, v))))
    for y in range(4):
        for x in range(5):
            for head in range(2):
                logits, values = [], []
                for i in (y - 1, y, y + 1):
                    for j in (x - 1, x, x + 1):
                        inside = 0 <= i < 4 and 0 <= j < 5
                        key = k[0, i, j, head] if inside else np.zeros(3)
                        logits.append(q[0, y, x, head] @ key / math.sqrt(3))
                        values.append(v[0, i, j, head] if inside else np.zeros(3))
                weights = np.exp(logits) / np.exp(logits).sum()
                np.testing.assert_allclose(out[0, y, x, head], weights @ values, rtol=1e-4)


def test_linear_attention_against_its_formula():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 3, 4, 2, 5))
    out = attention.linear_attention(*map(jnp.float32, (q, k, v)))
    soft_q = np.exp(q) / np.exp(q).sum(-1, keepdims=True) / math.sqrt(5)
    soft_k = np.exp(k) / np.exp(k).sum((1, 2), keepdims=True)
    weights = np.einsum("bhwnd,byxnd->bnhwyx", soft_q, soft_k)
    np.testing.assert_allclose(out, np.einsum("bnhwyx,byxne->bhwne", weights, v), rtol=1e-4)


def test_depthwise_convolution_against_xlas():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6, 4)), jnp.float32)
    module = attention.DepthwiseConv()
    variables = module.init(jax.random.key(0), x)
    expected = jax.lax.conv_general_dilated(
        x,
        variables["params"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_batch_norm_normalises_and_keeps_the_unbiased_variance():
    x = jnp.asarray(np.random.default_rng(0).normal(100, 0.01, (4, 3, 3, 2)), jnp.float32)
    module = layers.BatchNorm(None)
    variables = module.init(jax.random.key(0), x, train=True)
    y, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=2e-3)
    stats = changed["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), rtol=1e-6)


def test_initial_distributions():
    _, first = tiny_full()
    # (4, 4, 256, 128).
    kernel = np.asarray(first.g_params["block_8"]["conv"]["kernel"])
    np.testing.assert_allclose(kernel.std(), math.sqrt(2 / (16 * 256)), rtol=0.01)
    bias = np.asarray(first.g_params["block_8"]["conv"]["bias"])
    assert 0.9 < np.abs(bias).max() * math.sqrt(16 * 256) <= 1
    initial = np.asarray(first.g_params["initial"]["kernel"])
    bound = 1 / math.sqrt(512 * 16)
    np.testing.assert_allclose([initial.min(), initial.max()], [-bound, bound], rtol=1e-3)
    assert not first.g_params["block_8"]["upsample"]["conv"]["bias"].any()
    assert not first.g_params["block_8"]["noise_gain"].any()


@functools.cache
def tiny_full():
    gan = build_gan(full(data__image_size=32, model__fmap_max=64, model__attn_resolutions=()))
    return gan, jax.jit(lambda: init_state(gan, 0))()


def test_the_side_head_sees_the_pixels_that_nearest_keeps():
    gan = tiny.gan(data__image_size=64)
    first = tiny.init(gan)

    def side(images):
        return gan.discriminator.apply(
            {"params": first.d_params}, images, jnp.int32(0)
        ).side_logits.sum()

    gradient = np.abs(jax.jit(jax.grad(side))(jnp.full((1, 64, 64, 3), 0.5))).sum((0, 3))
    assert gradient[::2, ::2].all()
    gradient[::2, ::2] = 0
    assert not gradient.any()


def test_skip_excitation_joins_16_px_to_128_px():
    gan = tiny.gan(data__image_size=128)
    first = tiny.init(gan)
    keys = jax.random.split(jax.random.key(0), 2)
    noise, latents = draw_noise(keys, 128), jax.random.normal(keys[0], (2, 8))

    @jax.jit
    def images(gate_bias):
        params = {**first.g_params}
        gate = params["excitation_128"]
        params["excitation_128"] = {**gate, "excite": {**gate["excite"], "bias": gate_bias}}
        return gan.generator.apply(
            {"params": params, "batch_stats": first.g_stats}, latents, noise, train=False
        )

    shut = images(jnp.full(8, -1e9))
    np.testing.assert_allclose(shut, jnp.broadcast_to(shut[:1, :1, :1], shut.shape), atol=1e-6)
    assert images(jnp.zeros(8)).std() > 1e-3


def test_noise_enters_each_layer_by_its_gain():
    gan = tiny.gan()
    first = tiny.init(gan)
    latents = jnp.ones((1, 8))

    @jax.jit
    def images(gain, seed):
        params = jax.tree.map(lambda p: p, first.g_params)
        params["block_32"]["noise_gain"] = gain
        noise = draw_noise(jax.random.key(seed)[None], 32)
        return gan.generator.apply(
            {"params": params, "batch_stats": first.g_stats}, latents, noise, train=False
        )

    zero, one = jnp.zeros(1), jnp.ones(1)
    np.testing.assert_array_equal(images(zero, 0), images(zero, 1))
    assert np.abs(images(one, 0) - images(one, 1)).max() > 1e-3


def test_tanh_bounds_the_last_layer():
    """The last layer's values, by the inverse function, are those that the linear one puts out."""
    images = {}
    for output in ("linear", "tanh"):
        gan = tiny.gan(model__output=output)
        first = jax.jit(lambda gan=gan: init_state(gan, 0))()
        params = {**first.g_params, "out": jax.tree.map(lambda x: 20 * x, first.g_params["out"])}
        latents, noise = jnp.ones((2, 8)), draw_noise(jax.random.split(jax.random.key(0), 2), 32)
        variables = {"params": params, "batch_stats": first.g_stats}
        images[output] = np.asarray(gan.generator.apply(variables, latents, noise, train=False))
    assert images["linear"].max() > 1.5 and images["linear"].min() < -0.5
    expected = 1 / (1 + np.exp(-2 * images["linear"].astype(float)))
    np.testing.assert_allclose(images["tanh"], expected, atol=1e-6)
