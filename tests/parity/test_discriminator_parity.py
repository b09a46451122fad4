"""The discriminator computes what lightweight-gan's does: logits, reconstructions and gradients."""

import copy
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import torch

from lwgan.models.discriminator import take_quadrant
from lwgan.models.layers import resize_nearest

pytestmark = pytest.mark.parity

CASES = {
    "32px-attention": dict(image_size=32, attn=(16, 32)),
    "32px-grey-antialias-5x5": dict(image_size=32, mode="grey", antialias=True, output_size=5),
    "64px-rgba-attention": dict(image_size=64, mode="rgba", attn=(32,), fmap_max=32),
    "128px-5x5": dict(image_size=128, attn=(16,), output_size=5),
    "256px-antialias": dict(image_size=256, antialias=True, fmap_max=32),
    "512px-rgba-5x5": dict(image_size=512, mode="rgba", output_size=5),
    "512px-antialias": dict(image_size=512, attn=(32,), antialias=True),
    "1024px-grey": dict(image_size=1024, mode="grey"),
    "1024px-antialias-5x5": dict(image_size=1024, antialias=True, output_size=5, fmap_max=8),
}


def _inputs(pair):
    """Images, and the gradients of some loss by both kinds of logits."""
    data, output_size = pair.imported.settings["data"], pair.discriminator.output_size
    channels = {"grey": 1, "rgb": 3, "rgba": 4}[data["mode"]]
    shape = (2, data["image_size"], data["image_size"], channels)
    images = jax.random.uniform(jax.random.key(1), shape)
    by_logits = jax.random.normal(jax.random.key(2), (2, output_size**2))
    return images, (by_logits, jax.random.normal(jax.random.key(3), (2, 1)))


def _theirs(network, images, quadrant):
    """The package's output for images (B, C, H, W), and the decoders' images by name."""
    painted = {}

    def hook(name):
        return lambda module, args, output: painted.update({name: output})

    decoders = [name for name in ("decoder1", "decoder2") if getattr(network, name) is not None]
    hooks = [getattr(network, name).register_forward_hook(hook(name)) for name in decoders]
    try:
        with mock.patch.object(reference.package, "random", lambda: (quadrant + 0.5) / 4):
            return *network(images, calc_aux_loss=True), painted
    finally:
        for hook in hooks:
            hook.remove()


def _reconstruction_loss(images, output, quadrant):
    def loss(painted, target):
        return jnp.square(painted - resize_nearest(target, painted.shape[1])).mean()

    whole = loss(output.painted, images)
    if output.painted_quadrant is None:
        return whole
    return whole + loss(output.painted_quadrant, take_quadrant(images, quadrant))


@functools.cache
def _prepared(case):
    """The networks of a case in float64, and lwgan's output, reconstruction loss and
    gradients as a function.

    In float32, which slope a leaky ReLU near 0 has would be a matter of rounding, and one of a
    million at 1024 px is enough for another gradient.
    """
    pair = reference.build(**CASES[case])
    pair = pair._replace(gan=copy.deepcopy(pair.gan))
    discriminator = pair.discriminator.clone(dtype=jnp.float64)
    pair.gan.D.double()

    @reference.jit
    def run(params, images, quadrant, cotangents):
        def forward(params, images):
            output = discriminator.apply({"params": params}, images, quadrant)
            loss = _reconstruction_loss(images, output, quadrant)
            return (output.logits, output.side_logits, loss), output

        (*_, loss), backward, output = jax.vjp(forward, params, images, has_aux=True)
        return output, loss, *backward((*cotangents, jnp.ones(())))

    return pair, run


@pytest.mark.parametrize(
    ("case", "quadrant"),
    [(case, 1) for case in CASES] + [("512px-rgba-5x5", quadrant) for quadrant in (0, 2, 3)],
)
def test_discriminator(case, quadrant):
    pair, run = _prepared(case)
    images, cotangents = jax.tree.map(lambda x: np.asarray(x, np.float64), _inputs(pair))

    pair.gan.zero_grad()
    their_images = reference.nchw(images).requires_grad_()
    logits, side_logits, loss, painted = _theirs(pair.gan.D, their_images, quadrant)
    side_logits = side_logits.flatten(1)
    outputs = (logits, side_logits, loss)
    torch.autograd.backward(
        outputs, [torch.tensor(np.array(c, np.float64)) for c in (*cotangents, 1.0)]
    )
    after = reference.gradients(pair.gan)

    params = jax.tree.map(lambda x: np.asarray(x, np.float64), pair.imported.d_params)
    with jax.enable_x64(True):
        ours, our_loss, by_params, by_images = run(
            params, images, jnp.asarray(quadrant), cotangents
        )
    reference.assert_same(ours.logits, logits.detach().numpy(), "logits")
    reference.assert_same(ours.side_logits, side_logits.detach().numpy(), "side logits")
    reference.assert_same(ours.painted, reference.nhwc(painted["decoder1"]), "image")
    assert (ours.painted_quadrant is None) == ("decoder2" not in painted)
    if ours.painted_quadrant is not None:
        theirs = reference.nhwc(painted["decoder2"])
        reference.assert_same(ours.painted_quadrant, theirs, "image of the quadrant")
    reference.assert_same(our_loss, loss.detach().numpy(), "reconstruction loss")
    reference.assert_same_gradients(by_params, after.d_params, "gradients", 1e-5)
    their_gradient = reference.nhwc(their_images.grad)
    reference.assert_same_gradients(by_images, their_gradient, "gradients by images", 1e-5)


@pytest.mark.parametrize("case", ["32px-grey-antialias-5x5", "64px-rgba-attention"])
def test_gradient_of_squared_gradient(case):
    """What a gradient penalty needs: the second derivatives."""
    pair = reference.build(**CASES[case])
    images, _ = _inputs(pair)

    pair.gan.zero_grad()
    their_images = reference.nchw(images).requires_grad_()
    logits, side_logits, _ = pair.gan.D(their_images)
    total = logits.sum() + side_logits.sum()
    (gradient,) = torch.autograd.grad(total, their_images, create_graph=True)
    theirs = gradient.square().sum()
    theirs.backward()
    after = reference.gradients(pair.gan)

    @reference.jit
    @jax.value_and_grad
    def penalty(params, images):
        def total(images):
            output = pair.discriminator.apply({"params": params}, images, jnp.asarray(0))
            return output.logits.sum() + output.side_logits.sum()

        return jnp.square(jax.grad(total)(images)).sum()

    with jax.default_matmul_precision("highest"):
        ours, by_params = penalty(pair.imported.d_params, images)
    reference.assert_same(ours, theirs.detach().numpy(), "squared gradient")
    reference.assert_same_gradients(by_params, after.d_params, "gradients")
