"""One evaluator: which images it looks at, and what it writes down."""

import numpy as np
import pytest

from lwgan.metrics import evaluator
from lwgan.metrics.evaluator import build_evaluator, way_of_settings
from lwgan.metrics.extraction import Extracted
from lwgan.metrics.frechet import frechet_distance
from lwgan.metrics.kid import kernel_distance
from lwgan.metrics.neighbours import precision_and_recall
from lwgan.metrics.realness import Critic
from lwgan.metrics.records import WAY
from lwgan.sampling.sampler import Sampler
from lwgan.training.session import prepare
from tests import tiny
from tests.metrics.test_extraction import Averages


class Means(Averages):
    """Named as one of the real ones, for settings to allow it."""

    name, fingerprint = "efficientnet_lite0", "means"

    def __call__(self, batches):
        return np.concatenate([output.features for output in self.outputs(batches)])


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A session whose evaluator sees mean colours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluator, "open_features", lambda name, weights, resize: Means())
    config = tiny.config(
        data__holdout=0.25, eval__num_images=40, eval__features="efficientnet_lite0"
    )
    return prepare(config, tmp_path / "run")


def sampler_of(session):
    state = tiny.init(session.gan)
    return state, Sampler(session.gan.generator, state.ema_params, state.ema_stats)


def test_a_record_says_how_it_was_measured(session):
    own = build_evaluator(session.config, session.dataset)
    _, sampler = sampler_of(session)
    record, samples = own.measure(sampler, 7)
    assert samples.features.shape[0] == 40
    assert {name: record[name] for name in WAY} == own.way and record["step"] == 7
    expected = way_of_settings(session.config, session.dataset)
    assert {name: own.way[name] for name in own.way if name != "weights"} == expected
    counts = len(session.dataset.names) - len(session.held_out), len(session.held_out)
    assert (record["num_reals"], record["num_held_out"]) == counts
    other, _ = own.measure(sampler, 7, seed=3)
    assert other["seed"] == 3 and other["kid"] != record["kid"]


@pytest.mark.parametrize(
    ("hflip", "per_example", "learnt"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_distances_are_to_images_and_mirror_images_where_both_are_learnt(
    session, hflip, per_example, learnt
):
    """Neighbours are counted among the images alone."""
    session.config.augment.update(hflip=hflip, per_example=per_example)
    own = build_evaluator(session.config, session.dataset)
    record, samples = own.measure(sampler_of(session)[1], 7)
    indices = own.training.indices
    images = np.stack([session.dataset.centre(index) for index in indices])
    plain, mirrored = (
        Means()([images[first : first + 4, :, ::turn] for first in range(0, len(images), 4)])
        for turn in (1, -1)
    )
    reals = np.concatenate([plain, mirrored]) if learnt else plain
    kid, _ = kernel_distance(samples.features, reals)
    fid = frechet_distance(samples.moments, Extracted(reals).moments)
    assert (record["kid"], record["fid"]) == pytest.approx((kid, fid), rel=1e-6)
    found = record["precision"], record["recall"]
    assert found == pytest.approx(precision_and_recall(samples.features, plain))
    assert record["mirrored"] == learnt and record["num_reals"] == len(indices) > 40
    np.testing.assert_allclose(own.mirrored.features, mirrored, rtol=1e-6)


def test_of_many_reals_some_are_compared_one_by_one_and_all_count_for_fid(session, monkeypatch):
    """The same ones every time; as many as samples, or more."""
    monkeypatch.setattr(evaluator, "MOST_COMPARED", 10)
    own = build_evaluator(session.config, session.dataset).training
    some, images = own.reals.some, own.reals.images.features
    rows = [np.flatnonzero((images == row).all(1))[0] for row in some]
    assert len(some) == 40 < len(images) and rows == sorted(set(rows))
    assert own.reals.some_with_mirrors.shape[0] == 80
    assert own.reals.moments.count == 2 * len(images)
    again = build_evaluator(session.config, session.dataset).training
    np.testing.assert_array_equal(again.reals.some, some)


def test_the_discriminator_is_asked_about_images_drawn_evenly(session, monkeypatch):
    """Not about the first ones, which may be all of one kind."""
    monkeypatch.setattr(evaluator, "MOST_SCORED", 3)
    asked = []

    def scores(critic, batches, labels):
        assert labels is None
        asked.append([image.tobytes() for batch in batches for image in batch])
        return np.zeros(3)

    monkeypatch.setattr(evaluator, "score_realness", scores)
    own = build_evaluator(session.config, session.dataset)
    state, sampler = sampler_of(session)
    own.measure(sampler, 7, critic=Critic(session.gan.discriminator, state.d_params, -1))
    for reals, images in zip((own.training, own.held_out), asked, strict=True):
        count = len(reals.indices)
        places = [0, round((count - 1) / 2), count - 1]
        expected = [session.dataset.centre(reals.indices[place]).tobytes() for place in places]
        assert images == expected
