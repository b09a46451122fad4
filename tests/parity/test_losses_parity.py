"""The losses are lightweight-gan's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import package, torch

from lwgan.training.judging import judge_images
from lwgan.training.losses import LOSSES, gradient_penalty, reconstruction

pytestmark = pytest.mark.parity

RNG = np.random.default_rng(0)


def _logits(shape):
    """Two kinds, some far from 0."""
    return [(10 * RNG.standard_normal(shape)).astype(np.float32) for _ in range(2)]


def _assert_same(ours, theirs, *arrays):
    """The same values and gradients."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    value = theirs(*tensors)
    value.backward()
    ours, grads = jax.value_and_grad(ours, tuple(range(len(arrays))))(*map(jnp.asarray, arrays))
    np.testing.assert_allclose(ours, value.item(), rtol=1e-5)
    for grad, tensor in zip(grads, tensors, strict=True):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(7, 1), (7, 25)])
def test_hinge(shape):
    loss, (real, fake) = LOSSES["hinge"], _logits(shape)
    _assert_same(loss.discriminator, package.hinge_loss, real, fake)
    # As train() calls it.
    _assert_same(
        lambda fake: loss.generator(None, fake),
        lambda fake: package.gen_hinge_loss(fake, None),
        fake,
    )


@pytest.mark.parametrize("examples", [1, 7])
def test_dual_contrastive(examples):
    loss, (real, fake) = LOSSES["dual_contrastive"], _logits((examples, 1))
    _assert_same(loss.discriminator, package.dual_contrastive_loss, real, fake)
    _assert_same(
        loss.generator, lambda real, fake: package.dual_contrastive_loss(fake, real), real, fake
    )


@pytest.mark.parametrize(("size", "painted_size"), [(64, 32), (32, 64), (32, 32), (128, 32)])
def test_reconstruction(size, painted_size):
    """The package's mean squared error to the image resized by its rule."""
    images = RNG.random((2, size, size, 3)).astype(np.float32)
    painted = RNG.random((2, painted_size, painted_size, 3)).astype(np.float32)

    def theirs(images, painted):
        images, painted = (x.permute(0, 3, 1, 2) for x in (images, painted))
        resized = package.F.interpolate(images, size=painted.shape[2:])
        return package.F.mse_loss(painted, resized)

    _assert_same(reconstruction, theirs, images, painted)


def test_penalty():
    """The package's expression for the penalty of gradients, reals and fakes together."""
    real, fake = RNG.standard_normal((2, 3, 8, 8, 3)).astype(np.float32)

    def ours(real, fake):
        return 10 * gradient_penalty(real, fake)

    def theirs(real, fake):
        rows = torch.cat((real, fake)).reshape(6, -1)
        return 10 * (rows.norm(2, dim=1) ** 2).mean()

    _assert_same(ours, theirs, real, fake)


def test_penalty_of_weights():
    """The penalty of a discriminator, and its gradient with respect to the weights."""
    pair = reference.build(image_size=32, output_size=5)
    images = RNG.random((2, 32, 32, 3)).astype(np.float32)

    pair.gan.zero_grad()
    inputs = reference.nchw(images).requires_grad_()
    logits = pair.gan.D(inputs)[:2]
    ones = [torch.ones_like(x) for x in logits]
    (gradient,) = package.torch_grad(logits, inputs, ones, create_graph=True)
    theirs = 10 * (gradient.reshape(2, -1).norm(2, dim=1) ** 2).mean()
    theirs.backward()

    @reference.jit
    @jax.value_and_grad
    def penalty(params, images):
        judged = [
            judge_images(
                pair.discriminator,
                params,
                jnp.int32(0),
                image[None],
                lambda seen: seen,
                with_gradient=True,
            )
            for image in images
        ]
        return 10 * gradient_penalty(judged[0].gradient, judged[1].gradient)

    with jax.default_matmul_precision("highest"):
        ours, grads = penalty(pair.imported.d_params, images)
    reference.assert_same(ours, theirs.detach().numpy(), "penalty")
    reference.assert_same_gradients(grads, reference.gradients(pair.gan).d_params, "gradients")
