"""Networks that know kinds of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lwgan.models.build import build_discriminator, build_generator
from lwgan.models.generator import draw_noise
from lwgan.models.layers import OF_LABEL, BatchNorm
from lwgan.training.state import build_gan
from tests import tiny

NAMES = ("a", "b", "c")


def names_of(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path) for path, _ in leaves}


def test_labels_add_tables_and_nothing_else():
    plain = tiny.init(tiny.gan())
    labelled = tiny.init(tiny.gan(data__label_names=NAMES))
    for network in ("g_params", "d_params"):
        more = names_of(getattr(labelled, network)) - names_of(getattr(plain, network))
        assert more
        assert all(name.endswith(OF_LABEL) for name in more)
        assert names_of(getattr(plain, network)) < names_of(getattr(labelled, network))
    norm = labelled.g_params["block_8"]["norm"]
    assert norm["scale_of_label"].shape == (3, *norm["scale"].shape)


def test_conditional_normalisation_is_that_of_the_labels_own_scale_and_bias():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (3, 4, 5, 6)).astype(np.float32)
    params = {
        "scale": rng.normal(size=6),
        "bias": rng.normal(size=6),
        "scale_of_label": rng.normal(size=(2, 6)),
        "bias_of_label": rng.normal(size=(2, 6)),
    }
    labels = np.array([[1, 0], [0, 1], [0.25, 0.75]], np.float32)
    norm = BatchNorm(None, 2)
    stats = norm.init(jax.random.key(0), x, train=True, labels=labels)["batch_stats"]
    variables = {"params": params, "batch_stats": stats}
    found, _ = norm.apply(variables, x, train=True, labels=labels, mutable=["batch_stats"])
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    for number, weights in enumerate(labels):
        scale = params["scale"] + weights @ params["scale_of_label"]
        bias = params["bias"] + weights @ params["bias_of_label"]
        np.testing.assert_allclose(found[number], normal[number] * scale + bias, atol=2e-5)


def test_both_heads_add_the_match_of_features_and_label():
    """Logits of a label differ from those of another by features times tables, and no more."""
    network = build_discriminator(tiny.config(data__label_names=NAMES))
    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)

    def judged(params, label):
        labels = jnp.tile(jnp.eye(3)[label], (2, 1))
        return network.apply({"params": params}, images, jnp.int32(0), labels)

    params = network.init(jax.random.key(0), images, jnp.int32(0), jnp.zeros((2, 3)))["params"]
    first, second = judged(params, 0), judged(params, 1)
    np.testing.assert_array_equal(first.logits, second.logits)
    for name, head in (("labels", "logits"), ("side_labels", "side_logits")):
        table = np.zeros(params[name]["match_of_label"].shape, np.float32)
        table[0], table[1] = 1, 3
        changed = params | {name: {"match_of_label": table}}
        ones, twos = (judged(changed, label) for label in (0, 1))
        of_one = getattr(ones, head) - getattr(first, head)
        np.testing.assert_allclose(
            getattr(twos, head) - getattr(first, head), 3 * of_one, rtol=1e-4
        )
        assert (jnp.abs(of_one) > 1e-4).all()
        none = judged(changed, 2)
        np.testing.assert_allclose(getattr(none, head), getattr(first, head), atol=1e-6)


@pytest.mark.parametrize("remat", [False, True])
def test_a_label_is_what_its_rows_say(remat):
    """An image depends on its own label alone, and on weights of several in between."""
    config = tiny.config(data__label_names=NAMES, model__remat=remat)
    generator, state = build_generator(config), tiny.random_state(build_gan(config), 0)
    variables = {"params": state.g_params, "batch_stats": state.g_stats}
    keys = jax.random.split(jax.random.key(0), 3)
    latents, noise = jnp.ones((3, 8)), draw_noise(keys, 32)

    def images(labels):
        return np.asarray(
            generator.apply(variables, latents, noise, jnp.asarray(labels), train=False)
        )

    own = images(np.eye(3, dtype=np.float32))
    others = images(np.eye(3, dtype=np.float32)[[0, 2, 1]])
    np.testing.assert_allclose(own[0], others[0], atol=1e-5)
    assert np.abs(own[1] - others[1]).max() > 1e-3
    mixed = images(np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]], np.float32))
    np.testing.assert_allclose(mixed[[0, 2]], own[[0, 2]], atol=1e-5)
    assert np.abs(mixed[1] - own[1]).max() > 1e-3
