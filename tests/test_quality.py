"""Evaluation by a run's settings: what is held out, what is written, which checkpoint is kept."""

import json

import jax
import numpy as np
import pytest

from lwgan import checkpoint, data, quality, run, training
from lwgan.errors import UserError
from lwgan.training import train
from tests import kill_training, tiny
from tests.test_metrics_measure import Averages


class Means(Averages):
    """Named as one of the real ones, for settings to allow it."""

    name, fingerprint = "efficientnet_lite0", "means"


@pytest.fixture(autouse=True)
def means(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(quality, "open_features", lambda name, weights, resize: Means())


def settings(**overrides):
    evaluated = dict(
        eval__every=1, eval__num_images=9, eval__features="efficientnet_lite0",
        train__num_steps=4, checkpoint__every=4, checkpoint__keep_last=1,
        sample__every=0, train__log_every=1,
    )  # fmt: skip
    return tiny.config(**(evaluated | overrides))


@pytest.mark.parametrize(("count", "share", "held"), [(10, 0.0, 0), (10, 0.3, 3), (2, 0.99, 1)])
def test_every_picture_is_trained_with_or_held_out(count, share, held):
    trained, held_out = data.split(count, share, seed=0)
    assert sorted([*trained, *held_out]) == list(range(count))
    assert len(held_out) == held
    assert list(trained) == sorted(trained) and list(held_out) == sorted(held_out)
    again, _ = data.split(count, share, seed=0)
    assert list(again) == list(trained)


def test_which_are_held_out_depends_on_the_seed():
    assert len({tuple(data.split(100, 0.3, seed)[1]) for seed in range(5)}) == 5


def test_training_never_sees_what_is_held_out(tmp_path, monkeypatch):
    seen = set()
    take = training.data.batches

    def watched(pictures, among, *arguments, **options):
        for images in take(pictures, among, *arguments, **options):
            seen.update(image.tobytes() for image in images.reshape(-1, *images.shape[-3:]))
            yield images

    monkeypatch.setattr(training.data, "batches", watched)
    judged = []
    see_reals = quality.see_reals

    def heard(*arguments):
        judged.append(see_reals(*arguments))
        return judged[-1]

    monkeypatch.setattr(quality, "see_reals", heard)
    config = settings(data__holdout=0.25, eval__every=4, train__num_steps=16, train__batch_size=16)
    train(config, tmp_path / "run")
    (reals,) = judged
    count = len(reals.pictures.names)
    trained, held_out = data.split(count, 0.25, 0)
    assert len(held_out) == round(count / 4) > 20
    numbers = {reals.pictures.centre(index).tobytes(): index for index in range(count)}
    seen = {numbers[content] for content in seen}
    assert seen <= set(trained.tolist()) and len(seen) > 70

    (found, *_) = quality.read(tmp_path / "run")
    assert found["num_reals"] == found["num_images"] == 9
    for name in ("kid", "fid", "precision", "recall", "kid_held_out", "recall_held_out"):
        assert np.isfinite(found[name])
    assert found["realness_trained"] != found["realness_held_out"]


def test_the_best_checkpoint_is_kept_and_the_figures_are_logged(tmp_path, monkeypatch):
    kids = {1: 0.4, 2: 0.1, 3: 0.3, 4: 0.2}
    record = quality.record

    def decided(config, reals, samples, step, *rest):
        return record(config, reals, samples, step, *rest) | {"kid": kids[step]}

    monkeypatch.setattr(quality, "record", decided)
    train(settings(train__num_steps=3), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run") == [2, 3]
    train(settings(), tmp_path / "run")  # goes on, and remembers
    assert checkpoint.steps(tmp_path / "run") == [2, 4]
    assert [found["step"] for found in quality.read(tmp_path / "run")] == [1, 2, 3, 4]
    logged = {
        line["step"]: line["efficientnet_lite0/kid"]
        for line in kill_training.series(tmp_path / "run")
        if "efficientnet_lite0/kid" in line
    }
    assert logged == kids


def test_the_best_checkpoint_stays_where_evaluation_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(
        quality, "record", lambda *arguments: RECORD | {"step": arguments[3], "kid": arguments[3]}
    )
    train(settings(train__num_steps=2), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run") == [1, 2]
    train(settings(train__num_steps=3, eval__every=0), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run") == [1, 3]
    (tmp_path / "run" / quality.FILE).write_text("{")
    assert train(settings(), tmp_path / "run").step == 4  # a warning


def test_evaluation_does_not_change_the_run(tmp_path):
    evaluated = train(settings(), tmp_path / "evaluated")
    plain = train(settings(eval__every=0), tmp_path / "plain")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(evaluated), jax.device_get(plain))


def test_without_the_networks_weights_training_goes_on(tmp_path, monkeypatch, caplog):
    def nowhere(name, weights, resize):
        raise UserError("weights", name, "is not there", "get it")

    monkeypatch.setattr(quality, "open_features", nowhere)
    assert train(settings(train__num_steps=1), tmp_path / "run").step == 1
    assert "Training goes on without evaluation: weights" in caplog.text
    assert not (tmp_path / "run" / quality.FILE).exists()


RECORD = {
    "step": 4, "features": "inception", "weights": "w", "resize": "clean", "background": "white",
    "num_images": 9, "num_reals": 9, "seed": 0,
}  # fmt: skip


def test_records_of_one_way_of_measuring_are_merged(tmp_path):
    quality.merge(tmp_path, [RECORD | {"fid": 3.0}])
    quality.merge(tmp_path, [RECORD | {"step": 2, "fid": 5.0}, RECORD | {"kid": 0.1}])
    quality.merge(tmp_path, [RECORD | {"features": "other", "fid": 7.0}, RECORD | {"fid": 2.0}])
    found = json.loads((tmp_path / quality.FILE).read_text())
    assert [(x["step"], x["features"], x.get("fid"), x.get("kid")) for x in found] == [
        (2, "inception", 5.0, None),
        (4, "inception", 2.0, 0.1),
        (4, "other", 7.0, None),
    ]


@pytest.mark.parametrize("text", ["", "[1]", '[{"fid": 1}]', "{"])
def test_records_that_cannot_be_read_are_one_line(tmp_path, text):
    (tmp_path / quality.FILE).write_text(text)
    with pytest.raises(UserError, match=r"cannot be read .*; move it aside"):
        quality.read(tmp_path)


def test_only_what_was_measured_alike_is_compared(tmp_path):
    metrics = ("pr", "fid", "kid")
    alike = RECORD
    quality.merge(
        tmp_path,
        [
            alike | {"step": 1, "fid": 3.0, "kid": 0.1},
            alike | {"step": 2, "fid": 2.0, "kid": 0.2},
            alike | {"step": 3, "fid": 0.1, "seed": 7},
            alike | {"step": 4, "fid": 0.5},
            alike | {"step": 5, "precision": 1.0},
        ],
    )
    assert quality.best(tmp_path, metrics, [1, 2, 5]) == 2
    assert quality.best(tmp_path, metrics, [1, 2, 3, 4]) == 4
    assert quality.best(tmp_path, metrics, [1, 3]) == 3  # the newest measure counts
    assert quality.best(tmp_path, metrics, [5]) is None
    assert quality.best(tmp_path, ("pr",), [1, 2]) is None


def test_a_run_from_before_evaluation_has_its_settings(tmp_path):
    config = tiny.config()
    run.open_for_training(run.Run(tmp_path, config, run.RunInfo("")), config, "", 0)
    groups = json.loads((tmp_path / "config.json").read_text())
    del groups["eval"], groups["data"]["holdout"]
    (tmp_path / "config.json").write_text(json.dumps(groups))
    assert run.read(tmp_path).config == config
