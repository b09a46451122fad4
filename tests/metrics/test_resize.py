"""Resizing beside Pillow, as clean-fid calls it, and beside bilinear interpolation by hand."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from lwgan.metrics.networks.resize import RESIZES, resize_image, resize_images


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(64, 64), (32, 50), (299, 299), (512, 300), (777, 1030), (9, 7)])
@pytest.mark.parametrize("size", [224, 299])
def test_clean_is_pillows_bicubic_on_floats(shape, size):
    """To 1e-4 of values up to 255: float32 products against Pillow's of one filter
    after the other.
    """
    images = noise(*shape)
    expected = [
        [
            np.asarray(
                Image.fromarray(image[..., channel].astype(np.float32)).resize(
                    (size, size), Image.Resampling.BICUBIC
                )
            )
            for channel in range(3)
        ]
        for image in images
    ]
    expected = np.moveaxis(np.clip(expected, 0, 255), 1, -1)
    np.testing.assert_allclose(resize_images(images, size, "clean"), expected, atol=1e-4)
    alone = [resize_image(image, size, "clean") for image in images]
    np.testing.assert_allclose(alone, expected, atol=1e-4)


def test_pytorch_fid_interpolates_between_the_middles_of_pixels():
    images = np.array([0, 100], np.uint8).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(
        resize_images(images, 4, "pytorch_fid")[0, 0, :, 0], [0, 25, 75, 100]
    )
    images = np.arange(6, dtype=np.uint8).reshape(1, 1, 6, 1)
    np.testing.assert_allclose(resize_images(images, 2, "pytorch_fid")[0, 0, :, 0], [1, 4])
    images = np.arange(8, dtype=np.uint8).reshape(1, 8, 1, 1)
    np.testing.assert_allclose(resize_images(images, 2, "pytorch_fid")[0, :, 0, 0], [1.5, 5.5])
    alone = resize_image(images[0], 2, "pytorch_fid")
    np.testing.assert_allclose(alone[:, 0, 0], [1.5, 5.5])


@pytest.mark.parametrize("way", RESIZES)
def test_resizing_keeps_constants_and_images_of_the_right_size(way):
    grey = np.full((1, 100, 37, 3), 77, np.uint8)
    np.testing.assert_allclose(resize_images(grey, 60, way), 77, atol=1e-4)
    same = noise(64, 64)
    np.testing.assert_allclose(resize_images(same, 64, way), same, atol=1e-5)


@pytest.mark.parametrize("way", RESIZES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 700), (256, 31), (513, 257), (2000, 3000)])
def test_one_image_on_the_host_is_as_in_a_batch(way, shape):
    """To 1e-3 of values up to 255; of several bands and of a part of one."""
    image = noise(*shape)[0]
    alone = resize_image(image, 299, way)
    assert alone.dtype == np.float32 and alone.shape == (299, 299, 3)
    np.testing.assert_allclose(alone, resize_images(image[None], 299, way)[0], atol=1e-3)


def test_a_photograph_takes_little_more_memory_than_it_has():
    """Of 24 megapixels, float32 of all would be 288 MB."""
    photograph = np.zeros((4000, 6000, 3), np.uint8)
    # Its matrices are kept.
    resize_image(photograph, 224, "clean")
    tracemalloc.start()
    try:
        resize_image(photograph, 224, "clean")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1e6 < most < 24e6
