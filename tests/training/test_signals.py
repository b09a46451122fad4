"""Signals: what is noted, what ends at once, and what a second one does whatever code it meets."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from lwgan.errors import INTERRUPTED, Interrupted
from lwgan.training.signals import Signals
from tests.house import ROOT

ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def run(code, ignored=()):
    """A process of its own, in which signals do what they usually do, and how it ended."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN.format(ignored=[int(number) for number in ignored]) + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


BEGIN = """
import ctypes, os, signal, threading, time
from lwgan.training import signals
from lwgan.training.signals import Signals
# As the commands do for the first, and as where the tests are not started in the background.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN if number in {ignored} else signal.SIG_DFL)
def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
"""


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_is_noted_and_what_was_before_comes_back(number):
    before = signal.signal(number, lambda *unused: None)
    try:
        mine = signal.getsignal(number)
        with Signals() as signals:
            assert not signals.end_asked()
            os.kill(os.getpid(), number)
            assert signals.end_asked() and not signals.save_asked()
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_usr1_asks_for_a_checkpoint_each_time():
    with Signals() as signals:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals.save_asked() and not signals.save_asked()
        assert not signals.end_asked()


def test_where_nothing_is_to_be_saved_the_end_comes_at_once():
    with Signals() as signals:
        with pytest.raises(Interrupted), signals.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")
        # Also where it was asked for before.
        with pytest.raises(Interrupted), signals.at_once():
            pytest.fail("it went on")


@pytest.mark.parametrize("number", ENDS)
def test_what_is_ignored_stays_ignored(number):
    code = f"with Signals() as noted:\n    send({int(number)})\n"
    ended = run(code + "    print(noted.end_asked())", [number])
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr


def test_another_thread_has_no_signals():
    entered = []

    def use():
        with Signals() as signals:
            entered.append(signals.end_asked())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert entered == [False] and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_of_either_kind_ends_the_process(first, second):
    code = f"signals._ONCE = 0\nwith Signals():\n    send({int(first)})\n"
    ended = run(code + f"    send({int(second)})")
    assert ended.returncode == -second and "Traceback" not in ended.stderr


def test_one_end_may_be_asked_for_several_times():
    """As a shell and its job control do, within milliseconds."""
    code = f"with Signals() as seen:\n    send({int(signal.SIGTERM)})\n"
    ended = run(code + f"    send({int(signal.SIGTERM)})\n    print(seen.end_asked())")
    assert (ended.returncode, ended.stdout) == (0, "True\n")


def test_outside_of_commands_a_second_interrupt_is_the_usual_one():
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)
signals._ONCE = 0
try:
    with Signals():
        send(signal.SIGINT)
        send(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = run(code)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


def test_a_terminal_that_is_closed_sends_several_hangups():
    code = f"signals._ONCE = 0\nwith Signals() as noted:\n    send({int(signal.SIGHUP)})\n"
    code += f"    send({int(signal.SIGHUP)})\n    print(noted.end_asked())"
    ended = run(code)
    assert (ended.returncode, ended.stdout) == (0, "True\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_code_that_never_returns(number):
    """A lock that is taken twice, in C: no handler of Python's is run."""
    code = f"""
signals._ONCE = 0
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
if os.fork():
    with Signals():
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)
for _ in range(2):
    time.sleep(0.5)
    os.kill(os.getppid(), {int(number)})
"""
    ended = run(code)
    assert ended.returncode == -number, ended.stderr


def test_the_end_comes_where_the_interpreter_does_not():
    """Compiling, say: other code for minutes, which lets other threads run."""
    code = f"""
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
noted = Signals(lambda: "nothing to save yet")
noted.before_exit.append(lambda: print("let go", flush=True))
with noted, noted.at_once():
    libc.pthread_mutex_lock(mutex)
    threading.Timer(0.2, send, [{int(signal.SIGTERM)}]).start()
    libc.pthread_mutex_lock(mutex)
"""
    ended = run(code)
    assert ended.returncode == INTERRUPTED
    assert (ended.stdout, ended.stderr) == ("let go\n", "interrupted: nothing to save yet\n")
