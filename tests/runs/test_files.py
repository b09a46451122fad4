"""Files that are whole or absent, and directories of their own."""

import os
import pathlib

import pytest

from lwgan.errors import UserError
from lwgan.runs import files
from lwgan.runs.directory import read_run
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
    assert calls == ["fsync", "replace"]


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
