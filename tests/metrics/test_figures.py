"""FID, KID, precision, recall and memorisation: closed forms, and the definitions written out
slowly.
"""

import itertools

import numpy as np
import pytest

from lwgan.metrics import frechet, kid, neighbours
from lwgan.metrics.figures import METRICS, Extracted, Reals, measure
from lwgan.metrics.frechet import Moments, frechet_distance, merge, moments, stream

RNG = np.random.default_rng


def gaussian(mean, covariance, count=100):
    return Moments(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def rotation(size, seed):
    return np.linalg.qr(RNG(seed).normal(size=(size, size)))[0]


def test_frechet_distance_of_gaussians_with_one_shape():
    """Equal covariances: the squared distance of the means."""
    covariance = np.cov(RNG(0).normal(size=(5, 40)))
    a, b = gaussian(np.zeros(5), covariance), gaussian(np.arange(5), covariance)
    assert frechet_distance(a, b) == pytest.approx(30, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_frechet_distance_of_covariances_with_the_same_axes(size):
    """Then it is the squared distance of the means plus that of the standard deviations."""
    axes, rng = rotation(size, 0), RNG(1)
    s, t = rng.uniform(0.1, 3, (2, size))
    apart = rng.normal(size=size)
    a = gaussian(np.zeros(size), axes * s**2 @ axes.T)
    b = gaussian(apart, axes * t**2 @ axes.T)
    expected = (apart**2).sum() + ((s - t) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_two_general_gaussians_of_two_dimensions():
    """tr (AB)^½ = (tr AB + 2 (det AB)^½)^½ for 2×2 matrices."""
    a, b = (x @ x.T for x in RNG(2).normal(size=(2, 2, 2)))
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * root
    found = frechet_distance(gaussian([0, 0], a), gaussian([0, 0], b))
    assert found == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_fewer_samples_than_dimensions():
    """Then tr (AB)^½ is the sum of the singular values of the product of the deviations."""
    x, y = RNG(3).normal(size=(2, 30, 200))
    y = 2 * y[:20] + 1
    dx, dy = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    root = np.linalg.svd(dx @ dy.T, compute_uv=False).sum()
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = apart + (dx**2).sum() + (dy**2).sum() - 2 * root
    a, b = moments(x), moments(y)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_from_a_point():
    a = gaussian([1, 2, 3], np.zeros((3, 3)))
    b = gaussian([0, 0, 0], np.diag([1, 4, 9]))
    assert frechet_distance(a, b) == pytest.approx(14 + 14, rel=1e-6)


def test_moments_are_those_of_the_whole_set_however_it_comes():
    features = (RNG(0).normal(size=(101, 7)) + 1000).astype(np.float32)
    mean, covariance = features.mean(0, float), np.cov(features.astype(float).T)
    parts = np.split(features, [1, 2, 40, 90])
    for found in (
        moments(features),
        stream(parts),
        merge(stream(parts[:2]), merge(moments(parts[2]), stream(parts[3:]))),
        Extracted(features).moments,
    ):
        assert found.count == 101
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-10)


def naive_kid(x, y):
    """Mean of the kernel over pairs of different images, by the definition."""

    def mean(a, b, same):
        pairs = itertools.product(range(len(a)), range(len(b)))
        return np.mean(
            [(a[i] @ b[j] / a.shape[1] + 1) ** 3 for i, j in pairs if not same or i != j]
        )

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (23, 31), (50, 9)])
def test_kid_is_the_mean_over_all_pairs(n, m):
    x, y = RNG(0).normal(size=(n, 6)), RNG(1).normal(size=(m, 6)) + 0.5
    assert kid.kernel_distance(x, y)[0] == pytest.approx(naive_kid(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(48, 40), (16, 40), (40, 12)])
def test_kid_of_large_sets_is_the_mean_of_blocks(monkeypatch, n, m):
    """Of the larger set alone, where the other one is a block."""
    monkeypatch.setattr(kid, "BLOCK", 16)
    x, y = RNG(0).normal(size=(n, 6)), RNG(1).normal(size=(m, 6))
    orders = (RNG(0).permutation(len(z)) for z in (x, y))
    a, b = (np.array_split(order, 3) if len(order) > 16 else [order] * 3 for order in orders)
    expected = np.mean([naive_kid(x[i], y[j]) for i, j in zip(a, b, strict=True)])
    assert kid.kernel_distance(x, y)[0] == pytest.approx(expected, rel=1e-9)


def test_kid_does_not_depend_on_the_order_of_the_images(monkeypatch):
    monkeypatch.setattr(kid, "BLOCK", 100)
    x, y = RNG(0).normal(size=(400, 8)), RNG(1).normal(size=(400, 8))
    x[::2] += 3
    # As where each class has a folder.
    y[:200] += 3
    mean, error = kid.kernel_distance(x, y)
    assert abs(mean) < 4 * error


@pytest.mark.parametrize("counts", [(10, 400), (8, 81), (12, 161), (400, 25)])
def test_kid_of_sets_of_very_different_sizes_is_finite(monkeypatch, counts):
    monkeypatch.setattr(kid, "BLOCK", 40)
    x, y = (RNG(number).normal(size=(count, 6)) for number, count in enumerate(counts))
    mean, error = kid.kernel_distance(x, y)
    assert abs(mean) < 5 * error < 5


@pytest.mark.parametrize("block", [20, 1000])
def test_kid_is_unbiased_and_its_standard_error_true(monkeypatch, block):
    """Of equal distributions 0 on average; the spread of 150 estimates is what each
    says of itself.
    """
    monkeypatch.setattr(kid, "BLOCK", block)
    rng = RNG(0)
    found = np.array([kid.kernel_distance(*rng.normal(size=(2, 40, 3))) for _ in range(150)])
    spread = found[:, 0].std()
    assert abs(found[:, 0].mean()) < 4 * spread / 12
    found = np.array(
        [
            kid.kernel_distance(rng.normal(size=(40, 3)), 1 + rng.normal(size=(40, 3)))
            for _ in range(150)
        ]
    )
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(), rel=0.25)


def naive_share(points, centres, k):
    inside = 0
    for point in points:
        for centre in centres:
            others = sorted(np.linalg.norm(centres - centre, axis=1))
            # The first is itself.
            if np.linalg.norm(point - centre) <= others[k]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("block", [4096, 16, 5])
def test_precision_and_recall_by_their_definition(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "UNIT", 1)
    samples, reals = RNG(0).normal(size=(40, 5)) * 0.7 + 0.5, RNG(1).normal(size=(30, 5))
    found = neighbours.precision_and_recall(samples, reals)
    assert found == (naive_share(samples, reals, 3), naive_share(reals, samples, 3))
    assert 0 < found[1] < found[0] < 1


def test_precision_and_recall_tell_quality_from_coverage():
    reals = np.concatenate([RNG(0).normal(size=(200, 4)), RNG(1).normal(size=(200, 4)) + 20])
    one_mode, far = RNG(2).normal(size=(400, 4)), RNG(3).normal(size=(400, 4)) + 100
    precision, recall = neighbours.precision_and_recall(one_mode, reals)
    assert precision > 0.8 and recall < 0.6
    assert neighbours.precision_and_recall(far, reals) == (0, 0)
    assert neighbours.precision_and_recall(reals, reals) == (1, 1)


def images(count, seed, symmetric=False):
    """Features of drawn "images" and of their mirror images: the second half changes sides."""
    features = RNG(seed).normal(size=(count, 24)).astype(np.float32)
    if symmetric:
        features[:, 12:] = 1e-3 * features[:, :12]
    return features, np.concatenate([features[:, :12], -features[:, 12:]], 1)


@pytest.mark.parametrize("block", [4096, 9])
@pytest.mark.parametrize("symmetric", [False, True])
def test_copies_are_told_from_new_images(monkeypatch, block, symmetric):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "UNIT", 1)
    training, mirrored = images(150, 0, symmetric)
    new, _ = images(150, 1, symmetric)
    nearly = training + RNG(2).normal(size=training.shape).astype(np.float32) * 0.1
    for copies in (training, mirrored, nearly):
        found = neighbours.memorisation(copies, training, mirrored)
        np.testing.assert_array_equal(found.nearest[:, 0], np.arange(150))
        assert found.closer == found.copies == 1 and found.ratios.max() < 0.5
    found = neighbours.memorisation(new, training, mirrored)
    assert found.copies < 0.12
    assert found.closer == pytest.approx(found.closer_if_new, abs=0.12)
    mixed = neighbours.memorisation(np.concatenate([new[:120], nearly[:30]]), training, mirrored)
    assert mixed.copies == pytest.approx(0.2, abs=0.1)
    assert set(np.argsort(mixed.ratios)[:30]) == set(range(120, 150))


def test_images_that_are_there_twice_hide_no_copies():
    training, mirrored = images(60, 0)
    twice = training.repeat(2, 0), mirrored.repeat(2, 0)
    found = neighbours.memorisation(training[:30], *twice)
    assert found.closer == found.copies == 1
    np.testing.assert_array_equal(found.nearest[:, 0], range(0, 60, 2))
    assert neighbours.memorisation(images(60, 1)[0], *twice).copies < 0.2


def test_a_set_is_no_distance_from_itself():
    features = RNG(0).gamma(0.5, size=(60, 300)).astype(np.float32)
    seen = Extracted(features)
    found = measure(seen, Reals(Extracted(features.copy())), METRICS)
    assert {"fid", "kid", "kid_stderr", "precision", "recall"} <= found.keys()
    assert abs(found["fid"]) < 1e-3 and found["precision"] == found["recall"] == 1
    # Unbiased: the pairs of equals are left out of one part only.
    assert found["kid"] < 0
    assert frechet.frechet_distance(seen.moments, seen.moments) < 1e-6
