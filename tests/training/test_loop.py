import itertools
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from lwgan.data.cache import load_dataset
from lwgan.data.sources import open_source
from lwgan.errors import Interrupted, UserError
from lwgan.models.build import generator_shapes
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import read_run
from lwgan.sampling.sampler import Sampler
from lwgan.training import actions, loop
from lwgan.training.loop import loop_steps, train
from lwgan.training.state import build_gan, init_state
from tests import drawn, tiny
from tests.distance import sliced_wasserstein
from tests.house import ROOT
from tests.kill_training import series


class Counter:
    """A state with nothing but a step."""

    def __init__(self, step):
        self.step = step


def count_up(number, state, batch):
    assert number == state.step + 1
    return Counter(number), {"loss": number, **({"penalty": number} if number % 4 == 1 else {})}


def test_the_loop_shows_every_step_to_every_action():
    seen = []
    last, metrics, finished = loop_steps(
        count_up,
        Counter(3),
        iter(range(100)),
        metrics={"penalty": 1},
        num_steps=7,
        actions=[lambda step, state, metrics: seen.append((step, state.step, metrics))],
        stop=lambda: False,
    )
    assert last.step == 7 and finished
    assert [step for step, *_ in seen] == [4, 5, 6, 7]
    assert all(step == at for step, at, _ in seen)
    assert [step_metrics["penalty"] for *_, step_metrics in seen] == [1, 5, 5, 5]
    assert seen[3][2] == metrics == {"loss": 7, "penalty": 5}


@pytest.mark.parametrize(
    ("asked_after", "at", "finished"),
    [(0, (1, "a"), False), (2, (2, "a"), False), (5, (3, "b"), True), (9, (3, "b"), True)],
)
def test_the_loop_ends_after_the_action_in_which_it_is_asked_to(asked_after, at, finished):
    """After the last action of all, everything is finished."""
    seen = []
    actions = [lambda step, *unused, name=name: seen.append((step, name)) for name in "ab"]
    last, _, ended = loop_steps(
        count_up,
        Counter(0),
        iter(range(9)),
        metrics={},
        num_steps=3,
        actions=actions,
        stop=lambda: len(seen) > asked_after,
    )
    assert (last.step, seen[-1], ended) == (at[0], at, finished)


def test_the_loop_does_nothing_when_all_steps_are_finished():
    last, _, finished = loop_steps(
        None, Counter(7), iter(()), metrics={}, num_steps=7, actions=[], stop=lambda: False
    )
    assert last.step == 7 and finished


def test_what_has_been_learnt_is_saved_when_the_images_fail(tmp_path, monkeypatch):
    plan = {"sample__every": 0, "checkpoint__every": 100}
    whole = train(tiny.config(train__num_steps=4, **plan), tmp_path / "whole")
    batches_from = loop.batches_from

    def failing(session, first):
        yield from itertools.islice(batches_from(session, first), 3)
        raise UserError("data.path", "1.png", "cannot be read any more", "mend that")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches_from", failing)
        with pytest.raises(UserError, match=r"1\.png"):
            train(tiny.config(train__num_steps=4, **plan), tmp_path / "parts")
    assert manifest.saved_steps(tmp_path / "parts") == [3]
    parts = train(tiny.config(train__num_steps=4, **plan), tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))


def test_twenty_and_twenty_steps_are_forty(tmp_path):
    plan = {"train__log_every": 5, "sample__every": 0, "checkpoint__every": 20}
    whole = train(tiny.config(train__num_steps=40, **plan), tmp_path / "whole")
    train(tiny.config(train__num_steps=20, **plan), tmp_path / "parts")
    parts = train(tiny.config(train__num_steps=40, **plan), tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    saved = checkpoint.restore(tmp_path / "parts", 40, jax.eval_shape(lambda: parts))
    jax.tree.map(np.testing.assert_array_equal, saved, jax.device_get(parts))
    assert series(tmp_path / "whole") == series(tmp_path / "parts")
    assert [line["step"] for line in series(tmp_path / "parts")] == list(range(5, 41, 5))
    changes = json.loads((tmp_path / "parts" / "run.json").read_text())["changes"]
    assert changes == [{"step": 20, "setting": "train.num_steps", "from": 20, "to": 40}]


def test_a_signal_saves_and_the_same_command_continues(tmp_path, monkeypatch):
    config = tiny.config(train__num_steps=6, sample__every=0, train__log_every=1)
    tiny.before_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="step 3"):
        train(config, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before
    assert manifest.saved_steps(tmp_path / "run") == [3]
    monkeypatch.undo()
    assert int(train(config, tmp_path / "run").step) == 6
    assert [line["step"] for line in series(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_fresh_moves_the_old_run_aside(tmp_path):
    config = tiny.config(train__num_steps=1, sample__every=0)
    train(config, tmp_path / "run")
    old = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.*") if p.is_file()}
    train(config, tmp_path / "run", fresh=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run.1").glob("*.*") if p.is_file()} == old
    assert manifest.saved_steps(tmp_path / "run.1") == manifest.saved_steps(tmp_path / "run") == [1]


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )


def overrides(config, default):
    """What to say on the command line to get these settings."""
    for group, values in config.items():
        for name, value in values.items():
            if value != default[group][name]:
                yield f"--config.{group}.{name}={value}"


def test_the_commands_train_continue_and_sample(tmp_path):
    from configs import default

    config = tiny.config(sample__every=2, train__log_every=1, track__aim=True)
    arguments = list(overrides(config, default.get_config()))
    workdir = tmp_path / "runs" / "tiny"
    first = command("main.py", "--config=configs/default.py", f"--workdir={workdir}", *arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[0] == f"Starting the run in {workdir} at step 0"
    assert "ETA" in first.stderr and "100.0% (4/4)" in first.stderr
    for name in ("config.json", "run.json", "log.txt", "metrics.jsonl", "checkpoints/4/sampler"):
        assert (workdir / name).exists(), name
    for name in ("00000002.png", "00000004.png", "00000004-raw.png", "00000004-interp.png"):
        with Image.open(workdir / "samples" / name) as grid:
            assert grid.size == (3 * 34 + 2, 2 * 34 + 2)
    aim_run = json.loads((workdir / "run.json").read_text())["aim_run"]
    assert (tmp_path / "runs" / ".aim").is_dir() or aim_run is None

    again = command("main.py", f"--workdir={workdir}", "--config.train.num_steps=6")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == f"Continuing the run in {workdir} at step 4"
    assert json.loads((workdir / "run.json").read_text())["aim_run"] == aim_run

    def draw(out, *options):
        done = command("-m", "lwgan.sample", f"--workdir={workdir}", f"--out={out}", *options)
        assert done.returncode == 0, done.stderr
        return {path.name: path.read_bytes() for path in out.iterdir()}

    options = ("--num_images=5", "--save_npy", "--weights=raw")
    images = draw(tmp_path / "a" / "b", *options)
    assert images.keys() == {*(f"{i:05d}.png" for i in range(5)), "grid.png", "samples.npy"}
    assert draw(tmp_path / "c", *options) == images
    assert draw(tmp_path / "d", *options, "--seed=1")["00000.png"] != images["00000.png"]
    draw(tmp_path / "e", *options, "--batch_size=1")
    draw(tmp_path / "f", *options, "--batch_size=8")
    one, eight = (np.load(tmp_path / name / "samples.npy") for name in "ef")
    assert one.shape == (5, 32, 32, 3) and one.dtype == np.float32
    np.testing.assert_allclose(one, eight, atol=1e-5)

    np.save(tmp_path / "z.npy", np.ones((3, 8), np.float32))
    given = draw(tmp_path / "g", f"--latents={tmp_path / 'z.npy'}", "--step=4")
    assert given.keys() == {*(f"{i:05d}.png" for i in range(3)), "grid.png"}


@pytest.mark.slow(minutes=3)
def test_the_quickstart_learns_faces(tmp_path):
    """The EMA generator comes twice as near to the images as their mean, and an untrained one.

    At 32 px, where a step takes a third of the time.
    """
    steps = 1000
    workdir = tmp_path / "quickstart"
    done = command(
        "main.py",
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        f"--config.train.num_steps={steps}",
        "--config.sample.every=0",
        "--config.data.image_size=32",
        "--config.model.recon_size=32",
        env={**os.environ, "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    assert all(None not in line.values() for line in series(workdir))
    config = read_run(workdir).config
    real = drawn.pixels(load_dataset(open_source(config.data), config.data)) / 255
    gan = build_gan(config)
    untrained = jax.jit(lambda: init_state(gan, config.train.seed))()

    def distance(params, stats):
        sampler = Sampler(gan.generator, params, stats)
        drawn = sampler(sampler.latents(1, 512), 1, 64)
        return sliced_wasserstein(np.clip(drawn, 0, 1), real)

    like = generator_shapes(gan.generator)
    ema = checkpoint.restore_generator(workdir, steps, like, "ema")
    trained = distance(ema["params"], ema["batch_stats"])
    mean = sliced_wasserstein(np.repeat(real.mean(0, keepdims=True), 512, 0), real)
    assert trained <= mean / 2
    assert trained <= distance(untrained.ema_params, untrained.ema_stats) / 2


def test_waiting_is_what_leaves_the_devices_idle(monkeypatch):
    """Of three waits of two seconds: all, none, and half of one in which they come to an end."""
    clock, ready = iter(range(0, 100, 2)), iter([True, False, False, False, True, True])
    monkeypatch.setattr(actions.time, "perf_counter", lambda: next(clock))
    batches = actions.Clocked(iter("abc"))
    monkeypatch.setattr(batches, "_are_idle", lambda: next(ready))
    assert "".join(batches) == "abc"
    # Asked for the time at 0, then twice a batch, once at the end of them, and now at 16.
    assert batches.wait_share() == pytest.approx((2 + 0 + 1) / 16)


def test_the_devices_are_busy_until_the_last_results_are_there():
    batches = actions.Clocked(iter([]))
    assert batches._are_idle()

    class Pending(jax.Array):
        def is_ready(self):
            return False

    pending = object.__new__(Pending)
    update = batches.watching(lambda step, state, images: (state, {"d/side": pending}))
    assert update(1, "state", "images") == ("state", {"d/side": pending})
    assert not batches._are_idle()


@pytest.mark.parametrize(
    ("size", "mode", "chosen", "grid", "suffix"),
    [
        (256, "rgb", "auto", (8, 8), ".png"),
        (512, "rgb", "auto", (4, 4), ".jpg"),
        (1024, "rgba", "auto", (4, 4), ".webp"),
        (1024, "grey", "png", (4, 4), ".png"),
    ],
)
def test_grids_of_large_images_are_small(size, mode, chosen, grid, suffix):
    config = tiny.config(
        data__image_size=size, data__mode=mode, sample__grid=(), sample__format=chosen
    )
    assert (actions.grid_of(config), actions.grid_suffix(config)) == (grid, suffix)
    config.sample.grid = (2, 3)
    assert actions.grid_of(config) == (2, 3)
