"""Several processes that train one run: how they start, agree on things, and end.

Each runs the same program on its own devices and its own share of the images; process 0 alone
writes. The engine is ``jax.distributed``. What happens between two of these calls has to be the
same everywhere, or else one process waits for the others until it is ended.
"""

import contextlib
import ctypes
import functools
import itertools
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from lwgan.errors import INTERRUPTED, USER_ERROR, Interrupted, UserError, device_errors

# Of --coordinator: SLURM, Open MPI or TPUs say where it is.
AUTO = "auto"
# Seconds to wait for the last one at the start, without a sign of life from one, and for the last
# one at the end; and for what may take long.
_FIRST, _SILENCE, _LAST, _DAY = 300, 60, 300, 86400
_GONE = (
    "another process of this run has ended, or cannot be reached; the same command on all goes on "
    "from the last checkpoint"
)
# In what JAX says where one has.
_SIGNS = ("Gloo", "NCCL", "coordination", "Coordination", "preempted", "heartbeat", "Socket closed")


@contextlib.contextmanager
def joined(coordinator: str | None, count: int | None, index: int | None) -> Iterator[None]:
    """This process as one of ``count``; alone where nothing is given.

    The end of the block waits for the others. What ends one of them ends all: with what all have
    agreed on, else with exit code 1.

    Args:
      coordinator: address and port of process 0, or ``AUTO``.
      count: how many processes there are.
      index: which one this is, from 0 on.

    Raises:
      UserError: only some of these are given, or nobody says where the others are.
    """
    if coordinator is None and count is None and index is None:
        yield
        return
    _initialize(coordinator, count, index)
    import jax

    try:
        # The first look at the devices.
        with device_errors("JAX", None, "use less at once"):
            own = jax.process_index()
        _end_with(f"process {own}: error: {_GONE}")
        if own:
            _be_silent()
        yield
        _end_together()
    except (UserError, Interrupted) as error:
        ended = isinstance(error, Interrupted)
        if not error.shared or is_first():
            _say(f"{'interrupted' if ended else 'error'}: {error}")
        if error.shared:
            with contextlib.suppress(Exception):
                _end_together()
        os._exit(INTERRUPTED if ended else USER_ERROR)
    except BaseException as error:
        if any(sign in str(error) for sign in _SIGNS):
            _say(f"error: {_GONE} ({' '.join(str(error).split())[:300]})")
        else:
            traceback.print_exc()
            _say("error: the others end as well")
        # At once: Python's own end would wait for the others.
        os._exit(1)


def _end_together() -> None:
    # However long process 0 still writes: JAX would wait for a while only.
    gather(None)
    import jax

    jax.distributed.shutdown()


def _initialize(coordinator: str | None, count: int | None, index: int | None) -> None:
    if coordinator is None or (coordinator != AUTO and None in (count, index)):
        raise UserError(
            "--coordinator",
            coordinator,
            "goes with --num_processes and --process_id",
            f"give all three, or --coordinator={AUTO} where SLURM, Open MPI or TPUs say the rest",
        )
    if None not in (count, index) and not 0 <= index < count:
        raise UserError("--process_id", index, f"must be from 0 to {count - 1}", "number them so")
    import jax

    # Programs of all devices may be compiled by one process alone: to know their memory, or because
    # the others have them in their cache. XLA would wait for the others to try convolutions out.
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"--xla_gpu_shard_autotuning=false {given}"
    # The processes talk to each other, not through the proxy of whoever downloads something.
    os.environ.setdefault("grpc_proxy", "")
    # A handler of its own for SIGTERM, beside which ours would not be heard.
    jax.config.update("jax_enable_preemption_service", False)
    _end_with(f"error: the other processes have not come within {_FIRST} s")
    try:
        jax.distributed.initialize(
            None if coordinator == AUTO else coordinator,
            count,
            index,
            initialization_timeout=_FIRST,
            heartbeat_timeout_seconds=_SILENCE,
            shutdown_timeout_seconds=_LAST,
        )
    # JAX raises several kinds.
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            "--coordinator",
            coordinator,
            f"the processes do not find each other ({reason})",
            "name an address and a free port of process 0 that all reach",
        ) from None
    _end_with(f"error: {_GONE}")


def _end_with(last_words: str) -> None:
    """Where JAX misses another process, it aborts this one: then exit code 1 and a line."""

    def end(number: int) -> None:
        del number
        os.write(2, f"{last_words}\n".encode())
        os._exit(1)

    # Kept: the handler lives as long as the process.
    _HANDLERS.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(end))
    ctypes.CDLL(None).signal(signal.SIGABRT, _HANDLERS[-1])


_HANDLERS: list[Any] = []
# What is asked has a number, the same in all processes.
_ASKED = itertools.count()


def _be_silent() -> None:
    sys.stdout = open(os.devnull, "w")
    logging.set_verbosity(logging.ERROR)


def _say(last_words: str) -> None:
    import jax

    who = ""
    # Where there are no devices, there is no number.
    with contextlib.suppress(RuntimeError):
        who = f"process {jax.process_index()}: "
    with contextlib.suppress(OSError):
        print(f"{who}{last_words}", file=sys.stderr, flush=True)


def are_several() -> bool:
    """Whether this process is one of several that were started together."""
    # Commands that need no JAX go without it.
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not are_several() or sys.modules["jax"].process_index() == 0


def gather(value: Any) -> list[Any]:
    """What each process says, in their order: anything that JSON holds."""
    if not are_several():
        return [value]
    # Not by the devices, which may not be alike, and give up when one process takes its time.
    from jax._src.distributed import global_state

    client, place = global_state.client, f"lwgan/{next(_ASKED)}"
    client.key_value_set(f"{place}/{global_state.process_id}", json.dumps(value))
    others = range(global_state.num_processes)
    said = [client.blocking_key_value_get(f"{place}/{index}", _DAY * 1000) for index in others]
    return list(map(json.loads, said))


def of_first(make: Callable[[], Any]) -> Any:
    """What process 0 makes, and nobody else; its errors are everyone's."""
    with together():
        value = make() if is_first() else None
    return gather(value)[0]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """An error that a user can cause in one process becomes that of all.

    Inside, no process asks another.

    Raises:
      UserError: that of the first process that has one.
    """
    if not are_several():
        yield
        return
    own = None
    try:
        yield
    except UserError as error:
        own = error
    errors = gather(str(own) if own else None)
    for index, line in enumerate(errors):
        if line is not None:
            raise UserError.shared_by_all(line if index == 0 else f"process {index}: {line}")


def require_same(own: Mapping[str, Any], do: str) -> None:
    """Refuses processes that differ in something, by its name.

    Raises:
      UserError: names the first process that differs from process 0, and in what.
    """
    first, *others = gather(dict(own))
    for index, other in enumerate(others, 1):
        for name, value in other.items():
            if value != first.get(name):
                line = f"{name} = {value!r} in process {index}: is {first.get(name)!r} in process 0"
                raise UserError.shared_by_all(f"{line}; {do}.")


@functools.cache
def beside() -> int:
    """How many of the processes run on this machine, this one too; first asked by all at once."""
    return gather(socket.gethostname()).count(socket.gethostname())


def from_first(tree: Any) -> Any:
    """A tree of arrays as process 0 has it, in NumPy; the others give its shapes."""
    if not are_several():
        return tree
    import jax
    from jax.experimental.multihost_utils import broadcast_one_to_all

    if not is_first():
        tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
    return broadcast_one_to_all(jax.device_get(tree))


class Poll:
    """Whether any process asks for something: known to all at the same step, which is the next.

    No step waits for it.
    """

    def __init__(self) -> None:
        import jax

        self._any = jax.pmap(lambda asked: jax.lax.pmax(asked, "all"), "all", out_axes=None)
        self._before: Any = None

    def __call__(self, *asked: bool) -> tuple[bool, ...]:
        """What any asked for at the last call; alone, what this one asks for now."""
        if not are_several():
            return asked
        import jax

        latest, own = self._before, np.array([asked] * jax.local_device_count(), np.int32)
        self._before = self._any(own)
        return (False,) * len(asked) if latest is None else tuple(map(bool, np.asarray(latest)))
