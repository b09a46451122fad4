"""One trainer in a directory: on this machine, on others, and where files cannot be locked."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from lwgan.errors import UserError
from lwgan.runs import locks
from lwgan.runs.files import TRAINER
from tests.house import ROOT


def start_trainer(workdir, pulse=20):
    """Another process that trains there."""
    code = (
        f"import pathlib, sys; from lwgan.runs import locks; locks._PULSE = {pulse}\n"
        "with locks.alone(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(workdir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "1\n"
    return process


@pytest.fixture
def trainer(tmp_path):
    process = start_trainer(tmp_path)
    yield process
    process.kill()
    process.communicate()


def without_locks(number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    return flock


def held_by(folder, host, process, silence=0):
    """A lock file as a trainer leaves it that was killed."""
    path = folder / TRAINER
    path.write_text(json.dumps({"host": host, "process": process, "since": "yesterday"}) + "\n")
    then = time.time() - silence
    os.utime(path, (then, then))
    return path


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path):
    with locks.alone(tmp_path):
        said = json.loads((tmp_path / TRAINER).read_text())
        assert (said["host"], said["process"]) == (socket.gethostname(), os.getpid())
        assert said["since"].startswith("20")
    assert not list(tmp_path.iterdir())


def test_a_second_trainer_is_told_who_is_there(tmp_path, trainer):
    message = rf"another process is training there \(process {trainer.pid} on .*, since 20"
    with pytest.raises(UserError, match=message), locks.alone(tmp_path):
        pass
    assert (tmp_path / TRAINER).exists()


def test_kill_9_frees_the_directory(tmp_path, trainer):
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    assert (tmp_path / TRAINER).exists()
    with locks.alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL])
def test_without_locks_a_warning_and_on(tmp_path, monkeypatch, caplog, number):
    monkeypatch.setattr(fcntl, "flock", without_locks(number))
    with locks.alone(tmp_path), locks.locked(tmp_path / "other.lock"):
        pass
    assert caplog.text.count("has no locks") == 2


def test_without_locks_a_living_trainer_is_seen(tmp_path, monkeypatch, trainer):
    monkeypatch.setattr(fcntl, "flock", without_locks(errno.ENOLCK))
    with pytest.raises(UserError, match="another process is training"), locks.alone(tmp_path):
        pass
    trainer.kill()
    trainer.wait()
    with locks.alone(tmp_path):
        pass


def test_a_trainer_on_another_host_is_not_disturbed(tmp_path):
    """Its lock could be had here, for network drives may keep locks to each machine."""
    path = held_by(tmp_path, "elsewhere", 7, silence=60)
    before = path.read_text()
    message = (
        r"process 7 on elsewhere, since yesterday\); .*; if it is dead, delete .*trainer\.lock"
    )
    with pytest.raises(UserError, match=message), locks.alone(tmp_path):
        pass
    assert path.read_text() == before


def test_a_silent_trainer_on_another_host_is_dead(tmp_path, caplog):
    """As a container that was killed, of which the next one has another name."""
    held_by(tmp_path, "elsewhere", 7, silence=3600)
    with locks.alone(tmp_path):
        pass
    assert "on elsewhere (process 7) gave its last sign of life 60 minutes ago" in caplog.text


def test_a_dead_trainer_of_this_host_is_no_obstacle(tmp_path):
    held_by(tmp_path, socket.gethostname(), 1)
    with locks.alone(tmp_path):
        pass


@pytest.mark.parametrize(
    ("own", "locks_work", "lives"),
    [
        ({}, True, False),
        # Another container of this machine: its process cannot be seen.
        ({"numbering": "pid:[1]"}, True, False),
        ({"numbering": "pid:[1]"}, False, True),
        # Another machine of the same name; or this one, before it was started anew.
        ({"boot": "another"}, True, True),
        ({"boot": "another"}, False, True),
    ],
)
def test_hosts_of_one_name_need_not_be_one(tmp_path, own, locks_work, lives):
    holder = locks.Holder.this()._replace(process=2**31 - 1, **own)
    with (tmp_path / TRAINER).open("a+") as lock:
        assert locks._lives(lock, holder, locks_work=locks_work) == lives
        os.utime(tmp_path / TRAINER, (1, 1))
        assert not locks._lives(lock, holder, locks_work=locks_work)


def test_who_was_silent_for_too_long_does_not_go_on(tmp_path):
    """As a machine that was paused: the run is another's, and so is the lock."""
    process = start_trainer(tmp_path, pulse=0.05)
    path = held_by(tmp_path, "elsewhere", 7)
    errors = process.stderr.read()
    assert process.wait(timeout=100) == 1
    process.communicate()
    assert "error: another process has taken over the run" in errors
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_who_starts_afresh_is_no_other(tmp_path, monkeypatch):
    """The old directory's lock looks where the new one's is."""
    monkeypatch.setattr(locks, "_PULSE", 0.01)
    times = iter(["2026-01-01 00:00:00", "2026-01-01 00:00:07"])
    this = locks.Holder.this
    monkeypatch.setattr(
        locks.Holder, "this", classmethod(lambda cls: this()._replace(since=next(times)))
    )
    ended = []
    monkeypatch.setattr(locks.os, "_exit", ended.append)
    workdir = tmp_path / "run"
    workdir.mkdir()
    with locks.alone(workdir):
        workdir.rename(tmp_path / "run.1")
        workdir.mkdir()
        with locks.alone(workdir):
            for name in ("run", "run.1"):
                path = tmp_path / name / TRAINER
                os.utime(path, (1, 1))
                # The test's time-out guards it.
                while path.stat().st_mtime == 1:
                    assert not ended
    assert not ended


def test_what_is_anothers_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PULSE", 1000)
    with locks.alone(tmp_path):
        path = held_by(tmp_path, "elsewhere", 7)
    assert json.loads(path.read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', '"text"', "\x00"])
def test_a_damaged_lock_file_is_no_obstacle(tmp_path, content):
    (tmp_path / TRAINER).write_text(content)
    with locks.alone(tmp_path):
        pass


def test_a_trainer_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PULSE", 0.01)
    path = tmp_path / TRAINER
    with locks.alone(tmp_path):
        os.utime(path, (1, 1))
        # The test's time-out guards it.
        while path.stat().st_mtime == 1:
            pass


def test_what_is_let_go_early_stays_so(tmp_path):
    with locks.alone(tmp_path) as release:
        release()
        assert not list(tmp_path.iterdir())
        with locks.alone(tmp_path):
            pass
