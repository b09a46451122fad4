"""What a run survives: kill -9, damaged checkpoints, losses that are not finite, a second trainer, a full disk."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lwgan import checkpoint, run, state, training
from lwgan.errors import UserError
from lwgan.training import train
from tests import kill_training, tiny


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    outcome = kill_training.survive(tmp_path, kills=5, seed=0)
    assert outcome.kills == 5 and outcome.during_a_save >= 2
    assert outcome.bytes_compared > 10_000 and outcome.lines_compared == 48


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps with checkpoints at 2 and 4, and its state at 4."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    last = train(tiny.config(checkpoint__every=2, sample__every=0, train__log_every=1), workdir)
    return workdir, jax.device_get(last)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip, os.remove])
def test_damage_to_any_file_of_a_checkpoint_is_found(whole, tmp_path, harm):
    for path in sorted((whole[0] / "checkpoints" / "4").rglob("*")):
        if path.is_file() and path.stat().st_size:
            copy = tmp_path / "run"
            shutil.copytree(whole[0], copy)
            name = path.relative_to(whole[0])
            harm(copy / name)
            assert checkpoint.damage(copy, 4), name
            assert checkpoint.choose(copy, None) == 2
            with pytest.raises(UserError, match=r"^--step = 4: is damaged"):
                checkpoint.choose(copy, 4)
            assert checkpoint.set_damaged_aside(copy) == [2]
            assert (copy / "damaged" / "4").is_dir()
            shutil.rmtree(copy)
    assert not checkpoint.damage(whole[0], 4)


def test_a_run_goes_on_before_its_damaged_checkpoint(whole, tmp_path, caplog):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    flip(next((copy / "checkpoints" / "4" / "training" / "d").iterdir()))
    (copy / "checkpoints" / "6").mkdir()
    last = train(run.read(copy).config, copy)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(last), whole[1])
    assert kill_training.series(copy) == kill_training.series(whole[0])
    assert checkpoint.steps(copy) == [2, 4] and not checkpoint.damage(copy, 4)
    assert sorted(path.name for path in (copy / "damaged").iterdir()) == ["4", "6"]


def test_without_a_whole_checkpoint_nothing_is_moved(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    for step in (2, 4):
        (copy / "checkpoints" / str(step) / checkpoint.MANIFEST).unlink()
    with pytest.raises(UserError, match="no checkpoint is whole") as caught:
        train(run.read(copy).config, copy)
    assert "\n" not in str(caught.value)
    assert checkpoint.steps(copy) == [2, 4] and not (copy / "damaged").exists()


def test_a_run_whose_first_save_was_cut_short_begins_again(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    (copy / "checkpoints" / "2" / checkpoint.MANIFEST).unlink()
    last = train(run.read(copy).config, copy)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(last), whole[1])
    assert kill_training.series(copy) == kill_training.series(whole[0])


def poisoned(monkeypatch, when):
    """Training whose generator becomes not a number after the updates that ``when`` names, one by one."""
    make_update = training.make_update

    def broken(gan, recipe):
        advance = make_update(gan, recipe)

        def update(step, current, images):
            current, metrics = advance(step, current, images)
            if next(when, None) == step:
                bad = jax.tree.map(lambda leaf: leaf * jnp.nan, current.g_params)
                current = current.replace(g_params=bad)
            return current, metrics

        return update

    monkeypatch.setattr(training, "make_update", broken)


def test_a_state_that_is_not_finite_goes_back_and_on(tmp_path, monkeypatch, whole):
    config = tiny.config(checkpoint__every=2, sample__every=0, train__log_every=1)
    poisoned(monkeypatch, iter([0, 0, 3]))  # the third update of all
    last = jax.device_get(train(config, tmp_path / "run"))
    assert (last.step, last.recoveries) == (4, 1)
    assert [line["step"] for line in kill_training.series(tmp_path / "run")] == [1, 2, 3, 4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last))
    assert checkpoint.steps(tmp_path / "run") == [2, 4]
    two, other = (kill_training.series(w) for w in (tmp_path / "run", whole[0]))
    assert two[:2] == other[:2] and two[2] != other[2]  # other random numbers from there on


def test_a_run_that_is_never_finite_stops_with_advice(tmp_path, monkeypatch):
    class Always:
        def __next__(self):
            return 3

    poisoned(monkeypatch, Always())
    config = tiny.config(
        checkpoint__every=2, sample__every=0, train__log_every=50, train__max_recoveries=2
    )
    with pytest.raises(
        UserError, match=r"not finite at step 4, 3 times since step 2.*learning_rate"
    ):
        train(config, tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run") == [2]
    assert not checkpoint.damage(tmp_path / "run", 2)


def test_a_second_trainer_is_refused_while_the_first_lives(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    code = f"from lwgan import run; import pathlib\nwith run.alone(pathlib.Path({str(copy)!r})): print(1, flush=True); input()"
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    first.stdout.readline()
    with pytest.raises(UserError, match="another process is training there"):
        train(run.read(copy).config, copy)
    with pytest.raises(UserError, match="another process is training there"):
        train(run.read(copy).config, copy, fresh=True)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert train(run.read(copy).config, copy).step == 4


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    workdir = tmp_path / "runs" / "run"
    kill_training.finish(kill_training.start(workdir, 2))
    before = (workdir / "checkpoints" / "2" / checkpoint.MANIFEST).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # no file may grow beyond this: inherited by the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        process = kill_training.start(workdir, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2, errors
    assert "cannot be written to" in errors.splitlines()[-1]
    assert (workdir / "checkpoints" / "2" / checkpoint.MANIFEST).read_bytes() == before
    assert not checkpoint.damage(workdir, 2)
    kill_training.finish(kill_training.start(workdir, 6))
    assert checkpoint.choose(workdir, None) == 6


def test_samples_that_cannot_be_written_are_a_warning(tmp_path, monkeypatch, caplog):
    def full(path, image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.sampling, "save_picture", full)
    last = train(tiny.config(train__num_steps=2, sample__every=1), tmp_path / "run")
    assert last.step == 2


def test_checkpoints_of_the_first_format_are_still_read(whole, tmp_path):
    """They have no manifest, and their settings do not say that they should."""
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    folder = copy / "checkpoints" / "4"
    (folder / checkpoint.MANIFEST).unlink()
    assert checkpoint.damage(copy, 4) == "manifest.json is missing"
    meta = json.loads((folder / "meta" / "metadata").read_text())
    del meta["manifest"]
    (folder / "meta" / "metadata").write_text(json.dumps(meta))
    assert checkpoint.choose(copy, None) == 4
    like = jax.eval_shape(lambda: state.init_state(state.build(run.read(copy).config), 0))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(copy, 4, like), whole[1])
