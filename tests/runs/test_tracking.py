"""What the trackers receive, read back from Aim's repository, TensorBoard's files and the JSON
lines.
"""

import gc
import json
import logging
import resource
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from lwgan.runs import aim_writer, tracking, writers
from lwgan.runs.directory import Run, RunInfo, read_run, record_start
from tests.house import ROOT


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_are_objects_with_their_step(tmp_path):
    writer = tracking.JsonLinesWriter(tmp_path / "metrics.jsonl", 0)
    writer.write_scalars(np.int64(1), {"loss": np.float32(1.5), "other": jnp.float32(2)})
    bad = {"a": float("nan"), "b": np.float32("inf"), "c": -float("inf")}
    writer.write_scalars(2, bad)
    assert lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 1.5, "other": 2.0},
        {"step": 2, "a": None, "b": None, "c": None},
    ]
    writer.close()


@pytest.mark.parametrize("half", ["", '{"step": 2, "lo', '{"step": 4}'])
def test_json_lines_go_on_from_a_step(tmp_path, half):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in (1, 2, 3, 4)) + half)
    writer = tracking.JsonLinesWriter(path, 2)
    assert [line["step"] for line in lines(path)] == [1, 2]
    writer.write_scalars(3, {"loss": 5.0})
    writer.close()
    assert lines(path)[2:] == [{"step": 3, "loss": 5.0}]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_log_has_scalars_but_not_the_progress(caplog):
    with caplog.at_level(logging.INFO, logger="absl"):
        tracking.LogWriter().write_scalars(7, {"steps_per_sec": 3.0, "uptime": 9.0})
        tracking.LogWriter().write_scalars(8, {"d/side": np.float32(0.123456), "d/penalty": 2})
    assert caplog.messages == ["step 8  d/penalty 2  d/side 0.1235"]


@pytest.fixture(scope="module")
def new_repo(tmp_path_factory):
    """An Aim repository for all tests, since the first run in a new one takes a second."""
    pytest.importorskip("aim")
    yield tmp_path_factory.mktemp("aim") / "runs"
    # A run that is still referred to hangs the exit of the process.
    gc.collect()


@pytest.fixture
def repo(new_repo):
    import aim

    # Else runs of the last half second are not found.
    aim.Repo._all_run_hashes.cache_clear()
    return new_repo


def aim_run(repo, run_hash):
    import aim
    from aim.sdk.index_manager import RepoIndexManager

    opened = aim.Repo(str(repo))
    RepoIndexManager.get_index_manager(opened).index(run_hash)
    # Else it reads what it had before the index.
    opened.container_pool.clear()
    return aim.Run(run_hash, repo=opened, read_only=True)


def scalars(stored):
    """Metric name -> step -> value."""
    found = {}
    for metric in stored.metrics():
        steps, (values, *_) = metric.data.numpy()
        assert len(set(steps)) == len(steps)
        found[metric.name] = dict(zip(steps.tolist(), values.tolist(), strict=True))
    return found


def test_aim_gets_everything(repo):
    from aim.storage.context import Context

    writer = tracking.AimWriter(repo, "experiment", None)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    writer.write_scalars(np.int64(1), {"loss": np.float32(1.5), "other": jnp.float32(2)})
    writer.write_scalars(2, {"loss": float("nan")})
    writer.write_images(3, {"image": image, "grey": image[..., :1]})
    writer.write_texts(0, {"note": "hello"})
    writer.write_histograms(3, {"values": jnp.array([[0.0, 1], [1, np.nan]])})
    writer.write_hparams(default.get_config().to_dict())
    writer.close()

    stored = aim_run(repo, writer.run_hash)
    assert stored.experiment == "experiment"
    assert scalars(stored) == {
        "loss": {1: 1.5, 2: pytest.approx(np.nan, nan_ok=True)},
        "other": {1: 2},
    }
    assert stored["hparams"]["train"]["batch_size"] == 40
    assert list(stored["hparams"]["eval"]["metrics"]) == ["kid", "fid", "pr"]

    def only(sequence):
        steps, values = sequence.values.sparse_list()
        assert len(values) == 1
        return steps[0], values[0]

    none = Context({})
    for name, expected in (("image", image), ("grey", image[..., 0])):
        step, image = only(stored.get_image_sequence(name, none))
        assert step == 3
        np.testing.assert_array_equal(np.asarray(image.to_pil_image()), expected)
    step, text = only(stored.get_text_sequence("note", none))
    assert (step, text.data) == (0, "hello")
    _, histogram = only(stored.get_distribution_sequence("values", none))
    counts, edges = histogram.to_np_histogram()
    assert (counts[0], counts[-1], counts.sum(), edges[0], edges[-1]) == (1, 2, 3, 0, 1)


def test_aim_run_that_goes_on_has_no_doubled_steps(repo):
    first = tracking.AimWriter(repo, "experiment", None)
    for step in (1, 2, 3, 4):
        first.write_scalars(step, {"loss": step})
    first.close()
    second = tracking.AimWriter(repo, "experiment", first.run_hash)
    assert second.run_hash == first.run_hash
    for step in (3, 4, 5):
        second.write_scalars(step, {"loss": 10 * step})
    second.close()
    assert scalars(aim_run(repo, first.run_hash)) == {"loss": {1: 1, 2: 2, 3: 30, 4: 40, 5: 50}}


def test_aim_run_that_is_lost_is_begun_anew(repo, caplog):
    writer = tracking.AimWriter(repo, "experiment", "0123456789abcdef01234567")
    assert writer.run_hash != "0123456789abcdef01234567"
    assert "a new one begins" in caplog.text
    writer.close()


@pytest.mark.slow
def test_aim_run_that_another_process_holds_is_left_alone(repo):
    writer = tracking.AimWriter(repo, "experiment", None)
    code = (
        "import pathlib, sys; from lwgan.runs import aim_writer\n"
        "from lwgan.runs.tracking import AimWriter; aim_writer._LETTING_GO = 0\n"
        "other = AimWriter(pathlib.Path(sys.argv[1]), 'experiment', sys.argv[2])\n"
        "print(other.run_hash); other.write_scalars(1, {'loss': 2}); other.close()"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(repo), writer.run_hash],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(other.stdout.strip()) == 24 and other.stdout.strip() != writer.run_hash
    writer.write_scalars(1, {"loss": 1})
    writer.close()
    assert scalars(aim_run(repo, writer.run_hash)) == {"loss": {1: 1}}


def write_each(writer):
    for write, values in (
        (writer.write_scalars, {"loss": 1.0}),
        (writer.write_images, {"image": np.zeros((4, 4, 3), np.uint8)}),
        (writer.write_texts, {"note": "hello"}),
        (writer.write_histograms, {"values": np.zeros(3)}),
    ):
        write(1, values)
    writer.write_hparams({"train": {}})


@pytest.fixture
def broken_aim(tmp_path, monkeypatch):
    """Aim's process with something else in place of a method of ``aim.Run``."""

    def break_with(method, body):
        program = tmp_path / "aim_process.py"
        program.write_text(
            f"import runpy, time, aim\ndef broken(*unused, **options):\n    {body}\n"
            f"aim.Run.{method} = broken\n"
            f"runpy.run_path({str(aim_writer._PROGRAM)!r}, run_name='__main__')\n"
        )
        monkeypatch.setattr(aim_writer, "_PROGRAM", program)

    return break_with


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_failing_aim_call_is_a_warning(repo, caplog, broken_aim):
    broken_aim("track", "raise RuntimeError('the disk is full')")
    writer = tracking.AimWriter(repo, "experiment", None)
    write_each(writer)
    writer.close()
    (warning,) = warnings_in(caplog)
    assert warning.startswith("Aim failed; ") and warning.endswith(": the disk is full")


@pytest.mark.parametrize("method", ["track", "close"])
def test_an_aim_that_hangs_holds_nobody(repo, caplog, monkeypatch, broken_aim, method):
    """As it does where its disk is full. It gets more than a pipe holds."""
    broken_aim(method, "time.sleep(1e6)")
    monkeypatch.setattr(aim_writer, "_TAKING", 0.1)
    monkeypatch.setattr(aim_writer, "_CLOSING", 0.5)
    monkeypatch.setattr(aim_writer, "_BACKLOG", 2**20)
    writer = tracking.AimWriter(repo, "experiment", None)
    write_each(writer)
    if method == "track":
        image = np.zeros((512, 512, 3), np.uint8)
        for step in range(3):
            writer.write_images(step, {"image": image})
    writer.close()
    assert writer._process.returncode == -signal.SIGKILL
    (warning,) = warnings_in(caplog)
    expected = {"track": "it takes nothing any more", "close": "it does not end"}[method]
    assert warning.startswith("Aim failed; ") and warning.endswith(f": {expected}")


def test_what_a_library_prints_is_not_taken_for_its_words(repo, caplog, broken_aim):
    broken_aim("track", "print('hello'); print('world' * 100_000)")
    writer = tracking.AimWriter(repo, "experiment", None)
    write_each(writer)
    writer.close()
    assert warnings_in(caplog) == []


def test_images_of_any_size_are_taken(repo, caplog, monkeypatch):
    """Also beyond what may wait otherwise."""
    monkeypatch.setattr(aim_writer, "_BACKLOG", 1000)
    writer = tracking.AimWriter(repo, "experiment", None)
    image = np.zeros((128, 128, 3), np.uint8)
    for step in range(3):
        writer.write_images(step, {"a": image, "b": image})
    writer.close()
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_for_all_processes_of_a_job_do_not_end_tracking(repo, caplog, number):
    writer = tracking.AimWriter(repo, "experiment", None)
    writer.write_scalars(1, {"loss": 1.0})
    writer._process.send_signal(number)
    writer.write_scalars(2, {"loss": 2.0})
    writer.close()
    assert warnings_in(caplog) == []
    assert scalars(aim_run(repo, writer.run_hash)) == {"loss": {1: 1, 2: 2}}


def test_an_aim_that_does_not_open_is_an_error(repo, monkeypatch, broken_aim):
    broken_aim("__init__", "time.sleep(1e6)")
    monkeypatch.setattr(aim_writer, "_OPENING", 1)
    with pytest.raises(OSError, match="its repository does not open"):
        tracking.AimWriter(repo, "experiment", None)


def test_what_was_written_last_is_tracked_though_the_writer_is_killed(repo):
    """Whoever writes, the process that tracks reads to the end."""
    code = (
        "import os, pathlib, signal, sys; from lwgan.runs.tracking import AimWriter\n"
        "writer = AimWriter(pathlib.Path(sys.argv[1]), 'experiment', None)\n"
        "writer.write_scalars(1, {'loss': 3})\n"
        "print(writer.run_hash, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(repo)], cwd=ROOT, capture_output=True, text=True
    )
    run_hash = ended.stdout.strip()
    # It may be at its last figures yet: this one waits for it.
    again = tracking.AimWriter(repo, None, run_hash)
    assert again.run_hash == run_hash
    again.close()
    assert scalars(aim_run(repo, run_hash)) == {"loss": {1: 3}}


def test_a_failing_writer_is_one_warning(caplog):
    class Failing(writers.QuietWriter):
        def write_scalars(self, step, scalars):
            raise OSError("the disk is full")

    writer = writers.HarmlessWriter("Tracker", Failing())
    write_each(writer)
    writer.write_scalars(2, {"loss": 1.0})
    writer.flush()
    writer.close()
    assert warnings_in(caplog) == ["Tracker failed; training goes on without it: the disk is full"]


def test_half_a_line_is_taken_back_where_the_disk_is_full(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    writer = tracking.JsonLinesWriter(path, 0)
    writer.write_scalars(1, {"loss": 1.0})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
        writer.write_scalars(2, {"loss": 2.0})
        writer.write_scalars(3, {"loss": 3.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    (warning,) = warnings_in(caplog)
    assert "metrics.jsonl cannot be written to" in warning
    writer.write_scalars(4, {"loss": 4.0})
    assert [line["step"] for line in lines(path)] == [1, 4]


@pytest.mark.parametrize(
    "bad", [b"\xff\n", b'{"loss": 1}\n', b"[2]\n", b'{"step": "two"}\n', b"\n", b"7\n", b"{\n"]
)
def test_a_bad_line_costs_that_line(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    good = [f'{{"step": {step}, "loss": 1.0}}\n'.encode() for step in (1, 2, 2)]
    path.write_bytes(good[0] + bad + good[1] + good[2])
    assert tracking.tracked(tmp_path, 2) == {"step", "loss"}
    tracking.JsonLinesWriter(path, 2)
    assert path.read_bytes() == b"".join(good)


def test_what_was_tracked_at_a_step(tmp_path):
    assert tracking.tracked(tmp_path, 1) == set()
    writer = tracking.JsonLinesWriter(tmp_path / "metrics.jsonl", 0)
    for step, name in ((1, "a"), (2, "b"), (2, "c/d"), (3, "e")):
        writer.write_scalars(step, {name: 1.0})
    assert tracking.tracked(tmp_path, 2) == {"step", "b", "c/d"}


def new_run(tmp_path, **track):
    config = default.get_config()
    config.track.update(track)
    new = Run(tmp_path / "runs" / "name", config, RunInfo("abc"))
    record_start(new, config, "abc", 0)
    return new


def write_all(this_run, step=0):
    writer = tracking.create_writer(this_run, this_run.config.track, step)
    writer.write_hparams(this_run.config.to_dict())
    writer.write_texts(0, {"note": "hello"})
    writer.write_scalars(step + 1, {"loss": jnp.float32(1.5)})
    writer.write_images(step + 1, {"image": np.zeros((4, 4, 3), np.uint8)})
    writer.write_histograms(step + 1, {"values": np.zeros(3)})
    writer.close()


def tensorboard_tags(workdir):
    import tensorflow as tf

    files = list(workdir.glob("events.out.tfevents.*"))
    return {
        value.tag
        for file in files
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }


TENSORBOARD = {"loss", "image", "values", "note"}


def test_writer_without_aim_writes_tensorboard_files(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", None)
    new = new_run(tmp_path)
    write_all(new)
    assert "Aim is not installed" in caplog.text
    assert tensorboard_tags(new.workdir) >= TENSORBOARD
    assert lines(new.workdir / "metrics.jsonl") == [{"step": 1, "loss": 1.5}]
    assert read_run(new.workdir).info.aim_run is None


def test_writer_with_an_impossible_repository_writes_tensorboard_files(tmp_path, caplog):
    pytest.importorskip("aim")
    (tmp_path / "file").write_text("")
    new = new_run(tmp_path, repo=str(tmp_path / "file"))
    write_all(new)
    assert "Aim failed; writing TensorBoard files instead" in caplog.text
    assert tensorboard_tags(new.workdir) >= TENSORBOARD


@pytest.mark.parametrize("tensorboard", [False, True])
def test_writer_with_aim_goes_on_with_the_runs_own(tmp_path, repo, tensorboard):
    new = new_run(tmp_path, repo=str(repo), tensorboard=tensorboard)
    write_all(new)
    run_hash = read_run(new.workdir).info.aim_run
    write_all(read_run(new.workdir), step=1)
    assert read_run(new.workdir).info.aim_run == run_hash
    stored = aim_run(repo, run_hash)
    assert stored.experiment == "name"
    assert scalars(stored) == {"loss": {1: 1.5, 2: 1.5}}
    assert [line["step"] for line in lines(new.workdir / "metrics.jsonl")] == [1, 2]
    assert tensorboard_tags(new.workdir) >= (TENSORBOARD if tensorboard else set())
    assert bool(tensorboard_tags(new.workdir)) == tensorboard


def test_figures_are_added_to_the_runs_own_aim_run(tmp_path, repo, caplog):
    new = new_run(tmp_path, repo=str(repo))
    # It has none: nothing happens.
    tracking.add_to_aim(new, 1, {"fid": 3.0})
    write_all(new)
    tracking.add_to_aim(new, 1, {"fid": 3.0})
    tracking.add_to_aim(new, 9, {"fid": 2.0, "kid": 0.5})
    stored = aim_run(repo, new.info.aim_run)
    assert scalars(stored) == {"loss": {1: 1.5}, "fid": {1: 3, 9: 2}, "kid": {9: 0.5}}
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]
    new.info.aim_run = "0123456789abcdef01234567"
    tracking.add_to_aim(new, 9, {"fid": 2.0})
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith("Aim failed")


def test_aim_lies_beside_the_run_unless_told_otherwise(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        tracking,
        "AimWriter",
        lambda repo, experiment, run_hash: opened.append((repo, experiment, run_hash)) or 1 / 0,
    )
    new = new_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    new.workdir = new.workdir.relative_to(tmp_path)
    tracking._open_aim(new, new.config.track)
    new.config.track.update(repo="~/all", experiment="other")
    monkeypatch.setenv("HOME", "/home/somebody")
    new.info.aim_run = "0123"
    tracking._open_aim(new, new.config.track)
    assert [(str(repo), *rest) for repo, *rest in opened] == [
        (str(tmp_path / "runs"), "name", None),
        ("/home/somebody/all", "other", "0123"),
    ]
