"""Grids, rows between latents, and images that depend on nothing but their seed and number."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lwgan import keys
from lwgan.errors import UserError
from lwgan.models.build import CHANNELS
from lwgan.sampling import image_files
from lwgan.sampling.sampler import DrawnLatents, Draws, Sampler, to_uint8
from tests import tiny


def test_to_uint8_rounds_and_clips():
    values = np.array([-0.5, 0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1, 7], np.float32)
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 0, 1, 254, 255, 255, 255])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every.astype(np.float32) / 255), every)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("extension", ["png", "webp", "jpg"])
def test_save_image(tmp_path, channels, mode, extension):
    if (channels, extension) == (4, "jpg"):
        pytest.skip("has no alpha")
    image = np.random.default_rng(0).integers(100, 110, (4, 6, channels), np.uint8)
    image_files.save_image(tmp_path / f"image.{extension}", image)
    assert [p.name for p in tmp_path.iterdir()] == [f"image.{extension}"]
    with Image.open(tmp_path / f"image.{extension}") as opened:
        assert opened.format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[extension]
        assert opened.mode == mode or (extension, channels) == ("webp", 1)
        seen = np.asarray(opened.convert(mode), int).reshape(4, 6, channels)
    # Transparent or not, webp is lossless.
    assert np.abs(seen - image).max() <= (10 if extension == "jpg" else 0)


@pytest.fixture(scope="module")
def sampler():
    """A small generator with random weights, noise gains and statistics."""
    gan = tiny.gan()
    drawn = tiny.random_state(gan, 0)
    return Sampler(gan.generator, drawn.g_params, drawn.g_stats)


@pytest.mark.parametrize("mode", CHANNELS)
def test_it_is_shown_in_a_line(mode):
    generator = tiny.gan(data__mode=mode, data__image_size=64, model__latent_dim=9).generator
    assert repr(Sampler(generator, {}, {})) == f"Sampler(64 px {mode}, latents of 9)"


def test_images_do_not_depend_on_the_batch_size(sampler):
    latents = sampler.latents(0, 8)
    whole = sampler(latents, 0, 8)
    assert whole.shape == (8, 32, 32, 3) and whole.dtype == np.float32
    assert np.ptp(whole) > 0.1
    scale = np.abs(whole).max()
    for batch_size in (1, 3, 100):
        images = sampler(latents, 0, batch_size)
        np.testing.assert_allclose(images / scale, whole / scale, atol=1e-5)


def test_seed_decides_latents_and_noise(sampler):
    first, again, other = (np.asarray(sampler.latents(seed, 8)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (8, 8) and (first != other).any(1).all()
    images = [sampler(first, seed, 8) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any((1, 2, 3)).all()


def test_images_of_a_seed_differ_in_latents_and_in_noise(sampler):
    latents = np.asarray(sampler.latents(0, 8))
    assert len(np.unique(latents, axis=0)) == 8
    same = np.broadcast_to(latents[:1], latents.shape)
    images = sampler(same, 0, 8)
    assert (images[1:] != images[:1]).any((1, 2, 3)).all()


@pytest.mark.parametrize("first", [1, 5])
def test_image_is_known_by_its_number(sampler, first):
    latents = sampler.latents(0, 8)
    np.testing.assert_array_equal(sampler.latents(0, 2, first), latents[first : first + 2])
    whole = sampler(latents, 0, 8)
    alone = sampler(latents[first : first + 2], 0, 1, first)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(alone / scale, whole[first : first + 2] / scale, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_latents_are_those_of_the_scheme(sampler, seed):
    numbers = jnp.arange(3)
    own = keys.example_keys(keys.seed_key(seed), keys.Draw.SAMPLE_LATENTS, numbers)
    np.testing.assert_array_equal(sampler.latents(seed, 3), keys.draw_latents(own, 8))


def stream(sampler, count, batch_size=4, **options):
    draws = Draws.of_seed(7, count)
    return sampler.stream(DrawnLatents(draws, 8), draws, batch_size, **options)


def test_the_first_images_are_those_of_a_shorter_run(sampler):
    """Byte for byte, though the last batch of the shorter one is not full."""
    many, few = (np.stack(list(stream(sampler, count))) for count in (40, 10))
    assert many.shape == (40, 32, 32, 3) and many.dtype == np.float32
    np.testing.assert_array_equal(many[:10], few)
    assert len(np.unique(many, axis=0)) == 40


def test_no_more_than_two_batches_are_drawn_ahead(sampler):
    asked = []

    class Endless:
        def __len__(self):
            return 10**9

        def __getitem__(self, where):
            asked.append(where)
            return np.zeros((where.stop - where.start, 8), np.float32)

    taken = list(itertools.islice(sampler.stream(Endless(), None, 4), 6))
    assert len(taken) == 6
    assert asked == [slice(0, 4), slice(4, 8), slice(8, 12)]


def test_an_image_for_each_seed_is_its_first(sampler):
    draws = Draws(np.array([9, 2**32 - 1, 5], np.uint32), np.zeros(3, np.int32))
    images = list(sampler.stream(DrawnLatents(draws, 8), draws))
    for seed, image in zip(draws.seeds, images, strict=True):
        own = sampler(sampler.latents(int(seed), 1), int(seed), 1)[0]
        np.testing.assert_allclose(image, own, atol=1e-5 * np.abs(own).max())


def test_call_draws_noise_of_a_seed_or_none(sampler):
    latents = np.repeat(np.asarray(sampler.latents(0, 1)), 2, axis=0)
    fixed, again, other = (
        sampler(latents, seed=3),
        sampler(latents, seed=3),
        sampler(latents, seed=4),
    )
    assert fixed.shape == (2, 32, 32, 3) and fixed.dtype == np.float32
    np.testing.assert_array_equal(fixed, again)
    assert (fixed != other).any((1, 2, 3)).all() and (fixed[0] != fixed[1]).any()
    silent = sampler(latents, seed=None)
    np.testing.assert_allclose(silent[0], silent[1], atol=1e-5 * np.abs(silent).max())


def test_truncation_scales_the_latents(sampler):
    latents = np.asarray(sampler.latents(7, 4))
    whole, half = sampler.sample(7, 4), sampler.sample(7, 4, truncation=0.5)
    assert whole.dtype == half.dtype == np.uint8 and whole.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(whole, to_uint8(sampler(latents, seed=7)))
    np.testing.assert_array_equal(half, to_uint8(sampler(latents / 2, seed=7)))
    assert (whole != half).any((1, 2, 3)).all()


@pytest.mark.parametrize(
    "latents", [np.zeros((2, 7)), np.zeros(8), np.zeros((0, 8)), np.full((2, 8), "a")]
)
def test_latents_of_another_shape_are_refused(sampler, latents):
    with pytest.raises(UserError, match=r"must be numbers \(B, 8\)"):
        sampler(latents)
