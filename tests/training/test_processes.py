"""Several processes train one run: the same result, one voice, and ends that all share."""

import pathlib
import shutil
import signal
import time

import pytest

from lwgan.errors import INTERRUPTED, USER_ERROR
from lwgan.metrics.records import read_records
from lwgan.runs import manifest
from tests import drawn, kill_training, several

pytestmark = pytest.mark.slow(minutes=5)

STEPS = 20
# What a dead process must end the others within, seconds.
BOUND = 120


# A small program: no decoders, no augmentation, no attention.
PLAIN = dict(
    loss__aux_weight=0,
    augment__types="()",
    model__attn_resolutions="()",
    sample__every=0,
    eval__every=0,
)


def scalars(workdir, last):
    """(Step, name) -> number, up to a step, without what the clock decides."""
    return {
        (line["step"], name): value
        for line in kill_training.series(workdir)
        for name, value in line.items()
        if line["step"] <= last
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled programs of processes that are killed after they have compiled theirs, if at all."""
    return tmp_path_factory.mktemp("cache")


def test_several_processes_are_as_one(tmp_path, cache):
    """Bit for bit, where there are as many devices: losses, figures, grids and the state."""
    alone, of_two = (tmp_path / name / "run" for name in ("alone", "two"))
    several.finish(several.start(alone, STEPS, 1, 2, cache))
    first, second = several.end(several.start(of_two, STEPS, 2, 1, cache))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    kill_training.compare(alone, of_two)
    assert len(scalars(of_two, STEPS)) > 8 * STEPS and len(read_records(of_two)) == 2

    # Only the first one speaks.
    assert f"Finished {STEPS} steps" in first.errors
    assert not any(word in second.errors for word in ("error", "step 1 ", "Finished"))

    # From the middle of a run of two, one of two devices goes on, bit for bit; and back.
    for processes, devices, step in ((1, 2, 10), (2, 1, 15)):
        copy = tmp_path / f"from{step}" / "run"
        shutil.copytree(of_two, copy)
        for later in manifest.saved_steps(copy):
            if later > step:
                shutil.rmtree(copy / "checkpoints" / str(later))
        several.finish(several.start(copy, STEPS, processes, devices, cache))
        kill_training.compare(of_two, copy)

    # Other numbers of devices round otherwise.
    of_four = tmp_path / "four" / "run"
    several.finish(several.start(of_four, 2, 2, 2, cache))
    expected, found = scalars(alone, 2), scalars(of_four, 2)
    losses = [key for key in expected if key[1].startswith(("d/", "g/"))]
    assert len(losses) > 10
    for key in losses:
        assert found[key] == pytest.approx(expected[key], rel=1e-5), key


def test_labels_go_on_in_several_processes(tmp_path, cache):
    """With the flags of the first start; and where they differ, nobody waits."""
    names = [f"{('boats', 'cars')[number % 3 == 0]}/{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.noise(number).save(path)
    workdir = tmp_path / "run"
    labelled = dict(
        data__source="folder",
        data__path=tmp_path / "images",
        data__labels="folders",
        data__holdout=0.0,
    )
    for steps in (1, 2):
        several.finish(several.start(workdir, steps, 2, 1, cache, **(PLAIN | labelled)))
    assert manifest.saved_steps(workdir)[-1] == 2
    # The same labels, but for one image.
    other = tmp_path / "labels.csv"
    lines = [f"{name},{name.partition('/')[0]}" for name in names]
    other.write_text("\n".join(["cars/0.png,boats", *lines[1:]]))
    started = several.start(workdir, 3, 2, 1, cache, {"data__labels": other}, **(PLAIN | labelled))
    for ended in several.end(started):
        assert ended.code == USER_ERROR, ended.errors


def wait_for(workdir: pathlib.Path, step: int, processes) -> None:
    while kill_training._last_step(workdir) < step:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


@pytest.mark.parametrize("to", [0, 1])
def test_a_signal_to_one_ends_all_at_the_same_step(tmp_path, cache, to):
    workdir = tmp_path / "run"
    processes = several.start(workdir, 10_000, 2, 1, cache, **PLAIN)
    wait_for(workdir, 3, processes)
    processes[to].send_signal(signal.SIGTERM)
    ended = several.end(processes)
    assert [end.code for end in ended] == [INTERRUPTED] * 2, ended[0].errors + ended[1].errors
    saved = max(manifest.saved_steps(workdir))
    line = f"process 0: interrupted: saved at step {saved}; the same command continues"
    assert line in ended[0].errors.splitlines()
    assert manifest.saved_steps(workdir) == [*range(5, saved, 5), saved]


def test_what_is_not_finite_sends_all_back_to_the_same_step(tmp_path, cache):
    """And in the end all say so; the checkpoint stays."""
    workdir = tmp_path / "run"
    several.finish(several.start(workdir, 5, 2, 1, cache, **PLAIN))
    hot = PLAIN | {"optim__learning_rate": 1e30, "train__max_recoveries": 2}
    first, second = several.end(several.start(workdir, 10, 2, 1, cache, **hot))
    assert (first.code, second.code) == (USER_ERROR, USER_ERROR), first.errors + second.errors
    assert first.errors.count("going back to step 5, with other random numbers") == 2
    last = [line for line in first.errors.splitlines() if "error:" in line]
    assert len(last) == 1 and "3 times since step 5, whose checkpoint is untouched" in last[0]
    assert manifest.saved_steps(workdir) == [5]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_other(tmp_path, cache, victim):
    """With a line and exit code 1; the next start goes on from what was saved."""
    workdir = tmp_path / "run"
    processes = several.start(workdir, 10_000, 2, 1, cache, **PLAIN)
    wait_for(workdir, 8, processes)
    processes[victim].kill()
    killed = time.monotonic()
    other = several.end(processes)[1 - victim]
    assert time.monotonic() - killed < BOUND
    assert other.code == 1, other.errors
    assert f"process {1 - victim}: error: another process of this run has ended" in other.errors
    step = max(manifest.finished_steps(workdir))
    assert step >= 5
    again = several.start(workdir, step + 2, 2, 1, cache, **PLAIN)
    first, _ = several.end(again)
    assert first.code == 0 and max(manifest.finished_steps(workdir)) == step + 2, first.errors


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (
            {"train__seed": 7},
            "train.seed = 7 in process 1: is 0 in process 0; give all the same flags.",
        ),
        (
            {"train__batch_size": 7},
            "process 1: train.batch_size = 7: must be a multiple of 2 devices × 2 micro-batches",
        ),
    ],
)
def test_what_differs_is_refused_by_all(tmp_path, cache, own, line):
    workdir = tmp_path / "run"
    processes = several.start(workdir, 2, 2, 1, cache, of_last=own, train__grad_accum=2)
    ended = several.end(processes)
    assert [end.code for end in ended] == [USER_ERROR] * 2, ended[0].errors + ended[1].errors
    assert f"process 0: error: {line}" in ended[0].errors
    assert not any("error:" in text for text in ended[1].errors.splitlines())
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--num_processes=2",), "error: --coordinator = None: goes with --num_processes"),
        (
            ("--coordinator=here:1", "--num_processes=2", "--process_id=2"),
            "error: --process_id = 2: must be from 0 to 1",
        ),
        (("--coordinator=auto",), "error: --coordinator = 'auto': the processes do not find"),
        (("--coordinator=auto", "--dry_run"), "error: --dry_run = True: is for one process"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, flags, line):
    process = kill_training.start(tmp_path / "run", 1, *flags)
    _, errors = process.communicate(timeout=several.PATIENCE)
    assert process.returncode == USER_ERROR
    assert line in errors
