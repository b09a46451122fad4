"""Evaluation by a run's settings: what is held out, what is written, which checkpoint is kept."""

import jax
import numpy as np
import pytest

from lwgan.data.holdout import split, split_by_seed
from lwgan.errors import UserError
from lwgan.metrics import evaluator
from lwgan.metrics.evaluator import Evaluator
from lwgan.metrics.records import FILE, add_record, read_records
from lwgan.runs import manifest
from lwgan.training import session
from lwgan.training.loop import train
from tests import kill_training, tiny
from tests.metrics.test_evaluator import Means


@pytest.fixture(autouse=True)
def means(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluator, "open_features", lambda name, weights, resize: Means())


def settings(**overrides):
    evaluated = dict(
        eval__every=1,
        eval__num_images=9,
        eval__features="efficientnet_lite0",
        train__num_steps=4,
        checkpoint__every=4,
        checkpoint__keep_last=1,
        sample__every=0,
        train__log_every=1,
    )
    return tiny.config(**(evaluated | overrides))


@pytest.mark.parametrize(("count", "share", "held"), [(10, 0.0, 0), (10, 0.3, 3), (2, 0.99, 1)])
def test_every_image_is_trained_with_or_held_out(count, share, held):
    trained, held_out = split_by_seed(count, share, seed=0)
    assert sorted([*trained, *held_out]) == list(range(count))
    assert len(held_out) == held
    assert list(trained) == sorted(trained) and list(held_out) == sorted(held_out)
    again, _ = split_by_seed(count, share, seed=0)
    assert list(again) == list(trained)


def test_in_old_runs_which_are_held_out_depends_on_the_seed():
    assert len({tuple(split_by_seed(100, 0.3, seed)[1]) for seed in range(5)}) == 5


def test_training_never_sees_what_is_held_out(tmp_path, monkeypatch):
    seen = set()
    datasets = []
    read_batches = session.read_batches

    def watched(dataset, among, *arguments, **options):
        datasets.append(dataset)
        for images in read_batches(dataset, among, *arguments, **options):
            seen.update(image.tobytes() for image in images.reshape(-1, *images.shape[-3:]))
            yield images

    monkeypatch.setattr(session, "read_batches", watched)
    config = settings(data__holdout=0.25, eval__every=4, train__num_steps=16, train__batch_size=16)
    train(config, tmp_path / "run")
    (dataset,) = datasets
    count = len(dataset.names)
    training, held_out = split(dataset, 0.25, 0)
    assert 12 < len(held_out) < 45
    numbers = {dataset.centre(index).tobytes(): index for index in range(count)}
    seen = {numbers[content] for content in seen}
    assert seen <= set(training.tolist()) and len(seen) > 70

    (record, *_) = read_records(tmp_path / "run")
    assert (record["num_images"], record["num_reals"]) == (9, len(training))
    for name in ("kid", "fid", "precision", "recall", "kid_held_out", "recall_held_out"):
        assert np.isfinite(record[name])
    assert record["realness_trained"] != record["realness_held_out"]


def decide(monkeypatch, kid_of):
    """Evaluations whose KID is ``kid_of(step)``."""
    measure = Evaluator.measure

    def decided(self, sampler, step, **options):
        measurement = measure(self, sampler, step, **options)
        measurement.record["kid"] = kid_of(step)
        return measurement

    monkeypatch.setattr(Evaluator, "measure", decided)


def test_the_best_checkpoint_is_kept_and_the_figures_are_logged(tmp_path, monkeypatch):
    kids = {1: 0.4, 2: 0.1, 3: 0.3, 4: 0.2}
    decide(monkeypatch, kids.get)
    train(settings(train__num_steps=3), tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [2, 3]
    # Goes on, and remembers.
    train(settings(), tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [2, 4]
    assert [record["step"] for record in read_records(tmp_path / "run")] == [1, 2, 3, 4]
    logged = {
        line["step"]: line["efficientnet_lite0/kid"]
        for line in kill_training.series(tmp_path / "run")
        if "efficientnet_lite0/kid" in line
    }
    assert logged == kids


def test_the_best_checkpoint_stays_where_evaluation_ends(tmp_path, monkeypatch):
    decide(monkeypatch, lambda step: step)
    train(settings(train__num_steps=2), tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [1, 2]
    train(settings(train__num_steps=3, eval__every=0), tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [1, 3]


def test_damaged_figures_are_said_at_the_start_and_cost_no_checkpoint(
    tmp_path, monkeypatch, caplog
):
    """Which checkpoint is the best is not known then."""
    decide(monkeypatch, lambda step: step)
    train(settings(train__num_steps=1), tmp_path / "run")
    path = tmp_path / "run" / FILE
    measure = Evaluator.measure

    def damages_at_3(self, sampler, step, **options):
        if step == 3:
            path.write_text("[{]")
        return measure(self, sampler, step, **options)

    monkeypatch.setattr(Evaluator, "measure", damages_at_3)
    assert train(settings(), tmp_path / "run").step == 4
    assert "Old checkpoints stay, for which is the best is not known: metrics.json" in caplog.text
    assert "The figures of step 3 failed; going on: metrics.json = " in caplog.text
    assert manifest.saved_steps(tmp_path / "run") == [1, 3, 4]
    with pytest.raises(UserError, match=r"^metrics\.json = .*: cannot be read \(.*line 1 column 3"):
        train(settings(train__num_steps=5), tmp_path / "run")


def test_an_evaluation_in_another_way_does_not_cost_the_best_checkpoint(tmp_path, monkeypatch):
    """By hand with other options, after the run's own: the newest record, and it likes the last
    step.
    """
    decide(monkeypatch, lambda step: step)
    train(settings(train__num_steps=2), tmp_path / "run")
    last = read_records(tmp_path / "run")[-1]
    for other in ({"seed": 7}, {"num_images": 50}, {"weights": "other"}):
        add_record(tmp_path / "run", last | other | {"kid": 0.0})
    train(settings(train__num_steps=3), tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [1, 3]
    train(settings(train__num_steps=4, eval__every=0), tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [1, 4]


def test_evaluation_does_not_change_the_run(tmp_path):
    evaluated = train(settings(), tmp_path / "evaluated")
    plain = train(settings(eval__every=0), tmp_path / "plain")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(evaluated), jax.device_get(plain))


def test_without_the_networks_weights_training_goes_on(tmp_path, monkeypatch, caplog):
    def nowhere(name, weights, resize):
        raise UserError("weights", name, "is not there", "get it")

    monkeypatch.setattr(evaluator, "open_features", nowhere)
    assert train(settings(train__num_steps=1), tmp_path / "run").step == 1
    assert "Training goes on without evaluation: weights" in caplog.text
    assert not (tmp_path / "run" / FILE).exists()
