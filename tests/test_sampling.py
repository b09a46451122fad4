"""Grids, rows between latents, and pictures that depend on nothing but their seed and number."""

import jax
import numpy as np
import pytest
from PIL import Image

from configs import default
from lwgan import sampling, state


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


def test_between_goes_from_start_to_end_at_constant_speed():
    rng = np.random.default_rng(0)
    starts, ends = rng.normal(size=(2, 3, 16)).astype(np.float32)
    ends *= np.linalg.norm(starts, axis=-1, keepdims=True) / np.linalg.norm(
        ends, axis=-1, keepdims=True
    )
    path = sampling.between(starts, ends, 6).reshape(3, 6, 16)
    np.testing.assert_allclose(path[:, 0], starts, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], ends, atol=1e-6)
    unit = path / np.linalg.norm(path, axis=-1, keepdims=True)
    angles = np.arccos((unit[:, 1:] * unit[:, :-1]).sum(-1))
    np.testing.assert_allclose(angles, np.broadcast_to(angles[:, :1], (3, 5)), rtol=1e-3)
    lengths = np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:, :1], (3, 6)), rtol=1e-5)


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
def test_save_picture(tmp_path, channels, mode):
    picture = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    sampling.save_picture(tmp_path / "picture.png", picture)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as image:
        assert image.mode == mode and image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image).reshape(4, 5, channels), picture)


@pytest.fixture(scope="module")
def sampler():
    """A small generator with random weights, noise gains and statistics."""
    config = default.get_config()
    config.data.image_size = 32
    config.model.update(latent_dim=8, fmap_max=8, recon_size=16, attn_resolutions=())
    generator = state.build_generator(config)
    like = jax.eval_shape(lambda: state.init_state(state.build(config), 0))
    rng = np.random.default_rng(0)

    def drawn(shape):
        return rng.uniform(0.2, 1.0, shape.shape).astype(np.float32)

    params, stats = jax.tree.map(drawn, (like.g_params, like.g_stats))
    return sampling.Sampler(generator, params, stats)


def test_pictures_do_not_depend_on_the_batch_size(sampler):
    latents = sampler.latents(0, 8)
    whole = sampler.pictures(latents, 0, 8)
    assert whole.shape == (8, 32, 32, 3) and whole.dtype == np.float32
    assert np.ptp(whole) > 0.1
    scale = np.abs(whole).max()
    for batch_size in (1, 3, 100):
        pictures = sampler.pictures(latents, 0, batch_size)
        np.testing.assert_allclose(pictures / scale, whole / scale, atol=1e-5)


def test_seed_decides_latents_and_noise(sampler):
    first, again, other = (np.asarray(sampler.latents(seed, 8)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (8, 8) and (first != other).any(1).all()
    pictures = [sampler.pictures(first, seed, 8) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any((1, 2, 3)).all()


def test_pictures_of_a_seed_differ_in_latents_and_in_noise(sampler):
    latents = np.asarray(sampler.latents(0, 8))
    assert len(np.unique(latents, axis=0)) == 8
    same = np.broadcast_to(latents[:1], latents.shape)
    pictures = sampler.pictures(same, 0, 8)
    assert (pictures[1:] != pictures[:1]).any((1, 2, 3)).all()


@pytest.mark.parametrize("first", [1, 5])
def test_picture_is_known_by_its_number(sampler, first):
    latents = sampler.latents(0, 8)
    np.testing.assert_array_equal(sampler.latents(0, 2, first), latents[first : first + 2])
    whole = sampler.pictures(latents, 0, 8)
    alone = sampler.pictures(latents[first : first + 2], 0, 1, first)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(alone / scale, whole[first : first + 2] / scale, atol=1e-5)
