"""What this process may use: memory and cores, by the machine, its cgroups and its own limits."""

import collections
import contextlib
import math
import os
import pathlib
import re
import resource
import threading
from collections.abc import Iterator

# The files of a memory cgroup: limits, usage, and what memory.stat calls the reclaimable part.
_MEMORY = {
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}
# The files that give quota and period.
_CPU = {"cgroup2": ("cpu.max",), "cgroup": ("cpu.cfs_quota_us", "cpu.cfs_period_us")}
# Root, mount point, type and options of a cgroup file system, in /proc/self/mountinfo.
_MOUNT = re.compile(r"^\d+ \d+ \S+ (\S+) (\S+) \S+ (?:\S+ )*?- (cgroup2?) \S* (\S+)$", re.M)
_ROOT = pathlib.Path("/")


class Budget:
    """At most ``total`` bytes in flight at once. Who asks first is served first.

    What is larger than ``total`` goes alone. A thread that holds bytes must not ask for more.
    """

    def __init__(self, total: int):
        self._total = total
        self._used = 0
        self._waiting = collections.deque[object]()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Waits until ``size`` more bytes may be in flight; they are, until the block ends."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._fits(size))
                self._used += size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._total


def free_memory(root: pathlib.Path = _ROOT) -> int:
    """Bytes of memory that this process can have now; what cannot be read does not count.

    ``root`` is where /proc and the cgroups are looked for.
    """
    import psutil

    found = [*_free_in_groups(root), *_free_in_process(root)]
    # /proc may be hidden, or may lack what psutil expects.
    with contextlib.suppress(OSError, LookupError, ValueError, psutil.Error):
        found.append(psutil.virtual_memory().available)
    return max(0, min(found, default=0))


def num_cores(root: pathlib.Path = _ROOT) -> int:
    """Cores that this process may use; a part of one counts as one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cores = os.cpu_count() or 1
    for kind, folder in _groups(root, "cpu"):
        text = " ".join(_text(folder / name).strip() for name in _CPU[kind])
        # Without a quota it is "max" or -1.
        if match := re.fullmatch(r"([0-9]{1,20}) 0*([1-9][0-9]{0,19})", text):
            cores = min(cores, math.ceil(int(match[1]) / int(match[2])))
    return max(1, cores)


def _free_in_groups(root: pathlib.Path) -> Iterator[int]:
    """Bytes below each limit of memory; the page cache that can be reclaimed is free."""
    for kind, folder in _groups(root, "memory"):
        limits, usage, cache = _MEMORY[kind]
        used = _figure(folder / usage)
        reclaimable = _figure(folder / "memory.stat", cache) or 0
        for limit in (_figure(folder / name) for name in limits):
            if limit is not None and used is not None:
                yield limit - max(0, used - reclaimable)


def _free_in_process(root: pathlib.Path) -> Iterator[int]:
    """Bytes below each limit of the process (``ulimit -v`` and ``-d``)."""
    for number, name in (resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:"):
        limit = resource.getrlimit(number)[0]
        kibibytes = _figure(root / "proc/self/status", name)
        if limit != resource.RLIM_INFINITY and kibibytes is not None:
            yield limit - kibibytes * 1024


def _groups(root: pathlib.Path, controller: str) -> Iterator[tuple[str, pathlib.Path]]:
    """Type and directory of this process's cgroups, from its own up to the mount point.

    In a container the directories below the mount point may not be there.
    """
    own = {"cgroup": "/", "cgroup2": "/"}
    for names, path in re.findall(r"^\d+:(.*?):(.*)$", _text(root / "proc/self/cgroup"), re.M):
        if not names or controller in names.split(","):
            own["cgroup" if names else "cgroup2"] = path
    below, others = [], []
    for top, point, kind, options in _MOUNT.findall(_text(root / "proc/self/mountinfo")):
        if kind == "cgroup" and controller not in options.split(","):
            continue
        mount = root / _unescape(point).lstrip("/")
        inside = _below(own[kind], _unescape(top))
        if inside is None:
            others.append((kind, mount))
        else:
            below += [(kind, mount / part) for part in (inside, *inside.parents)]
    seen = {kind for kind, _ in below}
    yield from below
    yield from (other for other in others if other[0] not in seen)


def _below(path: str, top: str) -> pathlib.PurePosixPath | None:
    """``path`` as seen from ``top``; None where it is not inside, as far as a namespace tells."""
    try:
        inside = pathlib.PurePosixPath(path).relative_to(top)
    except ValueError:
        return None
    return None if ".." in inside.parts else inside


def _unescape(field: str) -> str:
    """A path of mountinfo, where a space is ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _figure(path: pathlib.Path, name: str = "") -> int | None:
    """The number in a file, or that on the line that begins with ``name``."""
    match = re.search(rf"^{name}\s*([0-9]{{1,20}})(?: kB)?$", _text(path), re.M)
    return int(match[1]) if match else None


def _text(path: pathlib.Path) -> str:
    try:
        # Any byte may be in the name of a mount point.
        return path.read_text("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return ""
