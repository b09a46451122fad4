"""Several processes train one run: the same result, one voice, and ends that all share."""

import pathlib
import shutil
import signal
import time

import numpy as np
import pytest

from lwgan.errors import INTERRUPTED, USER_ERROR
from lwgan.metrics.records import read_records
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import read_run
from lwgan.training.session import _shapes_of
from lwgan.training.state import build_gan
from tests import kill_training, several

pytestmark = pytest.mark.slow(minutes=3)

STEPS = 20
# What a dead process must end the others within, seconds.
BOUND = 120


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """A run in one process of two devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    several.finish(several.start(workdir, STEPS, 1, 2, cache))
    return workdir


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, cache):
    """The same in two processes of a device each; and what they said."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    return workdir, several.end(several.start(workdir, STEPS, 2, 1, cache))


def scalars(workdir):
    """Name and step -> number, without what the clock decides."""
    return {
        (line["step"], name): value
        for line in kill_training.series(workdir)
        for name, value in line.items()
        if name != "step"
    }


def state_of(workdir, step):
    shapes = _shapes_of(build_gan(read_run(workdir).config))
    return checkpoint.restore(workdir, step, shapes)


def test_two_processes_are_as_one(alone, of_two):
    """Bit for bit, for they have as many devices: losses, figures, grids and the state."""
    workdir, ended = of_two
    assert [end.code for end in ended] == [0, 0], ended[0].errors + ended[1].errors
    kill_training.compare(alone, workdir)
    assert len(scalars(workdir)) > 8 * STEPS and len(read_records(workdir)) == 2


def test_only_the_first_process_speaks(of_two):
    _, (first, second) = of_two
    assert f"Finished {STEPS} steps" in first.errors
    own = [line for line in second.errors.splitlines() if line.startswith(("error", "process"))]
    assert not own and "step 1 " not in second.errors and "Finished" not in second.errors


def test_other_numbers_of_processes_and_devices(alone, tmp_path, cache):
    """Two processes of two devices: losses to 1e-5 of their size, images to 1e-3."""
    workdir = tmp_path / "run"
    several.finish(several.start(workdir, 10, 2, 2, cache))
    expected = {key: value for key, value in scalars(alone).items() if key[0] <= 3}
    found = {key: value for key, value in scalars(workdir).items() if key[0] <= 3}
    assert found.keys() == expected.keys() and len(found) > 20
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5), key


def test_another_number_goes_on(of_two, tmp_path, cache):
    """From the middle of a run in two processes, one of two devices, bit for bit; and back."""
    workdir, _ = of_two
    for processes, devices, start in ((1, 2, 10), (2, 1, 15)):
        copy = tmp_path / f"run{processes}"
        shutil.copytree(workdir, copy)
        for step in manifest.saved_steps(copy):
            if step > start:
                shutil.rmtree(copy / "checkpoints" / str(step))
        several.finish(several.start(copy, STEPS, processes, devices, cache))
        kill_training.compare(workdir, copy)


def wait_for(workdir: pathlib.Path, step: int, processes) -> None:
    while kill_training._last_step(workdir) < step:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


@pytest.mark.parametrize("to", [0, 1])
def test_a_signal_to_one_ends_all_at_the_same_step(tmp_path, cache, to):
    workdir = tmp_path / "run"
    processes = several.start(workdir, 10_000, 2, 1, cache, sample__every=0, eval__every=0)
    wait_for(workdir, 3, processes)
    processes[to].send_signal(signal.SIGTERM)
    ended = several.end(processes)
    assert [end.code for end in ended] == [INTERRUPTED] * 2, ended[0].errors + ended[1].errors
    saved = max(manifest.saved_steps(workdir))
    line = f"process 0: interrupted: saved at step {saved}; the same command continues"
    assert line in ended[0].errors.splitlines()
    assert manifest.saved_steps(workdir) == [*range(5, saved, 5), saved]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_other(of_two, tmp_path, cache, victim):
    """With a line and exit code 1; the next start loses nothing that was saved."""
    workdir = tmp_path / "run"
    plan = dict(sample__every=0, eval__every=0)
    processes = several.start(workdir, 10_000, 2, 1, cache, **plan)
    wait_for(workdir, 8, processes)
    processes[victim].kill()
    killed = time.monotonic()
    ended = several.end(processes)
    assert time.monotonic() - killed < BOUND
    other = ended[1 - victim]
    assert other.code == 1, other.errors
    assert f"process {1 - victim}: error: another process of this run has ended" in other.errors
    step = max(manifest.finished_steps(workdir))
    assert step >= 5
    expected, found = (state_of(path, 5) for path in (of_two[0], workdir))
    np.testing.assert_array_equal(*(s.d_params["logits"]["kernel"] for s in (expected, found)))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ("--config.train.seed=7",),
            "error: train.seed = 7 in process 1: is 0 in process 0; give all the same flags.",
        ),
        (
            ("--config.train.batch_size=7",),
            "error: process 1: train.batch_size = 7: must be a multiple of 2 devices × 2 "
            "micro-batches; use 8.",
        ),
        (
            ("--config.data.holdout=2",),
            "error: process 1: data.holdout = 2",
        ),
    ],
)
def test_what_differs_is_refused_by_all(tmp_path, cache, flags, line):
    workdir = tmp_path / "run"
    processes = several.start(workdir, 2, 2, 1, cache, of_last=flags)
    ended = several.end(processes)
    assert [end.code for end in ended] == [USER_ERROR] * 2, ended[0].errors + ended[1].errors
    assert f"process 0: {line}" in ended[0].errors
    assert not any("error:" in text for text in ended[1].errors.splitlines())
    assert not workdir.exists()


def test_flags_that_do_not_go_together_are_refused(tmp_path):
    process = kill_training.start(tmp_path / "run", 1, "--num_processes=2")
    _, errors = process.communicate(timeout=several.PATIENCE)
    assert process.returncode == USER_ERROR
    assert "error: --coordinator = None: goes with --num_processes" in errors
