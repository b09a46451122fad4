"""The one error that a user can cause, and the one way to be interrupted."""

import contextlib
import threading
from collections.abc import Iterator

# Exit codes; 0: finished, 1: anything else.
USER_ERROR, INTERRUPTED = 2, 75
# Somebody has asked this process to end, while its main thread may not see that yet.
ENDING = threading.Event()


class UserError(Exception):
    """What is wrong, in one line that ends the problem.

    Args:
      what: the setting, flag or file, e.g. ``train.batch_size``.
      value: what it was.
      allowed: what it may be, or what is the matter with it.
      do: what to do next.
    """

    # Whether all processes of a run have it.
    shared = False

    def __init__(self, what: str, value: object, allowed: str, do: str):
        line = f"{what} = {value!r}: {allowed}; {do}."
        super().__init__(" ".join(line.split()))

    @classmethod
    def shared_by_all(cls, line: str) -> "UserError":
        """The error of which every process of a run says this line."""
        error = cls.__new__(cls, line)
        error.args, error.shared = (line,), True
        return error


class Interrupted(BaseException):
    """Somebody asked the process to end, and what there was to save is saved.

    No ``Exception``, as KeyboardInterrupt is none: whoever catches those must not take it for one.
    """

    def __init__(self, words: str = "", *, shared: bool = False):
        """``shared``: all processes of a run end so."""
        super().__init__(words)
        self.shared = shared


# Where the device is another's as well.
BESIDE_OTHERS = (
    "if another process has the device, set XLA_PYTHON_CLIENT_PREALLOCATE=false for both, or "
    "JAX_PLATFORMS=cpu for this one"
)
# In what JAX says where it cannot have a device, most often because another process has its memory.
_HELD = (
    "Unable to initialize backend",
    "DNN library initialization failed",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


@contextlib.contextmanager
def device_errors(what: str, value: object, do: str) -> Iterator[None]:
    """What does not fit into a device's memory, and devices that cannot be had, are in one line.

    Raises:
      UserError: names ``what`` and its ``value``, how much it was, and says what to do.
    """
    try:
        yield
    # JAX's own errors are such; it is not imported here, for other commands do without.
    except RuntimeError as error:
        first = str(error).splitlines()[0].rstrip(".") if str(error) else ""
        _, exhausted, much = first.partition("RESOURCE_EXHAUSTED: ")
        if exhausted:
            reason = f"does not fit into the memory of a device ({much})"
            raise UserError(what, value, reason, f"{do}; {BESIDE_OTHERS}") from None
        if any(sign in first for sign in _HELD):
            raise UserError("JAX", None, f"cannot have a device ({first})", BESIDE_OTHERS) from None
        raise
