"""What training prepares before it writes anything: one session for training and dry runs."""

import dataclasses

import numpy as np
import pytest

from lwgan.data.batches import indices_at
from lwgan.errors import UserError
from lwgan.runs import manifest
from lwgan.training.loop import run_directory
from lwgan.training.recipes import layout_of, recipe_of
from lwgan.training.session import batches_from, prepare, state_at
from lwgan.training.state import init_state
from tests import drawn, tiny


def listing(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_a_new_session_stands_before_the_first_step_and_has_written_nothing(tmp_path, capsys):
    config = tiny.config(data__holdout=0.25)
    session = prepare(config, tmp_path / "run", note=": a note")
    assert listing(tmp_path) == {}
    said = capsys.readouterr().out
    assert said == f"Starting the run in {tmp_path / 'run'} at step 0: a note\n"
    assert (session.step, session.first, session.damaged, session.origin) == (None, 0, {}, None)
    indices = [*session.training, *session.held_out]
    assert sorted(indices) == list(range(len(session.dataset.names)))
    assert session.run.info.fingerprint == session.dataset.fingerprint
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.step = 3
    first, expected = state_at(session, None), init_state(session.gan, 0)
    np.testing.assert_allclose(
        first.d_params["logits"]["kernel"], expected.d_params["logits"]["kernel"], atol=1e-6
    )


def test_a_session_of_a_run_stands_at_its_newest_whole_checkpoint(tmp_path, capsys):
    config = tiny.config()
    tiny.save_run(tmp_path / "run", (2, 5, 7), config)
    (tmp_path / "run" / "checkpoints" / "7" / manifest.MANIFEST).write_text("{}x")
    before = listing(tmp_path)
    session = prepare(config, tmp_path / "run")
    assert listing(tmp_path) == before
    assert "Continuing" in capsys.readouterr().out
    assert (session.step, list(session.damaged)) == (5, [7])
    assert int(state_at(session, session.step).step) == 5
    assert prepare(config, tmp_path / "run", fresh=True).step is None


def test_batches_are_those_of_the_steps_after_it(tmp_path):
    session = prepare(tiny.config(data__holdout=0.25), tmp_path / "run")
    batches = batches_from(session, 3)
    for step in (3, 4):
        positions = layout_of(session.config).positions(step)
        indices = session.training[indices_at(0, positions.ravel(), len(session.training))]
        expected = drawn.pixels(session.dataset)[indices].reshape(*positions.shape, 32, 32, 3)
        np.testing.assert_array_equal(next(batches), expected)


def test_the_recipe_counts_training_images_only():
    config = tiny.config()
    few, many = recipe_of(config, 100), recipe_of(config, 50_000)
    assert few.augment_prob == pytest.approx(0.2997) and many.augment_prob == pytest.approx(0.15)
    config.augment.prob = 0.5
    assert recipe_of(config, 100).augment_prob == 0.5


def test_a_run_that_another_process_has_begun_meanwhile_is_left_alone(tmp_path):
    config = tiny.config()
    session = prepare(config, tmp_path / "run")
    tiny.save_run(tmp_path / "run", (4,), config)
    before = listing(tmp_path)
    with (
        pytest.raises(UserError, match="has begun a run there meanwhile"),
        run_directory(session, fresh=False),
    ):
        raise AssertionError("the directory was given away")
    assert listing(tmp_path) == before
