import os
import re
import subprocess
import sys

import jax
import pytest

from lwgan.errors import UserError
from lwgan.runs import checkpoint
from lwgan.training import dry_run
from lwgan.training.dry_run import Measured, forecast
from lwgan.training.state import build_gan, init_state
from tests import tiny
from tests.house import ROOT


def listing(folder):
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


def said(capsys, config, workdir, **how):
    """What a dry run of a few steps says."""
    lines = list(dry_run.estimate(config, workdir, **how))
    return [*capsys.readouterr().out.splitlines(), *lines]


def test_the_forecast_is_arithmetic():
    config = tiny.config(
        train__num_steps=14_500, train__batch_size=20, sample__every=1000, checkpoint__every=1000
    )
    config.checkpoint.update(keep_last=2, keep_every=5000)
    # 0.25 s on average.
    steps = {"penalized": (0.4, 0.25), "plain": (0.2, 0.75)}
    measured = Measured(1656.0, steps, 24.0, 1000, 2**20)
    step, hours, images, checkpoints = forecast(config, 100, measured)
    assert step == ("A step: 0.25 s on average (0.4 s penalized, 0.2 s plain), 80 images a second")
    # 1,656 s, 14,400 steps of 0.25 s, and samples at 1000, …, 14,000 and 14,500.
    assert hours.startswith("Time: 1.56 hours for 14,400 steps, with 1656 s to start and 360 s to")
    assert images == "Images: 288 thousand, each of the 1,000 about 288 times"
    # 5000, 10,000, 14,000 and 14,500.
    assert checkpoints == "Checkpoints: up to 1.0 MiB each; 15 to write, 4 of them stay: 4.0 MiB"


def test_a_finished_run_has_nothing_left():
    config = tiny.config(train__num_steps=4)
    measured = Measured(0.0, {"plain": (1.0, 1.0)}, 9.0, 10, 2**20)
    _, hours, images, checkpoints = forecast(config, 4, measured)
    assert hours.startswith("Time: 0 hours for 0 steps, with 0 s to start and 0 s to draw")
    assert images.startswith("Images: 0 thousand")
    assert "0 to write, 0 of them stay" in checkpoints


def test_a_dry_run_of_a_new_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "_SECONDS", 0.0)
    config = tiny.config(track__aim=True)
    lines = said(capsys, config, tmp_path / "runs" / "new")
    assert listing(tmp_path) == {}
    text = "\n".join(lines)
    assert "data.image_size = 32\n" in text and "optim.freeze_d = 0\n" in text
    assert "at step 0: a dry run, nothing is written" in text
    assert "The dataset: 106 images" in text
    first = jax.eval_shape(lambda: init_state(build_gan(config), 0))
    g, d = (sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (first.g_params, first.d_params))
    assert f"Parameters: {g:,} of the generator, {d:,} of the discriminator" in lines
    # The state and the images are the least that a step needs.
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(first))
    memory = re.search(r"Memory: ([\d,]+) MiB for a step on each device \(4 × cpu\)", text)
    assert state_bytes / 2**20 < int(memory[1].replace(",", "")) < 100
    assert re.search(r"A step: .* s on average \(.* s penalized, .* s plain\)", text)
    assert "hours for 4 steps" in text
    assert f"Checkpoints: up to {state_bytes / 2**20:,.1f} MiB each; 1 to write, 1 of" in text


def test_a_dry_run_reads_the_run_that_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "_SECONDS", 0.0)
    settings = tiny.config(sample__every=0, loss__gp_weight=0.0)
    tiny.save_run(tmp_path / "run", (1, 3), settings)
    # Damaged.
    (tmp_path / "run" / "checkpoints" / "3" / "manifest.json").write_text("{}x")
    before = listing(tmp_path)
    settings.train.num_steps = 9
    text = "\n".join(said(capsys, settings, tmp_path / "run"))
    assert listing(tmp_path) == before
    assert f"Continuing the run in {tmp_path / 'run'} at step 1: a dry run" in text
    assert "hours for 8 steps" in text
    # Without a weight, no step has it.
    assert "plain)" in text and "penalized" not in text
    text = "\n".join(said(capsys, settings, tmp_path / "run", fresh=True))
    assert "Starting the run" in text and "hours for 9 steps" in text
    assert listing(tmp_path) == before


@pytest.mark.slow
def test_the_command_takes_the_flags_of_training(tmp_path):
    tiny.save_run(tmp_path / "source", (3,), tiny.config())
    settings = tiny.config(sample__every=0, loss__gp_weight=0.0)
    tiny.save_run(tmp_path / "run", (1,), settings)
    before = listing(tmp_path)
    main = [sys.executable, ROOT / "main.py", "--dry_run", "--workdir=run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [*main, "--fresh", "--init_from=source", "--freeze_d=2", "--config.train.num_steps=5"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert listing(tmp_path) == before
    lines = ended.stdout.splitlines()
    assert "optim.freeze_d = 2" in lines
    assert "Starting the run in run at step 0: a dry run, nothing is written" in lines
    assert "Beginning from source at step 3" in ended.stderr
    assert any(" hours for 5 steps" in line for line in lines)


def test_kept_checkpoints_are_the_last_and_the_multiples():
    keep = tiny.config().checkpoint
    keep.update(keep_last=2, keep_every=10)
    assert checkpoint.kept([5, 10, 15, 20, 25, 30, 33], keep) == [10, 20, 30, 33]
    keep.keep_every = 0
    assert checkpoint.kept([5, 10, 15], keep) == [10, 15]
    assert checkpoint.kept([5], keep) == [5]
    assert checkpoint.kept([], keep) == []


def test_a_step_that_does_not_fit_is_the_line_of_training(tmp_path, monkeypatch):
    def measure(session, began):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 17 GiB")
        yield

    monkeypatch.setattr(dry_run, "_measure", measure)
    message = r"train.grad_accum = 1: does not fit .*17 GiB.*use more micro-batches"
    with pytest.raises(UserError, match=message):
        list(dry_run.estimate(tiny.config(), str(tmp_path / "run")))
