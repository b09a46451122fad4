"""Grids and sheets of images."""

import numpy as np
import pytest

from lwgan.sampling import sheets


def test_grid_is_row_by_row_with_two_pixels_round_each():
    images = np.array([1, 2, 3], np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 1, 2, 1), np.uint8)
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
    np.testing.assert_array_equal(sheets.make_grid(images, 2)[..., 0], expected)


@pytest.mark.parametrize(("count", "columns", "channels"), [(1, 1, 3), (6, 3, 4), (5, 8, 1)])
def test_grid_shape(count, columns, channels):
    sheet = sheets.make_grid(np.zeros((count, 4, 6, channels), np.uint8), columns)
    assert sheet.shape == (-(-count // columns) * 6 + 2, columns * 8 + 2, channels)
    assert sheet.dtype == np.uint8


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (16, 4)]
)
def test_square_columns(count, columns):
    assert sheets.square_columns(count) == columns


def test_thumbnails_are_means():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    small = sheets.thumbnails(images, 4)
    expected = [
        [images[0, y : y + 2, x : x + 2].mean((0, 1)) for x in range(0, 8, 2)]
        for y in range(0, 8, 2)
    ]
    np.testing.assert_array_equal(small[0], np.round(expected))
    np.testing.assert_array_equal(sheets.thumbnails(images), images)
