"""How different images are from each other."""

import numpy as np
import pytest

from lwgan.metrics.diversity import mean_distance


@pytest.mark.parametrize("count", [2, 5])
def test_mean_distance_is_that_of_all_pairs(count):
    images = np.random.default_rng(0).uniform(size=(count, 3, 4, 2)).astype(np.float32)
    distances = [
        np.sqrt(np.mean((images[i] - images[j]) ** 2))
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    assert mean_distance(images) == pytest.approx(np.mean(distances), rel=1e-6)


def test_mean_distance_of_equal_images_is_zero():
    images = np.random.default_rng(0).uniform(size=(1, 8, 8, 3))
    assert mean_distance(images) == 0
    assert mean_distance(np.repeat(images, 4, 0)) < 1e-6
