"""Each DiffAugment operation does what lightweight-gan's does with the same random numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import package
from trainer import Draws, given, put_augmentation

from lwgan.training.augment import AUGMENTATIONS, augment_images

pytestmark = pytest.mark.parity

EXAMPLES = 16
SHAPES = {"rgb": (32, 32, 3), "rgba": (32, 32, 4), "grey": (32, 32, 1)}

# Those that lightweight-gan has.
THEIRS = ["color", "color_alpha", "cutout", "translation", "offset", "offset_h", "offset_v"]


def _images(shape):
    return np.random.default_rng(0).random((EXAMPLES, *shape)).astype(np.float32)


def _theirs(draws, images, types):
    with given(draws):
        types = [name.removesuffix("_alpha") for name in types]
        images = package.DiffAugment(reference.nchw(images), types=types)
    assert draws.all_used()
    return reference.nhwc(images)


@pytest.mark.parametrize("mode", SHAPES)
@pytest.mark.parametrize("name", THEIRS)
def test_operation(name, mode):
    if (name, mode) == ("color", "rgba"):
        pytest.skip("leaves alpha alone, on purpose")
    images, augmentation = _images(SHAPES[mode]), AUGMENTATIONS[name]
    draw = functools.partial(augmentation.draw, shape=SHAPES[mode])
    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), EXAMPLES))
    draws = Draws()
    put_augmentation(draws, name, drawn, side=32)
    ours = jax.jit(jax.vmap(augmentation.apply))(images, drawn)
    np.testing.assert_allclose(ours, _theirs(draws, images, [name]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cutout", "translation"])
def test_extremes(name):
    """The ends of what may be drawn: `Given` refuses numbers outside of the package's."""
    images, reach = _images(SHAPES["rgb"]), {"cutout": (0, 32), "translation": (-4, 4)}[name]
    drawn = np.array([(y, x) for y in (*reach, 1) for x in (*reach, 1)])
    images = images[: len(drawn)]
    draws = Draws()
    put_augmentation(draws, name, drawn, side=32)
    ours = jax.vmap(AUGMENTATIONS[name].apply)(images, jnp.asarray(drawn))
    np.testing.assert_allclose(ours, _theirs(draws, images, [name]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cutout", "translation", "offset", "offset_h", "offset_v"])
def test_range_of_draws(name):
    """What lwgan draws spans what the package draws, both ends included."""
    shape = (6, 6, 3)
    draw = functools.partial(AUGMENTATIONS[name].draw, shape=shape)
    drawn = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(1), 500)))
    # Of a cutout with the odd side of 3 pixels, the centre lies within the image.
    values = {"cutout": range(6), "translation": range(-1, 2), "offset": range(-6, 7, 2)}
    down, right = (set(axis.tolist()) for axis in drawn.T)
    expected = set(values[name.partition("_")[0]])
    assert down == ({0} if name == "offset_h" else expected)
    assert right == ({0} if name == "offset_v" else expected)


@pytest.mark.parametrize("mirrored", [False, True])
def test_wrapper(mirrored):
    """The coin of the whole batch, the flip before the augmentations, their order, no clipping."""
    types = ("color", "cutout", "translation", "offset")
    images = _images(SHAPES["rgb"])
    keys = jax.random.split(jax.random.key(2), EXAMPLES)
    coin_key = next(
        key
        for key in jax.random.split(jax.random.key(3), 100)
        if jax.random.uniform(key, (2,))[0] < 0.5
        and (jax.random.uniform(key, (2,))[1] < 0.5) == mirrored
    )
    draws = Draws()
    coin, side = map(float, jax.random.uniform(coin_key, (2,)))
    # The package flips above a half, lwgan below.
    draws.coin.put(coin, 1 - side)
    for position, name in enumerate(types):
        position_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        draw = functools.partial(AUGMENTATIONS[name].draw, shape=SHAPES["rgb"])
        put_augmentation(draws, name, jax.vmap(draw)(position_keys), side=32)

    wrapper = package.AugWrapper(lambda images: images, 32)
    with given(draws):
        theirs = wrapper(reference.nchw(images), prob=0.5, types=list(types))
    assert draws.all_used()
    coin_keys = jnp.broadcast_to(coin_key, (EXAMPLES,))
    ours = augment_images(
        images, keys, coin_keys, types=types, prob=0.5, hflip=True, flip_unaugmented=False
    )
    np.testing.assert_allclose(ours, reference.nhwc(theirs), rtol=0, atol=1e-6)
