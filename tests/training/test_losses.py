import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lwgan.training.losses import (
    LOSSES,
    dual_contrastive,
    gradient_penalty,
    hinge_discriminator,
    hinge_generator,
    reconstruction,
)

RNG = np.random.default_rng(0)


def logits(shape, scale=2.0):
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 1), (6, 25)])
def test_hinge_is_the_mean_over_logits_with_real_low(shape):
    real, fake = logits(shape), logits(shape)
    expected = np.mean(np.maximum(0, 1 + real) + np.maximum(0, 1 - fake))
    np.testing.assert_allclose(hinge_discriminator(real, fake), expected, rtol=1e-6)
    np.testing.assert_allclose(hinge_generator(None, fake), fake.mean(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 1), (6, 25)])
def test_the_relativistic_loss_compares_the_images_of_a_place(shape):
    real, fake = logits(shape).astype(np.float64), logits(shape).astype(np.float64)
    loss = LOSSES["relativistic"]
    expected = np.mean([-np.log(1 / (1 + np.exp(-d))) for d in (real - fake).ravel()])
    np.testing.assert_allclose(loss.discriminator(real, fake), expected, rtol=1e-6)
    expected = np.mean([-np.log(1 / (1 + np.exp(-d))) for d in (fake - real).ravel()])
    np.testing.assert_allclose(loss.generator(real, fake), expected, rtol=1e-6)


def test_dual_contrastive_against_a_plain_loop():
    r, f = logits((5, 1)).astype(np.float64), logits((7, 1)).astype(np.float64)
    reals = np.mean([-x + np.log(np.exp(x) + np.exp(f).sum()) for x in r[:, 0]])
    fakes = np.mean([x + np.log(np.exp(-x) + np.exp(-r).sum()) for x in f[:, 0]])
    np.testing.assert_allclose(dual_contrastive(r, f), reals + fakes, rtol=1e-5)


def test_the_two_losses_disagree_about_the_sign_of_reals():
    high, low = jnp.full((4, 1), 3.0), jnp.full((4, 1), -3.0)
    hinge, dual = LOSSES["hinge"], LOSSES["dual_contrastive"]
    assert hinge.discriminator(low, high) < hinge.discriminator(high, low)
    assert dual.discriminator(high, low) < dual.discriminator(low, high)
    assert hinge.generator(None, low) < hinge.generator(None, high)
    assert dual.generator(low, high) < dual.generator(high, low)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
def test_extreme_logits_have_finite_losses_and_gradients(name, size):
    loss = LOSSES[name]
    real, fake = jnp.full((3, 1), size), jnp.full((3, 1), -size)
    for side in (loss.discriminator, loss.generator):
        value, grads = jax.value_and_grad(side, argnums=(0, 1))(real, fake)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize(("size", "painted_size"), [(8, 4), (4, 8), (4, 4)])
def test_reconstruction_takes_the_first_pixel_of_each_block(size, painted_size):
    images, painted = logits((2, size, size, 3)), logits((2, painted_size, painted_size, 3))
    index = np.arange(painted_size) * size // painted_size
    expected = np.mean((images[:, index][:, :, index] - painted) ** 2)
    np.testing.assert_allclose(reconstruction(images, painted), expected, rtol=1e-5)


def test_the_penalty_is_the_mean_squared_norm_of_all_gradients():
    real, fake = logits((3, 4, 4, 2)), logits((3, 4, 4, 2))
    expected = np.mean([np.sum(g**2) for g in [*real, *fake]])
    np.testing.assert_allclose(gradient_penalty(real, fake), expected, rtol=1e-5)
