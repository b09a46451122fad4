"""The order in which steps see images."""

import itertools

import numpy as np
import pytest

from lwgan.data import batches
from lwgan.data.batches import Layout, epoch_order, indices_at, read_batches
from lwgan.data.cache import load_dataset
from lwgan.data.sources import open_source
from tests import drawn


def test_epoch_order_is_a_permutation_of_its_own():
    orders = [epoch_order(*seed_epoch, 50) for seed_epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert sorted(order) == list(range(50))
    for first, second in itertools.combinations(orders, 2):
        assert (first != second).any()


@pytest.mark.parametrize("num_images", [1, 3, 8])
def test_each_epoch_shows_each_image_once(num_images):
    rows = indices_at(0, np.arange(4 * num_images), num_images).reshape(4, -1)
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(num_images), (4, 1)))


def test_positions_far_away_are_computed_directly():
    epoch_order.cache_clear()
    far = 10**6 * 40 + np.arange(14)
    indices = indices_at(3, far, 7)
    assert epoch_order.cache_info().misses <= 3
    expected = [epoch_order(3, int(p) // 7, 7)[int(p) % 7] for p in far]
    np.testing.assert_array_equal(indices, expected)


def test_positions_keep_their_shape():
    positions = np.arange(24).reshape(2, 3, 4)
    flat = indices_at(0, positions.ravel(), 5)
    np.testing.assert_array_equal(indices_at(0, positions, 5), flat.reshape(2, 3, 4))


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 7])
def test_layout_gives_an_example_the_same_index_on_any_number_of_devices(devices, step):
    layout = Layout(batches=2, batch_size=24, grad_accum=3, devices=devices)
    positions = layout.positions(step)
    m = 8 // devices
    assert positions.shape == (devices, 2, 3, m)
    for d, r, a, i in np.ndindex(positions.shape):
        assert positions[d, r, a, i] == step * 48 + r * 24 + (a * devices + d) * m + i


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
def test_stream_from_a_step_is_the_stream_after_it(folder, crop_prob):
    # 8 positions a step, of 5 images.
    layout = Layout(2, 4, 2, 2)

    def stream(cache, start, num_threads=2):
        config = drawn.settings(path=str(folder), cache=cache, crop_prob=crop_prob)
        kept = load_dataset(open_source(config), config)
        steps = read_batches(
            kept,
            np.arange(len(kept.names)),
            layout,
            seed=1,
            start_step=start,
            num_threads=num_threads,
        )
        return np.stack(list(itertools.islice(steps, 4 - start)))

    whole = stream("memory", 0)
    assert whole.shape == (4, 2, 2, 2, 1, 32, 32, 3) and whole.dtype == np.uint8
    assert len({batch.tobytes() for batch in whole}) == 4
    np.testing.assert_array_equal(stream("memory", 2), whole[2:])
    np.testing.assert_array_equal(stream("none", 0, num_threads=-1), whole)
    np.testing.assert_array_equal(stream("none", 3), whole[3:])


def test_batches_hold_the_images_that_the_order_names(folder):
    config = drawn.settings(path=str(folder))
    kept = load_dataset(open_source(config), config)
    steps = read_batches(
        kept,
        np.arange(len(kept.names)),
        Layout(1, 4, 1, 2),
        seed=1,
        start_step=3,
        num_threads=1,
    )
    batch = next(steps).reshape(4, 32, 32, 3)
    for image, index in zip(batch, indices_at(1, np.arange(12, 16), 5), strict=True):
        alone = kept.centre(int(index))
        np.testing.assert_array_equal(image, alone)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_batch(folder, processes):
    layout = Layout(batches=2, batch_size=8, grad_accum=2, devices=4)
    config = drawn.settings(path=str(folder))
    kept = load_dataset(open_source(config), config)

    def stream(devices):
        steps = read_batches(
            kept,
            np.arange(len(kept.names)),
            layout,
            seed=1,
            start_step=5,
            num_threads=1,
            devices=devices,
        )
        return np.stack(list(itertools.islice(steps, 3)))

    own = 4 // processes
    shares = [stream(slice(p * own, (p + 1) * own)) for p in range(processes)]
    assert shares[0].shape == (3, own, 2, 2, 1, 32, 32, 3)
    np.testing.assert_array_equal(np.concatenate(shares, 1), stream(slice(None)))


@pytest.mark.parametrize("together", [1, 3, 1000])
def test_how_many_steps_are_gathered_at_once_changes_nothing(folder, monkeypatch, together):
    config = drawn.settings(path=str(folder))
    kept = load_dataset(open_source(config), config)
    monkeypatch.setattr(batches, "_BYTES", together * 4 * 32 * 32 * 4)
    steps = read_batches(
        kept,
        np.arange(len(kept.names)),
        Layout(1, 4, 1, 1),
        seed=1,
        start_step=2,
        num_threads=2,
    )
    for step, batch in zip(range(2, 9), steps, strict=False):
        positions = np.arange(4 * step, 4 * step + 4)
        expected = drawn.pixels(kept)[indices_at(1, positions, 5)]
        np.testing.assert_array_equal(batch.reshape(expected.shape), expected)
