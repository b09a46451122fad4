"""Grids, rows between latents, and pictures that depend on nothing but their seed and number."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lwgan import keys, sampling
from lwgan.errors import UserError
from tests import tiny


def test_grid_is_row_by_row_with_two_pixels_round_each():
    pictures = np.array([1, 2, 3], np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 1, 2, 1), np.uint8)
    expected = [
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 2, 2, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 3, 3, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(sampling.grid(pictures, 2)[..., 0], expected)


@pytest.mark.parametrize(("count", "columns", "channels"), [(1, 1, 3), (6, 3, 4), (5, 8, 1)])
def test_grid_shape(count, columns, channels):
    sheet = sampling.grid(np.zeros((count, 4, 6, channels), np.uint8), columns)
    assert sheet.shape == (-(-count // columns) * 6 + 2, columns * 8 + 2, channels)
    assert sheet.dtype == np.uint8


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (16, 4)]
)
def test_square_columns(count, columns):
    assert sampling.square_columns(count) == columns


def test_to_uint8_rounds_and_clips():
    values = np.array([-0.5, 0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1, 7], np.float32)
    np.testing.assert_array_equal(sampling.to_uint8(values), [0, 0, 0, 1, 254, 255, 255, 255])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(sampling.to_uint8(every.astype(np.float32) / 255), every)


def test_between_turns_and_stretches_at_constant_speed():
    starts, ends = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    path = sampling.between(starts, ends, 6).reshape(3, 6, 16)
    np.testing.assert_allclose(path[:, 0], starts, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], ends, atol=1e-6)
    unit = path / np.linalg.norm(path, axis=-1, keepdims=True)
    angles = np.arccos((unit[:, 1:] * unit[:, :-1]).sum(-1))
    np.testing.assert_allclose(angles, np.broadcast_to(angles[:, :1], (3, 5)), rtol=1e-3)
    np.testing.assert_allclose(angles.sum(1), sampling.angles(starts, ends), rtol=1e-3)
    growth = np.diff(np.linalg.norm(path, axis=-1))
    np.testing.assert_allclose(growth, np.broadcast_to(growth[:, :1], (3, 5)), atol=1e-5)


def test_loop_turns_by_the_same_angle_from_frame_to_frame():
    """Three right angles: 9° a frame, round every corner."""
    path, stops = sampling.closed_loop(np.eye(3, dtype=np.float32), 31)
    np.testing.assert_array_equal(stops, [0, 10, 20, 30])
    np.testing.assert_allclose(sampling.angles(path[:-1], path[1:]), np.pi / 20, rtol=1e-6)
    np.testing.assert_allclose(
        path[3], [np.cos(3 * np.pi / 20), np.sin(3 * np.pi / 20), 0], atol=1e-7
    )


@pytest.mark.parametrize(("count", "frames"), [(2, 3), (3, 7), (4, 240), (7, 240)])
def test_loop_is_closed_and_goes_through_all_keyframes(count, frames):
    keyframes = np.random.default_rng(count).normal(size=(count, 64)).astype(np.float32)
    path, stops = sampling.closed_loop(keyframes, frames)
    assert path.shape == (frames, 64) and path.dtype == np.float32
    np.testing.assert_array_equal(path[0], path[-1])
    np.testing.assert_allclose(path[stops], keyframes[[*range(count), 0]], atol=1e-5)
    if frames == 240:
        angles = sampling.angles(path[:-1], path[1:])
        assert angles.max() / angles.min() < 1 + 2 * count / frames


def test_loop_takes_longer_for_a_greater_angle():
    keyframes = np.array([[1, 0], [np.cos(0.5), np.sin(0.5)], [-1, 1e-6]], np.float32)
    _, stops = sampling.closed_loop(keyframes, 201)
    np.testing.assert_allclose(
        np.diff(stops), 200 * np.array([0.5, np.pi - 0.5, np.pi]) / (2 * np.pi), atol=1
    )


def test_loop_with_the_same_keyframe_twice_has_all_its_frames():
    keyframes = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    path, stops = sampling.closed_loop(keyframes, 9)
    np.testing.assert_array_equal(stops, [0, 0, 4, 8])
    np.testing.assert_allclose(sampling.angles(path[:-1], path[1:]), np.pi / 8, rtol=1e-6)


def test_thumbnails_are_means():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    small = sampling.thumbnails(images, 4)
    expected = [
        [images[0, y : y + 2, x : x + 2].mean((0, 1)) for x in range(0, 8, 2)]
        for y in range(0, 8, 2)
    ]
    np.testing.assert_array_equal(small[0], np.round(expected))
    np.testing.assert_array_equal(sampling.thumbnails(images), images)


@pytest.mark.parametrize("end", [1.0, -1.0, 2.0])
def test_between_latents_of_one_direction_is_finite(end):
    start = np.ones((1, 4), np.float32)
    path = sampling.between(start, end * start, 5)
    assert path.shape == (5, 4) and np.isfinite(path).all()
    np.testing.assert_allclose(path[[0, -1]], [start[0], end * start[0]], atol=1e-4)


@pytest.mark.parametrize("count", [2, 5])
def test_mean_distance_is_that_of_all_pairs(count):
    images = np.random.default_rng(0).uniform(size=(count, 3, 4, 2)).astype(np.float32)
    distances = [
        np.sqrt(np.mean((images[i] - images[j]) ** 2))
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    assert sampling.mean_distance(images) == pytest.approx(np.mean(distances), rel=1e-6)


def test_mean_distance_of_equal_pictures_is_zero():
    images = np.random.default_rng(0).uniform(size=(1, 8, 8, 3))
    assert sampling.mean_distance(images) == 0
    assert sampling.mean_distance(np.repeat(images, 4, 0)) < 1e-6


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("extension", ["png", "webp", "jpg"])
def test_save_picture(tmp_path, channels, mode, extension):
    if (channels, extension) == (4, "jpg"):
        pytest.skip("has no alpha")
    picture = np.random.default_rng(0).integers(100, 110, (4, 6, channels), np.uint8)
    sampling.save_picture(tmp_path / f"picture.{extension}", picture)
    assert [p.name for p in tmp_path.iterdir()] == [f"picture.{extension}"]
    with Image.open(tmp_path / f"picture.{extension}") as image:
        assert image.format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[extension]
        assert image.mode == mode or (extension, channels) == ("webp", 1)
        seen = np.asarray(image.convert(mode), int).reshape(4, 6, channels)
    # Transparent or not, webp is lossless.
    assert np.abs(seen - picture).max() <= (10 if extension == "jpg" else 0)


@pytest.fixture(scope="module")
def sampler():
    """A small generator with random weights, noise gains and statistics."""
    gan = tiny.gan()
    drawn = tiny.random_state(gan, 0)
    return sampling.Sampler(gan.generator, drawn.g_params, drawn.g_stats)


def test_pictures_do_not_depend_on_the_batch_size(sampler):
    latents = sampler.latents(0, 8)
    whole = sampler(latents, 0, 8)
    assert whole.shape == (8, 32, 32, 3) and whole.dtype == np.float32
    assert np.ptp(whole) > 0.1
    scale = np.abs(whole).max()
    for batch_size in (1, 3, 100):
        pictures = sampler(latents, 0, batch_size)
        np.testing.assert_allclose(pictures / scale, whole / scale, atol=1e-5)


def test_seed_decides_latents_and_noise(sampler):
    first, again, other = (np.asarray(sampler.latents(seed, 8)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (8, 8) and (first != other).any(1).all()
    pictures = [sampler(first, seed, 8) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any((1, 2, 3)).all()


def test_pictures_of_a_seed_differ_in_latents_and_in_noise(sampler):
    latents = np.asarray(sampler.latents(0, 8))
    assert len(np.unique(latents, axis=0)) == 8
    same = np.broadcast_to(latents[:1], latents.shape)
    pictures = sampler(same, 0, 8)
    assert (pictures[1:] != pictures[:1]).any((1, 2, 3)).all()


@pytest.mark.parametrize("first", [1, 5])
def test_picture_is_known_by_its_number(sampler, first):
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
    draws = sampling.Draws.of_seed(7, count)
    return sampler.stream(sampling.DrawnLatents(draws, 8), draws, batch_size, **options)


def test_the_first_pictures_are_those_of_a_shorter_run(sampler):
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


def test_a_picture_for_each_seed_is_its_first(sampler):
    draws = sampling.Draws(np.array([9, 2**32 - 1, 5], np.uint32), np.zeros(3, np.int32))
    pictures = list(sampler.stream(sampling.DrawnLatents(draws, 8), draws))
    for seed, picture in zip(draws.seeds, pictures, strict=True):
        own = sampler(sampler.latents(int(seed), 1), int(seed), 1)[0]
        np.testing.assert_allclose(picture, own, atol=1e-5 * np.abs(own).max())


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
    np.testing.assert_array_equal(whole, sampling.to_uint8(sampler(latents, seed=7)))
    np.testing.assert_array_equal(half, sampling.to_uint8(sampler(latents / 2, seed=7)))
    assert (whole != half).any((1, 2, 3)).all()


@pytest.mark.parametrize(
    "latents", [np.zeros((2, 7)), np.zeros(8), np.zeros((0, 8)), np.full((2, 8), "a")]
)
def test_latents_of_another_shape_are_refused(sampler, latents):
    with pytest.raises(UserError, match=r"must be numbers \(B, 8\)"):
        sampler(latents)
