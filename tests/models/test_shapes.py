"""Networks for images that are not square."""

import jax
import jax.numpy as jnp
import pytest

from lwgan.models.build import build_discriminator, build_generator
from lwgan.models.generator import draw_noise
from tests import tiny

SHAPES = {"64x96": (64, 96), "96x64": (96, 64), "128x32": (128, 32)}


@pytest.mark.parametrize("image_size", SHAPES)
def test_every_layer_follows_the_shape(image_size):
    config = tiny.config(data__image_size=image_size, model__attn_resolutions=(16,))
    config.model.side_attention = True
    generator, discriminator = build_generator(config), build_discriminator(config)
    keys = jax.random.split(jax.random.key(0), 2)
    noise = draw_noise(keys, image_size)
    height, width = SHAPES[image_size]
    assert noise[-1].shape == (2, height, width, 1)
    assert all(a.shape[1] * width == a.shape[2] * height for a in noise)

    def run(key):
        latents = jnp.zeros((2, 8))
        variables = generator.init(key, latents, noise, train=True)
        images = generator.apply(variables, latents, noise, train=False)
        judged = discriminator.init_with_output(key, images, jnp.int32(0))[0]
        return images, judged

    images, judged = jax.eval_shape(run, keys[0])
    assert images.shape == (2, height, width, 3)
    assert judged.logits.shape == judged.side_logits.shape == (2, 1)
    share = {64: 4, 32: 2}[min(height, width)]
    assert judged.painted.shape == (2, height // share, width // share, 3)


def test_more_logits_of_longer_images():
    config = tiny.config(data__image_size="32x64", model__disc_output_size=5)
    discriminator = build_discriminator(config)
    images = jnp.zeros((1, 32, 64, 3))
    shapes = jax.eval_shape(
        lambda key: discriminator.init_with_output(key, images, jnp.int32(0))[0], jax.random.key(0)
    )
    assert shapes.logits.shape == (1, 5 * 13)
