import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lwgan.training.augment import AUGMENTATIONS, Color, augment_images, prob_for

IMAGE = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)


def color(image, drawn):
    image = image + drawn.brightness
    mean = image.mean(-1, keepdims=True)
    image = mean + (image - mean) * drawn.saturation
    return image.mean() + (image - image.mean()) * drawn.contrast


def translation(image, drawn):
    moved = np.zeros_like(image)
    for y in range(16):
        for x in range(16):
            from_y, from_x = y + drawn[0], x + drawn[1]
            if 0 <= from_y < 16 and 0 <= from_x < 16:
                moved[y, x] = image[from_y, from_x]
    return moved


def cutout(image, drawn):
    cut = image.copy()
    rows, columns = (slice(max(0, c - 4), max(0, c + 4)) for c in np.asarray(drawn))
    cut[rows, columns] = 0
    return cut


def offset(image, drawn):
    return np.roll(image, np.asarray(drawn), (0, 1))


WRITTEN_OUT = {
    "color": color,
    "color_alpha": color,
    "cutout": cutout,
    "translation": translation,
    "offset": offset,
    "offset_h": offset,
    "offset_v": offset,
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_apply_against_numpy(name):
    draw, apply = AUGMENTATIONS[name]
    for seed in range(8):
        drawn = jax.device_get(draw(jax.random.key(seed), IMAGE.shape))
        np.testing.assert_allclose(
            apply(IMAGE, drawn), WRITTEN_OUT[name](IMAGE, drawn), atol=1e-6, err_msg=str(drawn)
        )


def test_color_of_transparent_images_leaves_alpha_alone():
    alpha = np.random.default_rng(1).random((16, 16, 1)).astype(np.float32)
    drawn = Color(jnp.float32(0.3), jnp.float32(1.7), jnp.float32(0.6))
    changed = AUGMENTATIONS["color"].apply(np.concatenate([IMAGE, alpha], -1), drawn)
    np.testing.assert_array_equal(changed[..., 3:], alpha)
    np.testing.assert_allclose(changed[..., :3], color(IMAGE, drawn), atol=1e-6)


# Lowest and highest value of each number drawn for an image of 16 px.
RANGES = {
    "color": ([-0.5, 0, 0.5], [0.5, 2, 1.5]),
    "color_alpha": ([-0.5, 0, 0.5], [0.5, 2, 1.5]),
    "cutout": ([0, 0], [16, 16]),
    "translation": ([-2, -2], [2, 2]),
    "offset": ([-16, -16], [16, 16]),
    "offset_h": ([0, -16], [0, 16]),
    "offset_v": ([-16, 0], [16, 0]),
}


@pytest.mark.parametrize("name", RANGES)
def test_draws_fill_their_range_evenly(name):
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.vmap(lambda key: AUGMENTATIONS[name].draw(key, IMAGE.shape))(keys)
    drawn = np.stack(drawn, -1) if name.startswith("color") else np.asarray(drawn)
    low, high = map(np.array, RANGES[name])
    np.testing.assert_allclose(drawn.min(0), low, atol=2e-3)
    np.testing.assert_allclose(drawn.max(0), high, atol=2e-3)
    np.testing.assert_allclose(drawn.mean(0), (low + high) / 2, atol=0.04 * np.max(high - low))
    if name.startswith("offset"):
        assert not (drawn % 2).any()


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_augmentation_keeps_shape_and_type_and_depends_on_its_key(name, channels):
    draw, apply = AUGMENTATIONS[name]
    image = np.random.default_rng(0).random((16, 16, channels)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 20)
    changed = jax.vmap(lambda key: apply(jnp.asarray(image), draw(key, image.shape)))(keys)
    assert changed.shape == (20, *image.shape) and changed.dtype == np.float32
    assert np.isfinite(changed).all() and len(np.unique(changed, axis=0)) > 5


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_gradients_are_those_of_finite_differences(name):
    draw, apply = AUGMENTATIONS[name]
    with jax.enable_x64(True):
        image = jnp.asarray(IMAGE[:8, :8], jnp.float64)
        drawn = draw(jax.random.key(3), image.shape)
        weights = jnp.asarray(np.random.default_rng(1).standard_normal(image.shape))
        scalar = jax.jit(lambda x: jnp.sum(jnp.sin(apply(x, drawn)) * weights))
        direction = jnp.asarray(np.random.default_rng(2).standard_normal(image.shape))
        slope = (scalar(image + 1e-5 * direction) - scalar(image - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(jnp.vdot(jax.grad(scalar)(image), direction), slope, rtol=1e-6)


def run(images, seed=0, *, coin_keys=None, **options):
    keys = jax.random.split(jax.random.key(seed), 2 * len(images))
    settings = {
        "types": ("color", "cutout", "translation"),
        "prob": 0.5,
        "hflip": False,
        "flip_unaugmented": False,
    } | options
    coins = keys[len(images) :] if coin_keys is None else coin_keys
    return np.asarray(augment_images(jnp.asarray(images), keys[: len(images)], coins, **settings))


MANY = np.random.default_rng(4).random((64, 8, 8, 3)).astype(np.float32)


def changed(before, after):
    return (before != after).any((1, 2, 3))


def test_probability_zero_is_the_identity_and_one_changes_all():
    np.testing.assert_array_equal(run(MANY, prob=0.0), MANY)
    assert changed(MANY, run(MANY, prob=1.0)).all()


def test_each_image_has_its_own_coin_unless_the_coins_are_shared():
    assert 16 <= changed(MANY, run(MANY)).sum() <= 48
    for seed in range(6):
        shared = jnp.broadcast_to(jax.random.key(seed), (64,))
        assert changed(MANY, run(MANY, coin_keys=shared)).sum() in (0, 64)


def test_an_image_does_not_depend_on_the_others():
    others = MANY[::-1].copy()
    others[5] = MANY[5]
    np.testing.assert_array_equal(run(MANY)[5], run(others)[5])


def test_flips_of_unaugmented_images_are_a_choice():
    flipped = run(MANY, prob=0.0, hflip=True, flip_unaugmented=True)
    mirrored = (flipped == MANY[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == MANY).all((1, 2, 3))
    assert (mirrored ^ same).all() and 16 <= mirrored.sum() <= 48
    np.testing.assert_array_equal(run(MANY, prob=0.0, hflip=True), MANY)
    inside = run(MANY, types=(), prob=1.0, hflip=True)
    assert 16 <= (inside == MANY[:, :, ::-1]).all((1, 2, 3)).sum() <= 48


@pytest.mark.parametrize(
    ("images", "prob"), [(100, 0.2997), (10_000, 0.27), (50_000, 0.15), (100_000, 0), (10**6, 0)]
)
def test_probability_from_the_number_of_images(images, prob):
    assert prob_for(images) == pytest.approx(prob, abs=1e-12)
