"""Compiled programs in the user's cache: what a kill leaves, what is too much, who may write."""

import os
import subprocess
import sys
import time
import types
import zlib

import pytest

from lwgan.data import kept
from lwgan.runs import compiled
from lwgan.runs.files import cache_root

VARIABLES = (compiled._PLACE, compiled._SWITCH, compiled._LEAST, compiled._OTHERS)
COMPILING = """
import sys
from lwgan.runs.compiled import keep_programs
keep_programs(write=sys.argv[1:] == [])
import jax
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
def deep(x):
    for number in range(60):
        x = jax.numpy.sin(x) * jax.numpy.sort(x + number)
    return x
jax.jit(deep)(jax.numpy.ones(7))
print(sum(event.endswith("compilation_cache/cache_hits") for event in events))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where programs go; nothing else says so."""
    for name in VARIABLES:
        # So that what is set in the test is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_told", {})
    # This process has imported it.
    monkeypatch.setattr(compiled, "sys", types.SimpleNamespace(modules={}))
    return cache_root() / compiled.FOLDER / compiled._machine()


def entry(folder, name, *, whole=True, size=100, age=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    packed = zlib.compress(os.urandom(size))
    path = folder / f"{name}-cache"
    path.write_bytes(packed if whole else packed[:-10])
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_what_a_kill_has_left_unfinished_is_removed(folder):
    whole, broken = entry(folder, "a"), entry(folder, "b", whole=False)
    compiled.keep_programs()
    assert os.environ[compiled._PLACE] == str(folder)
    assert whole.exists() and not broken.exists()


def test_only_what_is_new_is_looked_at(folder, monkeypatch):
    entry(folder, "a", age=10)
    compiled.keep_programs()
    monkeypatch.setattr(compiled, "_is_whole", lambda entry: False)
    new = entry(folder, "b", age=-10)
    compiled.keep_programs()
    assert [path.name for path in folder.glob("*-cache")] == ["a-cache"] and not new.exists()


def test_the_oldest_go_where_it_is_too_much(folder, monkeypatch):
    monkeypatch.setattr(compiled, "_MOST", 5000)
    for name, age in (("old", 300), ("new", 100), ("middle", 200)):
        entry(folder, name, size=2000, age=age)
    compiled.keep_programs()
    assert {path.name for path in folder.glob("*-cache")} == {"new-cache", "middle-cache"}


@pytest.mark.parametrize("name", [compiled._PLACE, compiled._SWITCH])
def test_what_the_environment_says_holds(folder, monkeypatch, name):
    monkeypatch.setenv(name, "false")
    compiled.keep_programs()
    assert not folder.exists() and set(VARIABLES) & set(os.environ) == {name}


def test_what_was_only_read_before_is_written_next(folder, monkeypatch):
    """Commands may be called one after the other; a user's own values stay."""
    entry(folder, "a")
    compiled.keep_programs(write=False)
    assert float(os.environ[compiled._LEAST]) > 1e6
    compiled.keep_programs()
    assert float(os.environ[compiled._LEAST]) < 1
    monkeypatch.setattr(compiled, "_told", {})
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(compiled._LEAST, "7")
    compiled.keep_programs()
    assert os.environ[compiled._LEAST] == "7" and os.environ[compiled._PLACE] == str(folder)


def test_where_nothing_can_be_written_nothing_is_kept(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiled.keep_programs()
    assert compiled._PLACE not in os.environ


def test_a_process_compiles_what_no_other_has_compiled(folder, tmp_path):
    """Without writing, after a kill, and again."""

    def hits(*arguments):
        run = [sys.executable, "-c", COMPILING, *arguments]
        printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
        return int(printed) > 0, len(list(folder.glob("*-cache")))

    assert hits("read") == (False, 0) and not folder.exists()
    found, count = hits()
    assert not found and count > 0
    assert hits("read") == hits() == (True, count)
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:-100])
    # Else it is as old as the last look.
    os.utime(folder / compiled._LOOKED, (0, 0))
    assert hits() == (False, count) and hits() == (True, count)


def test_what_gpus_have_tuned_is_kept_within_the_bound(folder, monkeypatch):
    monkeypatch.setattr(compiled, "_MOST", 5000)
    entry(folder, "program", size=2000, age=100)
    for name, age in (("old", 300), ("new", 50)):
        path = folder / compiled._TUNED / f"{name}.textproto"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x" * 2000)
        then = time.time() - age
        os.utime(path, (then, then))
    compiled.keep_programs()
    assert os.environ[compiled._OTHERS] == compiled._TUNED
    left = {path.name for path in folder.rglob("*.textproto")}
    assert left == {"new.textproto"} and (folder / "program-cache").exists()


def test_what_other_versions_left_goes_when_it_is_old(folder):
    for name, days in (("old", 70), ("new", 50)):
        entry(folder.parent / name, "a")
        then = time.time() - days * 24 * 3600
        os.utime(folder.parent / name, (then, then))
    compiled.keep_programs()
    assert {path.name for path in folder.parent.iterdir()} == {"new", folder.name}


def test_other_flags_of_xla_have_a_place_of_their_own(folder, monkeypatch):
    """The key of what is tuned does not have them."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    assert compiled._machine() != folder.name


def test_the_cache_lists_and_clears_them(folder):
    entry(folder, "a")
    assert "compiled programs" in kept.listing()
    kept.clear()
    assert not folder.exists()
