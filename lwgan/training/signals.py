"""Signals that end training or have it save, seen when it suits the loop, or at once."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging

from lwgan.errors import ENDING, INTERRUPTED, Interrupted
from lwgan.runs.processes import Poll, are_several

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds in which one who asks for the end may do so several times: a shell, and its job control.
_ONCE = 1
# Seconds for the interpreter to see a signal.
_PATIENCE = 3


class Signals:
    """Notes signals while it is open: SIGUSR1 asks for a checkpoint, and the others for the end.

    A later one that asks for the end does what it always does. (But for SIGHUP, which a terminal
    that is closed sends several times.) Only the main thread may have handlers: in another one
    nothing is noted. Ignored signals stay ignored, as ``nohup`` wants it.
    """

    def __init__(self, last_words: Callable[[], str] = lambda: ""):
        """``last_words`` are said if the process has to end in the middle of other code."""
        self._last_words = last_words
        # Done after that.
        self.before_exit: list[Callable[[], None]] = []
        self._asked_at: float | None = None
        self._save_asked = self._at_once = False
        # The handler has run; the context has been left.
        self._seen, self._closed = threading.Event(), threading.Event()
        self._before: dict[int, object] = {}

    def end_asked(self) -> bool:
        """Whether somebody has asked for the end."""
        return self._seen.is_set()

    def save_asked(self) -> bool:
        """Whether somebody has asked for a checkpoint since the last call."""
        asked, self._save_asked = self._save_asked, False
        return asked

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Where there is nothing to be saved: the end comes here and now.

        Raises:
          Interrupted: somebody has asked for the end.
        """
        self._at_once = True
        try:
            if self.end_asked():
                raise Interrupted
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> "Signals":
        ENDING.clear()
        if threading.current_thread() is threading.main_thread():
            self._start_watching()
            self._take(signal.SIGUSR1, self._note_save)
            for number in _ENDS:
                self._take(number, self._note_end)
        return self

    def __exit__(self, *unused: object) -> None:
        self._closed.set()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._fd_before)
            os.close(self._fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, handler: Callable[[int, object], None]) -> None:
        # None: of a library in C.
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            self._before[number] = signal.signal(number, handler)

    def _note_save(self, number: int, frame: object) -> None:
        del number, frame
        self._save_asked = True

    def _note_end(self, number: int, frame: object) -> None:
        del frame
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self._seen.set()
            if self._at_once:
                raise Interrupted
            logging.info("Finishing this step and saving; again to stop at once")
        elif number != signal.SIGHUP and now - self._asked_at > _ONCE:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
            if self._before[number] is signal.SIG_DFL:
                # To the first process of a container, that does nothing.
                os._exit(128 + number)

    def _start_watching(self) -> None:
        """Starts a thread that sees signals where the interpreter does not come to its handlers."""
        readable, self._fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._fd_before = signal.set_wakeup_fd(self._fd, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(readable,), daemon=True).start()

    def _watch(self, readable: int) -> None:
        asked = False
        while numbers := os.read(readable, 64):
            ends = [n for n in numbers if n in self._before.keys() & set(_ENDS)]
            if asked and set(ends) - {signal.SIGHUP}:
                os._exit(128 + ends[-1])
            if ends and not asked:
                asked = True
                ENDING.set()
                self._after_first(ends[0])
                if os.getpid() != 1:
                    break
                # No default of C's will end the first process of a container.
                self._forget(readable)
        os.close(readable)

    def _forget(self, readable: int) -> None:
        """What was sent together with the first signal."""
        os.set_blocking(readable, False)
        with contextlib.suppress(BlockingIOError):
            os.read(readable, 64)
        os.set_blocking(readable, True)

    def _after_first(self, number: int) -> None:
        """Has later signals end the process in whatever code it is, and this one if need be."""
        if self._closed.wait(_ONCE):
            return
        for end in (signal.SIGINT, signal.SIGTERM):
            # The first process of a container would then be kept from it.
            if self._before.get(end) is signal.SIG_DFL and os.getpid() != 1:
                ctypes.CDLL(None).signal(end, ctypes.c_void_p(None))
        would_end = self._before[number] is signal.SIG_DFL or os.getpid() == 1
        if would_end and self._at_once and not self._seen.wait(_PATIENCE - _ONCE):
            try:
                print(f"interrupted: {self._last_words()}", file=sys.stderr, flush=True)
            finally:
                for release in self.before_exit:
                    with contextlib.suppress(OSError):
                        release()
                os._exit(INTERRUPTED)


class Asked:
    """What signals to this process ask for, or to any of several: then known a step later."""

    def __init__(self, signals: Signals):
        self._signals, self._poll = signals, Poll()
        # A checkpoint, at this step.
        self.to_save = False
        self._end = False

    def once_a_step(self) -> None:
        """Asks the others, in every step."""
        own = self._signals.end_asked(), self._signals.save_asked()
        self._end, self.to_save = self._poll(*own)

    def to_end(self) -> bool:
        """Whether to end now."""
        return self._end if are_several() else self._signals.end_asked()
