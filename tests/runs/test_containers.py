"""What containers and clusters do: a process without others, proxies, disks that are not there."""

import contextlib
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import pytest

from lwgan import cli
from lwgan.errors import UserError
from lwgan.runs import manifest, tracking
from lwgan.runs.writers import JsonLinesWriter
from lwgan.training.session import prepare
from tests import several, tiny
from tests.house import ROOT

# Seconds; a guard.
GUARD = 120
AS_FIRST = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
COMMAND = """
import signal, time
from lwgan import cli
# What is started in the background may ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
def command(values):
    print("working", flush=True)
    time.sleep(100)
command.__module__ = "lwgan.cli"
cli.run(lambda values: None, command, ["command"])
"""
# As while XLA compiles: the interpreter does not come to handlers.
IN_C = """
import hashlib
from lwgan.training import signals
signals._ONCE = 0
with signals.Signals():
    print("working", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**8)
"""
TRAINING = """
import time
from lwgan.training import signals
signals._ONCE = 0
with signals.Signals() as asked:
    print("working", flush=True)
    while not asked.end_asked():
        time.sleep(0.01)
    print("finishing", flush=True)
    time.sleep(100)
"""


def start_as_first(code):
    """A process that is the first one of its container, and its number here."""
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare here")
    process = subprocess.Popen(
        [*AS_FIRST, sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stdout.readline() != "working\n":
        errors = process.communicate()[1]
        assert errors.startswith("unshare:"), errors
        pytest.skip(f"no process can be the first one here: {errors}")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return process, int(children.split()[0])


@pytest.mark.parametrize(
    ("code", "number", "times"), [(COMMAND, signal.SIGINT, 1), (TRAINING, signal.SIGTERM, 2)]
)
def test_signals_end_the_first_process_of_a_container(code, number, times):
    """The kernel keeps from it what has no handler."""
    process, child = start_as_first(code)
    for time in range(times):
        os.kill(child, number)
        if time + 1 < times:
            assert process.stdout.readline() == "finishing\n"
    process.communicate(timeout=GUARD)
    assert process.returncode == 128 + number


def test_a_signal_that_is_sent_again_ends_the_first_process_in_any_code():
    process, child = start_as_first(IN_C)
    for _ in range(5 * GUARD):
        os.kill(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            process.communicate(timeout=0.2)
            break
    process.kill()
    assert process.returncode == 128 + signal.SIGTERM


def test_xla_has_as_many_threads_as_the_container_has_cores(monkeypatch):
    """It knows nothing of quotas; what the user says holds."""
    monkeypatch.setattr(cli, "num_cores", lambda: 3)
    told = []

    def command(values):
        told.append(os.environ["PJRT_NPROC"])

    for own in (None, "5"):
        monkeypatch.setenv("PJRT_NPROC", own or "")
        if not own:
            monkeypatch.delenv("PJRT_NPROC")
        cli.run(lambda values: None, command, ["command"])
    assert told == ["3", "5"]


JOINING = """
import sys
from lwgan import cli
from lwgan.runs import processes
processes._FIRST = 20
def command(values):
    if "without" in sys.argv:
        from jax._src import xla_bridge
        def fail():
            raise RuntimeError("no device")
        xla_bridge.register_backend_factory("other", fail, priority=500, fail_quietly=False)
    with processes.joined(f"127.0.0.1:{sys.argv[1]}", 1, 0):
        print("joined", flush=True)
command.__module__ = "lwgan.cli"
cli.run(lambda values: None, command, ["command"])
"""


def join(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", JOINING, str(several.free_port()), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )


def test_processes_do_not_talk_through_a_proxy():
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    ended = join(**proxies, no_proxy="", NO_PROXY="", no_grpc_proxy="")
    assert (ended.returncode, ended.stdout) == (0, "joined\n"), ended.stderr


def test_a_process_that_cannot_have_its_device_ends_at_once():
    """Not after it has waited for the others."""
    ended = join("without", JAX_PLATFORMS="")
    assert ended.returncode == 2, ended.stderr
    assert "error: JAX = None: cannot have a device (Unable to initialize backend" in ended.stderr


@pytest.fixture
def run_at_nine(tmp_path):
    """A run that has been at step 9, with checkpoints elsewhere."""
    workdir = tmp_path / "run"
    settings = tiny.config(train__num_steps=20)
    settings.checkpoint.every = 4
    tiny.save_run(workdir, (4, 8), settings)
    writer = JsonLinesWriter(workdir / "metrics.jsonl", 0)
    for step in range(10):
        writer.write_scalars(step, {"d/loss": 1.0})
    (workdir / "checkpoints").rename(tmp_path / "elsewhere")
    return workdir


@pytest.mark.parametrize("how", ["nowhere", "empty", "gone"])
def test_checkpoints_that_are_not_there_are_no_reason_to_start_over(run_at_nine, tmp_path, how):
    """As where a disk is not mounted: nothing is changed."""
    if how == "nowhere":
        (run_at_nine / "checkpoints").symlink_to(tmp_path / "unmounted")
    elif how == "empty":
        (tmp_path / "unmounted").mkdir()
        (run_at_nine / "checkpoints").symlink_to(tmp_path / "unmounted")
    before = (run_at_nine / "metrics.jsonl").read_bytes()
    settings = tiny.config(train__num_steps=20)
    settings.checkpoint.every = 4
    with pytest.raises(UserError, match=r"mount"):
        prepare(settings, run_at_nine, accept_new_data=True)
    assert (run_at_nine / "metrics.jsonl").read_bytes() == before
    if how == "nowhere":
        with pytest.raises(UserError, match=r"leads to .*unmounted"):
            manifest.resolve_step(run_at_nine, None)


def test_checkpoints_that_cannot_be_listed_are_one_line(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(manifest.os, "listdir", refuse)
    with pytest.raises(UserError, match=r"checkpoints'?: cannot be listed \(Permission denied\)"):
        manifest.resolve_step(tmp_path, None)


def test_the_first_to_make_an_aim_repository_is_not_in_the_way(monkeypatch, tmp_path):
    made = []

    def run(*arguments, **options):
        made.append(arguments)
        if len(made) == 1:
            raise RuntimeError("another process makes it")
        return "run"

    monkeypatch.setitem(sys.modules, "aim", types.SimpleNamespace(Run=run))
    from lwgan.runs import aim_process

    # It has a file for what it says.
    aim_process._words.close()
    opened = aim_process.open_run(str(tmp_path / "aim"), None, None, new=True, patience=0)
    assert opened == "run" and len(made) == 2


def test_tensorboard_leaves_the_gpus_to_jax(monkeypatch, tmp_path):
    hidden = []
    monkeypatch.setattr(tracking, "leave_gpus_to_jax", lambda: hidden.append(True))
    tracking._open_tensorboard(tmp_path)
    assert hidden
