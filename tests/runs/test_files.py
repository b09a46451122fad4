"""Files that are whole or absent, and directories of their own."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from lwgan.errors import UserError
from lwgan.runs import files
from lwgan.runs.directory import read_run
from tests.house import ROOT
from tests.runs.test_directory import config_with, start


def test_move_aside_takes_the_next_free_name(tmp_path):
    workdir = tmp_path / "a"
    for number in (1, 2, 3):
        start(workdir, config_with(num_steps=number))
        assert files.move_aside(workdir) == tmp_path / f"a.{number}"
        assert not workdir.exists()
    for number in (1, 2, 3):
        assert read_run(tmp_path / f"a.{number}").config.train.num_steps == number


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    files.write_text(path, "old")
    files.write_text(path, "first")
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write_text(path, "second")
    assert path.read_text() == "first"


def test_text_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    replace = pathlib.Path.replace
    monkeypatch.setattr(
        pathlib.Path, "replace", lambda *paths: calls.append("replace") or replace(*paths)
    )
    files.write_text(tmp_path / "file.json", "text")
    # The content, its name, and that the name is there.
    assert calls == ["fsync", "replace", "fsync"]


def test_new_directory_never_holds_the_files(tmp_path):
    names, folder = ["a.png", "b.png"], tmp_path / "out"
    assert files.new_directory(folder, names, "--out") == folder
    (folder / "other.txt").touch()
    assert files.new_directory(folder, names, "--out") == folder
    (folder / "b.png").touch()
    assert files.new_directory(folder, names, "--out") == tmp_path / "out.1"
    assert files.new_directory(folder, names, "--out") == tmp_path / "out.2"


def test_a_full_disk_is_the_users_error(tmp_path):
    with (
        pytest.raises(
            UserError, match=r"--out = .* cannot be written to \(No space left on device"
        ),
        files.writing(tmp_path, "--out"),
        open("/dev/full", "w", buffering=1) as full,
    ):
        full.write("text\n")


def test_a_directory_is_whole_or_absent_too(tmp_path):
    target = tmp_path / "images"
    with pytest.raises(OSError), files.replacing(target) as part:
        part.mkdir()
        (part / "half").write_text("")
        raise OSError
    assert not list(tmp_path.iterdir())
    with files.replacing(target) as part:
        part.mkdir()
        (part / "whole").write_text("")
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_two_processes_may_write_one_file(tmp_path):
    code = (
        "import os, pathlib, sys; from lwgan.runs.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text(str(os.getpid())); print(part.name, flush=True); input()"
    )
    path = tmp_path / "file"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, **pipes)
        for _ in range(2)
    ]
    names = [writer.stdout.readline() for writer in writers]
    assert len(set(names)) == 2
    # What living processes write stays.
    files.remove_parts(tmp_path)
    for writer in writers:
        writer.communicate("\n")
        assert writer.returncode == 0
        assert path.read_text() == str(writer.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = tmp_path / "samples" / "deeper"
    folder.mkdir(parents=True)
    alive = os.getppid()
    gone = [f"a.png.{dead.pid}.part", "00000100-raw.png.part", "metrics.json.part"]
    # Of a living process, of no process, and of somebody else.
    stay = [f"b.png.{alive}.part", "c.png", "film.mp4.part", f"x.{2**40}.part"]
    for name in gone + stay:
        (folder / name).write_text("")
    (tmp_path / f"images.{dead.pid}.part").mkdir()
    (tmp_path / f"images.{dead.pid}.part" / "pixels").write_text("")
    files.remove_parts(tmp_path, seconds=3600)
    assert len(list(folder.iterdir())) == len(gone + stay)
    files.remove_parts(tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*") if not path.is_dir())
    assert left == sorted(stay)
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_what_cannot_be_removed_is_a_warning(tmp_path, monkeypatch, caplog):
    def busy(path):
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(shutil, "rmtree", busy)
    files.remove(tmp_path / "folder")
    assert "folder cannot be removed (Device or resource busy)" in caplog.text
    caplog.clear()
    files.remove(tmp_path / "nothing")
    assert not caplog.messages


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://a", "hdfs://host:9000/x", "file://x"])
def test_addresses_are_no_paths(address):
    with pytest.raises(UserError, match=r"^--workdir = '.*': must be a path of this machine; "):
        files.local_path("--workdir", address)


def test_other_paths_are_paths(monkeypatch):
    for text in ("2025-11-25T10:30:00", "-x", "a:/b", "a b%d#'", "c:\\d"):
        assert files.local_path("--workdir", text) == pathlib.Path(text)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert files.local_path("--workdir", "~/runs") == pathlib.Path("/home/somebody/runs")


def test_without_a_home_directory_one_line_says_so(monkeypatch):
    def none(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", none)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match=r"^XDG_CACHE_HOME = '~/\.cache': there is no home direct"):
        files.cache_root()


@pytest.fixture
def across_disks(tmp_path, monkeypatch):
    """A directory with a file, which no renaming takes to another file system."""

    def elsewhere(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("text")
    monkeypatch.setattr(os, "rename", elsewhere)


@pytest.mark.usefixtures("across_disks")
def test_what_another_file_system_has_is_copied(tmp_path):
    assert files.move_aside(tmp_path / "run") == tmp_path / "run.1"
    assert (tmp_path / "run.1" / "file").read_text() == "text"
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("across_disks")
def test_what_is_mounted_is_not_emptied(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "is_mount", lambda path: True)
    with pytest.raises(OSError):
        files.move_aside(tmp_path / "run")
    assert (tmp_path / "run" / "file").read_text() == "text"
