"""What is shown of progress, with and without a terminal."""

import functools
import io
import logging as python_logging
import sys
from types import SimpleNamespace

import pytest
import tqdm

from lwgan.runs import bars
from lwgan.runs.bars import counted


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which pass as the test says."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(bars, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def lines(caplog, capsys):
    """The lines of the log so far, without a terminal."""
    caplog.set_level(python_logging.INFO, "absl")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_line_every_30_seconds(clock, lines, capsys):
    for _ in counted(range(5000), "Reading images", 5000):
        clock.now += 0.025
    assert lines() == [
        f"Reading images: {done} of 5,000 (40 a second)"
        for done in ("1,200", "2,400", "3,600", "4,800")
    ]
    assert capsys.readouterr().err == ""


def test_no_line_for_what_is_quick(clock, lines):
    for _ in counted(range(299), "Reading images", 299):
        clock.now += 0.1
    assert lines() == []


def test_what_is_slow_has_decimals(clock, lines):
    for _ in counted(range(2), "Real images", 2):
        clock.now += 25
    assert lines() == ["Real images: 2 of 2 (0.04 a second)"]


def test_items_that_stand_for_several(clock, lines):
    for _ in counted([[0] * 64, [0] * 64, [0] * 22], "Real images", 150, size=len):
        clock.now += 15
    assert lines() == ["Real images: 128 of 150 (4.3 a second)"]


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_items_pass_one_by_one(stderr, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr())
    taken = []

    def items():
        for number in range(3):
            taken.append(number)
            yield number

    passed = counted(items(), "Images", 3)
    assert (next(passed), taken) == (0, [0])
    assert list(passed) == [1, 2]


def test_a_bar_on_a_terminal(clock, lines, monkeypatch):
    """Which is gone at the end; the log has no lines besides."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(tqdm, "tqdm", functools.partial(tqdm.tqdm, mininterval=0, ncols=80))
    for _ in counted([[0] * 4, [0] * 4], "Real images", 8, "pictures", size=len):
        clock.now += 60
    shown = terminal.getvalue().split("\r")
    assert any("Real images" in bar and " 4/8 " in bar and " pictures/s" in bar for bar in shown)
    assert shown[-1].strip() == ""
    assert lines() == []


def test_an_error_of_the_items_comes_through(lines):
    def items():
        yield 1
        raise ValueError("of the items")

    with pytest.raises(ValueError, match="of the items"):
        list(counted(items(), "Images", 2))
