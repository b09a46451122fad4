"""The generator computes what lightweight-gan's does: images, running statistics and gradients."""

import jax
import numpy as np
import pytest
import reference
from reference import torch

from lwgan.models.generator import draw_noise

pytestmark = pytest.mark.parity

CASES = {
    "32px-attention": dict(image_size=32, attn=(4, 8, 16)),
    "64px-rgba-antialias": dict(image_size=64, mode="rgba", attn=(32,), antialias=True),
    "128px-grey": dict(image_size=128, mode="grey", fmap_max=32),
    "128px-fca": dict(image_size=128, fca=True, fmap_max=24),
    "256px": dict(image_size=256, attn=(8,)),
    "256px-rgba-fca-antialias": dict(image_size=256, mode="rgba", fca=True, antialias=True),
    "512px-rgba": dict(image_size=512, mode="rgba", fmap_max=24),
    "512px-grey-fca": dict(image_size=512, mode="grey", fca=True, latent_dim=24),
    "1024px": dict(image_size=1024, attn=(16,)),
    "1024px-grey-antialias": dict(image_size=1024, mode="grey", antialias=True),
}


def _inputs(generator, examples):
    """Latents, noise, and the gradient of some loss by the images."""
    latents = jax.random.normal(jax.random.key(1), (examples, generator.latent_dim))
    noise = draw_noise(jax.random.split(jax.random.key(2), examples), generator.image_size)
    shape = (examples, generator.image_size, generator.image_size, generator.channels)
    return latents, noise, jax.random.uniform(jax.random.key(3), shape)


def _theirs(network, latents, noise):
    """The package's images from these latents and this noise."""
    drawn = {array.shape[1]: reference.nchw(array) for array in noise}
    layers = [module for module in network.modules() if isinstance(module, reference.package.Noise)]
    assert len(layers) == len(noise)
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: (args[0], drawn[args[0].shape[2]]))
        for layer in layers
    ]
    try:
        return network(latents)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("case", "examples"), [(case, 2) for case in CASES] + [("64px-rgba-antialias", 1)]
)
def test_training(case, examples):
    pair = reference.build(**CASES[case])
    generator = pair.generator
    latents, noise, cotangent = _inputs(generator, examples)

    before = {name: tensor.clone() for name, tensor in pair.gan.G.state_dict().items()}
    pair.gan.G.train()
    pair.gan.zero_grad()
    their_latents = torch.from_numpy(np.array(latents)).requires_grad_()
    theirs = _theirs(pair.gan.G, their_latents, noise)
    theirs.backward(reference.nchw(cotangent))
    after = reference.gradients(pair.gan)
    pair.gan.G.load_state_dict(before)

    @reference.jit
    def run(params, stats, latents, noise, cotangent):
        def forward(params, latents):
            images, changed = generator.apply(
                {"params": params, "batch_stats": stats},
                latents,
                noise,
                train=True,
                mutable=["batch_stats"],
            )
            return images, changed["batch_stats"]

        images, backward, changed = jax.vjp(forward, params, latents, has_aux=True)
        return images, changed, *backward(cotangent)

    with jax.default_matmul_precision("highest"):
        ours, stats, by_params, by_latents = run(
            pair.imported.g_params, pair.imported.g_stats, latents, noise, cotangent
        )
    reference.assert_same(ours, reference.nhwc(theirs), "images")
    reference.assert_same(stats, after.g_stats, "running statistics")
    reference.assert_same_gradients(by_params, after.g_params, "gradients")
    reference.assert_same_gradients(by_latents, their_latents.grad.numpy(), "gradients by latents")


@pytest.mark.parametrize("case", CASES)
def test_evaluation(case):
    """Of the generator and of the averaged one, which has other weights."""
    pair = reference.build(**CASES[case])
    latents, noise, _ = _inputs(pair.generator, 2)
    imported = pair.imported
    run = reference.jit(pair.generator.apply, static_argnames="train")
    for name, network, params, stats in (
        ("G", pair.gan.G, imported.g_params, imported.g_stats),
        ("GE", pair.gan.GE, imported.ema_params, imported.ema_stats),
    ):
        with torch.no_grad():
            theirs = _theirs(network.eval(), torch.from_numpy(np.array(latents)), noise)
        with jax.default_matmul_precision("highest"):
            variables = {"params": params, "batch_stats": stats}
            ours = run(variables, latents, noise, train=False)
        reference.assert_same(ours, reference.nhwc(theirs), f"images of {name}")
