"""Files that one process holds: a run for its trainer, and for a moment what several may write.

The kernel lets go of a lock whatever ends its process. Where a file system has no locks, or keeps
them to each machine, a run's lock tells by its content who trains there, and by its time of change
that the process is alive.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import psutil
from absl import logging

from lwgan.errors import UserError
from lwgan.runs.files import TRAINER, writing

try:
    import fcntl
except ModuleNotFoundError:
    raise UserError(
        "platform",
        sys.platform,
        "lwgan needs the file locks of Linux and macOS",
        "on Windows run it in WSL 2",
    ) from None

# Seconds between two signs of life, and after how many without one a trainer is taken for dead.
_PULSE = 20
_SILENCE = 180


class Holder(NamedTuple):
    """Who has a lock, as its file says."""

    host: str
    process: int
    since: str
    # The start of its kernel and the container of its number, if they are known: hosts of one name
    # need not be one.
    boot: str = ""
    numbering: str = ""

    @classmethod
    def this(cls) -> "Holder":
        """This process."""
        boot = numbering = ""
        with contextlib.suppress(OSError):
            boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            numbering = os.readlink("/proc/self/ns/pid")
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), os.getpid(), since, boot, numbering)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process holds this lock file."""
    with path.open("a") as lock:
        _lock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def alone(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Keeps every other trainer out of a directory; yields what lets them in again.

    Raises:
      UserError: another process trains there, or the directory cannot be written to.
    """
    path = workdir / TRAINER
    with contextlib.ExitStack() as stack:
        with writing(workdir, "--workdir"):
            lock = _take(path)
            stack.enter_context(lock)
            own = Holder.this()
            lock.truncate(0)
            # At once, for what is left in a buffer would fail again when it is closed.
            os.write(lock.fileno(), json.dumps(own._asdict()).encode() + b"\n")

        ended = threading.Event()

        def release() -> None:
            ended.set()
            with contextlib.suppress(OSError):
                if _is_at(lock, path) and not _is_of_another(path, own):
                    lock.truncate(0)
                    path.unlink()

        stack.callback(release)
        stack.enter_context(_signs_of_life(lock, path, own, ended))
        yield release


def _take(path: pathlib.Path) -> IO[str]:
    """The trainer's lock file, open and locked."""
    while True:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(path.open("a+"))
            try:
                works = _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _refused(path, _read_holder(lock), "") from None
            # Its holder may have deleted it meanwhile, and the next one has another.
            if not _is_at(lock, path):
                continue
            holder = _read_holder(lock)
            if holder and _lives(lock, holder, locks_work=works):
                raise _refused(path, holder, f"; if it is dead, delete {path}")
            stack.pop_all()
            return lock


def _lock(lock: IO[str], how: int) -> bool:
    """Locks an open file; False, with a warning, where the file system has no locks."""
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        raise
    # ENOLCK, EOPNOTSUPP, EBADF and others, on network drives.
    except OSError as error:
        logging.warning("The file system of %s has no locks (%s)", lock.name, error.strerror)
        return False
    return True


def _lives(lock: IO[str], holder: Holder, *, locks_work: bool) -> bool:
    """Whether a holder from whom the lock could be had is at work all the same."""
    own = Holder.this()
    if holder.host == own.host and holder.boot in ("", own.boot):
        if locks_work:
            return False
        if holder.numbering in ("", own.numbering):
            return holder.process != own.process and psutil.pid_exists(holder.process)
    # Of a network drive, or of a container that is no more.
    silence = time.time() - os.fstat(lock.fileno()).st_mtime
    if silence > _SILENCE:
        logging.warning(
            "The trainer on %s (process %d) gave its last sign of life %d minutes ago: going on",
            holder.host,
            holder.process,
            silence / 60,
        )
    return silence <= _SILENCE


def _refused(path: pathlib.Path, holder: Holder | None, hint: str) -> UserError:
    who = f" (process {holder.process} on {holder.host}, since {holder.since})" if holder else ""
    return UserError(
        "--workdir",
        str(path.parent),
        f"another process is training there{who}",
        f"wait for its end, or name another{hint}",
    )


def _read_holder(lock: IO[str]) -> Holder | None:
    lock.seek(0)
    try:
        holder = Holder(**json.loads(lock.read()))
    except (ValueError, TypeError):
        return None
    known = isinstance(holder.process, int) and 0 < holder.process < 2**31
    return holder if known else None


def _is_of_another(path: pathlib.Path, own: Holder) -> bool:
    """Whether another trainer has taken over, to which this one had seemed dead."""
    with contextlib.suppress(OSError), path.open() as file:
        found = _read_holder(file)
        # One that starts afresh has two, of different times.
        return found is not None and found._replace(since=own.since) != own
    return False


def _is_at(lock: IO[str], path: pathlib.Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _signs_of_life(
    lock: IO[str], path: pathlib.Path, own: Holder, ended: threading.Event
) -> Iterator[None]:
    """Touches the file every now and then; ends this process where it is another's meanwhile."""

    def touch() -> None:
        while not ended.wait(_PULSE):
            if _is_of_another(path, own):
                where, line = path.parent, "another process has taken over the run in"
                try:
                    # The terminal may be gone.
                    print(f"error: {line} {where}: this one was silent", file=sys.stderr)
                finally:
                    os._exit(1)
            with contextlib.suppress(OSError):
                os.utime(lock.fileno())

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
