"""Runs with labels: their names are kept, and a restart changes nothing."""

import json
import shutil

import jax
import numpy as np
import pytest

import lwgan
from lwgan.errors import UserError
from lwgan.runs.directory import read_run
from lwgan.training.session import prepare
from tests import drawn, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    for number in range(12):
        path = root / "images" / ("boats" if number % 3 else "cars") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.noise(number).save(path)
    return root / "images"


def settings(folder, **changes):
    labelled = dict(data__source="folder", data__path=str(folder), data__labels="folders")
    labelled["loss__gp_weight"] = 0.0
    return tiny.config(**(labelled | changes))


def test_a_run_keeps_the_names_and_a_restart_changes_nothing(folder, tmp_path):
    config = settings(folder, data__balanced=True, checkpoint__every=2)
    whole = lwgan.train(config, str(tmp_path / "whole"))
    assert config.data.label_names == ()
    config.train.num_steps = 2
    lwgan.train(config, str(tmp_path / "halves"))
    config.train.num_steps = 4
    halves = lwgan.train(config, str(tmp_path / "halves"))
    jax.tree.map(np.testing.assert_array_equal, whole, halves)
    assert read_run(tmp_path / "whole").config.data.label_names == ("boats", "cars")
    trained = lwgan.load(tmp_path / "whole")
    assert trained.label_names == ("boats", "cars")
    assert trained.sample(num_images=2, label="cars").shape == (2, 32, 32, 3)
    assert "2 labels" in repr(trained)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    tiny.save_run(workdir, (3,), settings(folder, data__label_names=("boats", "cars")))
    return workdir


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"data__labels": "none"},
            "data.labels = 'none': the run has learnt with the labels boats, cars",
        ),
        (
            {"data__label_names": ("cars", "boats")},
            "data.labels = 'cars, boats': the run has learnt",
        ),
    ],
)
def test_other_labels_than_the_runs_are_refused(folder, trained, changes, reason):
    with pytest.raises(UserError, match=reason):
        prepare(settings(folder, **changes), trained, accept_new_data=True)


def test_labels_for_a_run_that_has_none_are_refused(folder, tmp_path):
    tiny.save_run(tmp_path / "run", (3,), settings(folder, data__labels="none"))
    with pytest.raises(UserError, match="the run has learnt with no labels; keep that, or name"):
        prepare(settings(folder), tmp_path / "run")


def test_a_label_that_the_run_does_not_know_is_refused(folder, trained, tmp_path):
    for number, name in enumerate(("boats", "planes")):
        (tmp_path / name).mkdir()
        drawn.noise(number).save(tmp_path / name / "0.png")
    with pytest.raises(
        UserError, match=r"data\.labels = 'planes': is none of the labels boats, cars"
    ):
        prepare(settings(tmp_path), trained, accept_new_data=True)


def test_an_image_of_another_label_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    config = settings(tmp_path / "images", train__num_steps=1, loss__aux_weight=0.0)
    lwgan.train(config, str(tmp_path / "run"))
    first = next((tmp_path / "images" / "boats").iterdir())
    first.rename(tmp_path / "images" / "cars" / first.name)
    reason = "data.labels = 'folders': images have other labels than those that the run has learnt"
    with pytest.raises(UserError, match=reason):
        prepare(config, tmp_path / "run")
    session = prepare(config, tmp_path / "run", accept_new_data=True)
    assert session.run.info.labelling != session.dataset.labelling


def test_grids_have_a_row_for_each_label(folder, tmp_path):
    from PIL import Image

    config = settings(folder, sample__every=4)
    lwgan.train(config, str(tmp_path / "run"))
    with Image.open(tmp_path / "run" / "samples" / "00000004.png") as grid:
        # Two titles, and two rows of three images.
        assert grid.size == (3 * 34 + 2, 2 * (20 + 36))


def test_each_label_is_measured_where_there_are_enough(folder, tmp_path, monkeypatch):
    from lwgan.metrics import evaluator

    monkeypatch.setattr(evaluator, "FEWEST_OF_LABEL", 8)
    config = settings(
        folder, eval__every=4, eval__features="efficientnet_lite0", eval__num_images=12
    )
    lwgan.train(config, str(tmp_path / "run"))
    (record,) = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # Eight boats, four cars.
    assert "kid_of_boats" in record
    assert "kid_of_cars" not in record
    own = evaluator.build_evaluator(
        read_run(tmp_path / "run").config, prepare(config, tmp_path / "run").dataset
    )
    assert np.bincount(own.places(12)).tolist() == [8, 4]
    assert np.bincount(own.places(6)).tolist() == [4, 2]
