"""Compiled programs in the user's cache, so that only the first start has to compile them.

JAX keeps them; what it leaves to others is said here: where, how much, and what a kill has damaged.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
import time
import zlib

from lwgan.errors import UserError
from lwgan.runs.files import cache_root, remove

# How threads that compile are called.
THREADS = "compiling"
# Folder in the user's cache.
FOLDER = "compiled"
# Bytes of all programs of a machine.
_MOST = 2**30
# Bytes that must be free for what GPUs tune; seconds after which other versions' programs go.
_ROOM, _OLD = 2**28, 60 * 24 * 3600
# JAX's own; where one of them is set, nothing is set here.
_PLACE, _SWITCH = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
# Seconds; what compiles sooner is not kept.
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_OTHERS = "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"
# XLA's own cache of them that JAX keeps by default, and where.
_TUNED = "xla_gpu_per_fusion_autotune_cache_dir"
# What this process has set: other values are the user's.
_told: dict[str, str] = {}
# Its time of change: entries that are older have been found whole.
_LOOKED = "looked"


def keep_programs(*, write: bool = True) -> None:
    """Has JAX keep what it compiles from now on, unless the environment speaks of that itself.

    Without ``write``, only what is there is used. Where nothing can be written, nothing is kept.
    """
    if any(os.environ.get(name) != _told.get(name) for name in (_PLACE, _SWITCH)):
        return
    try:
        folder = cache_root() / FOLDER / _machine()
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            _tidy(folder)
            _remove_old(folder)
            # It has been used.
            os.utime(folder)
        elif not folder.is_dir():
            return
    except (OSError, UserError):
        return
    _tell_jax(_PLACE, str(folder))
    # Which algorithm of a convolution is fast takes a GPU minutes to find out, and is known again
    # where a program differs in anything else. XLA writes that in any case, and where it cannot,
    # it does not compile.
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _ROOM
    _tell_jax(_OTHERS, _TUNED if has_room else "none")
    _tell_jax(_LEAST, 0.1 if write else 1e9)


def _tell_jax(variable: str, value: str | float) -> None:
    """JAX reads the environment when it is imported; it may have been."""
    if os.environ.get(variable) != _told.get(variable):
        # The user's own.
        return
    os.environ[variable] = _told[variable] = str(value)
    if jax := sys.modules.get("jax"):
        jax.config.update(variable.lower(), value)


def _machine() -> str:
    """Of the processor, for other machines that share the folder may know fewer instructions.

    And of XLA and its flags, by which it may choose other algorithms, for all that they have tuned.
    """
    flags = ""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.lower().startswith(("flags", "features")))
    except (OSError, StopIteration):
        pass
    xla = importlib.metadata.version("jaxlib") + os.environ.get("XLA_FLAGS", "")
    return hashlib.sha256((platform.machine() + flags + xla).encode()).hexdigest()[:16]


def _tidy(folder: pathlib.Path) -> None:
    """Removes what was written last and is not whole, then the oldest of what is too much."""
    looked = folder / _LOOKED
    since = looked.stat().st_mtime_ns if looked.exists() else 0
    looked.touch()
    entries = []
    for path in [
        *folder.glob("*-cache"),
        *filter(pathlib.Path.is_file, folder.glob(f"{_TUNED}/**/*")),
    ]:
        try:
            status = path.stat()
            tuned = path.parent != folder and status.st_size > 0
            whole = tuned or status.st_mtime_ns < since or _is_whole(path.read_bytes())
        except FileNotFoundError:
            # Another process tidies too.
            continue
        if whole:
            entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
        else:
            remove(path)
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= _MOST:
            break
        remove(path)
        total -= size


def _remove_old(folder: pathlib.Path) -> None:
    """Removes what other versions and flags have left here, and have not used for long."""
    for other in folder.parent.iterdir():
        # Another process tidies too.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > _OLD:
                remove(other)


def _is_whole(entry: bytes) -> bool:
    """Whether an entry of JAX's cache can be unpacked; without zstandard it uses zlib."""
    try:
        if entry.startswith(b"\x28\xb5\x2f\xfd"):
            import zstandard

            zstandard.ZstdDecompressor().decompress(entry)
        else:
            zlib.decompress(entry)
    # Each raises an error of its own.
    except Exception:
        return False
    return True
