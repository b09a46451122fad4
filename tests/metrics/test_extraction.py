"""What is measured of real images: once each, kept, and larger the worse the samples are."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lwgan.data import decode
from lwgan.data.cache import load_dataset
from lwgan.data.sources import open_source
from lwgan.metrics import neighbours
from lwgan.metrics.extraction import Extracted, extract_dataset, extract_once
from lwgan.metrics.figures import Reals, measure
from lwgan.metrics.networks.features import Features, open_features
from lwgan.metrics.networks.layers import Output
from tests import drawn


class Averages:
    """A network that sees the mean colour of each quarter; counts the images that it has seen."""

    name, resize, fingerprint, batch_size = "averages", "clean", "0", 4

    def __init__(self):
        self.seen = []

    def outputs(self, batches):
        for images in batches:
            self.seen += list(images)
            half = images.shape[1] // 2
            parts = [images[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
            features = np.concatenate([part.mean((1, 2)) for part in parts], 1)
            yield Output(features.astype(np.float32), features)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lwgan" / "features"


def load(mode="rgb", **changes):
    data = drawn.settings(source="openmoji", mode=mode, **changes)
    source = open_source(data)
    return load_dataset(source, data), data


def test_background_and_channels():
    grey = np.array([[[[7]]]], np.uint8)
    np.testing.assert_array_equal(decode.to_rgb(grey, "white"), [[[[7, 7, 7]]]])
    rgb = np.array([[[[1, 2, 3]]]], np.uint8)
    np.testing.assert_array_equal(decode.to_rgb(rgb, "white"), rgb)
    rgba = np.array([[[[10, 20, 200, 0], [10, 20, 200, 255], [10, 20, 200, 102]]]], np.uint8)
    white = [[[[255, 255, 255], [10, 20, 200], [157, 161, 233]]]]
    np.testing.assert_array_equal(decode.to_rgb(rgba, "white"), white)
    black = [[[[0, 0, 0], [10, 20, 200], [4, 8, 80]]]]
    np.testing.assert_array_equal(decode.to_rgb(rgba, "black"), black)
    assert decode.to_rgb(rgba, "black").dtype == np.uint8


def test_real_images_are_the_data_sets_own_each_once():
    kept, data = load()
    network = Averages()
    indices = np.arange(len(kept.names))
    seen = extract_dataset(network, kept, indices, data, background="white")
    assert len(network.seen) == len(seen.features) == len(kept.names) == 106
    np.testing.assert_array_equal(network.seen, drawn.pixels(kept))


@pytest.mark.parametrize("mode", ["rgba", "grey"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_real_images_in_three_channels(mode, mirrored):
    kept, data = load(mode, crop_prob=0.5)
    network, indices = Averages(), np.array([3, 50, 7, 9, 2])
    extract_dataset(network, kept, indices, data, background="black", mirrored=mirrored)
    expected = decode.to_rgb(np.stack([kept.centre(index) for index in indices]), "black")
    expected = expected[:, :, ::-1] if mirrored else expected
    np.testing.assert_array_equal(network.seen, expected)


def test_what_was_seen_is_kept_by_all_that_it_depends_on(cache):
    kept, data = load()
    network, indices = Averages(), np.arange(10)

    def see(network=network, dataset=kept, indices=indices, background="white", **other):
        before = len(network.seen)
        seen = extract_dataset(network, dataset, indices, data, background=background, **other)
        return seen, len(network.seen) - before

    first, looked_at = see()
    assert looked_at == 10
    again, looked_at = see()
    assert looked_at == 0
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_allclose(again.moments.mean, first.features.mean(0), rtol=1e-6)
    others = [
        {"dataset": dataclasses.replace(kept, contents=kept.contents + 1)},
        {"indices": np.arange(1, 11)},
        {"background": "black"},
        {"mirrored": True},
    ]
    for other in others:
        assert see(**other)[1] == 10, other
    for name in ("name", "resize", "fingerprint"):
        other = Averages()
        setattr(other, name, "another")
        assert see(network=other)[1] == 10, name
    files = list(cache.iterdir())
    assert len(files) == 8 and all(file.suffix == ".npy" for file in files)


def test_a_failure_leaves_nothing_behind(cache):
    def batches():
        yield np.zeros((2, 8, 8, 3), np.uint8)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        extract_once(Averages(), batches(), 4, "", ("key",))
    assert not cache.exists() or not list(cache.iterdir())


@pytest.fixture(scope="module")
def network() -> Features:
    return open_features("efficientnet_lite0")


@pytest.fixture(scope="module")
def faces():
    data = drawn.settings(source="openmoji", image_size=64)
    kept = load_dataset(open_source(data), data)
    return drawn.pixels(kept)


def blurred(images, radius):
    filters = (Image.fromarray(x).filter(ImageFilter.GaussianBlur(radius)) for x in images)
    return np.stack([np.asarray(image) for image in filters])


def noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


STRENGTHS = {"blur": (0.5, 1, 2, 4, 8), "noise": (4, 12, 30, 70, 150)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRENGTHS)
def test_figures_grow_with_what_is_done_to_images(network, faces, kind):
    damage = {"blur": blurred, "noise": noisy}[kind]
    reals = Extracted(network(faces))
    seen = [reals] + [Extracted(network(damage(faces, strength))) for strength in STRENGTHS[kind]]
    found = [measure(samples, Reals(reals), ("fid", "kid", "pr")) for samples in seen]
    assert abs(found[0]["fid"]) < 1e-3
    for name in ("fid", "kid"):
        figures = [figure[name] for figure in found]
        assert (np.diff(figures) > 0).all(), (name, figures)
    assert found[0]["precision"] == 1 and found[-1]["precision"] == 0


@pytest.mark.slow
def test_figures_grow_with_what_is_left_out(network, faces):
    """Mode dropping: the faces most like one of them alone, fewer and fewer."""
    features = network(faces)
    reals = Extracted(features)
    near = np.argsort(((features - features[0]) ** 2).sum(1))
    kept = [Extracted(features[near[:count]]) for count in (106, 80, 60, 40, 25, 12)]
    found = [measure(samples, Reals(reals), ("fid", "kid", "pr")) for samples in kept]
    for name in ("fid", "kid"):
        figures = [figure[name] for figure in found]
        assert (np.diff(figures) > 0).all(), (name, figures)
    recalls = [figure["recall"] for figure in found]
    assert (np.diff(recalls) < 0).all() and all(figure["precision"] == 1 for figure in found)


@pytest.mark.slow
def test_planted_copies_of_images_are_found(network, faces):
    """Exact, mirrored and slightly blurred ones; faces that were left out are new."""
    order = np.random.default_rng(0).permutation(len(faces))
    trained, new = faces[order[:80]], faces[order[80:]]
    training, mirrored = network(trained), network(trained[:, :, ::-1])
    planted = {
        "exact": training[:26],
        "flipped": mirrored[:26],
        "blurred": network(blurred(trained[:26], 0.4)),
        "flipped and blurred": network(blurred(trained[:26, :, ::-1], 0.4)),
    }
    for name, samples in planted.items():
        found = neighbours.memorisation(samples, training, mirrored)
        assert found.closer == 1 and found.copies > 0.9, (name, found)
        assert (found.nearest[:, 0] == np.arange(26)).mean() > 0.9, name
    found = neighbours.memorisation(network(new), training, mirrored)
    assert found.copies <= 0.1
    assert found.closer == pytest.approx(found.closer_if_new, abs=0.15)


def test_a_damaged_or_unwritable_cache_costs_only_time(cache, caplog):
    def see():
        return extract_once(network, [np.full((2, 8, 8, 3), 9, np.uint8)], 2, "", ("key",))

    network = Averages()
    first = see()
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    np.testing.assert_array_equal(see().features, first.features)
    assert len(network.seen) == 4
    see()
    assert len(network.seen) == 4
    file.unlink()
    cache.rmdir()
    cache.write_text("no directory")
    np.testing.assert_array_equal(see().features, first.features)
    assert "cannot be kept" in caplog.text
