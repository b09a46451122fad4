"""The one error that a user can cause, and the one way to be interrupted."""

# Exit codes; 0: finished, 1: anything else.
USER_ERROR, INTERRUPTED = 2, 75


class UserError(Exception):
    """What is wrong, in one line that ends the problem.

    Args:
      what: the setting, flag or file, e.g. ``train.batch_size``.
      value: what it was.
      allowed: what it may be, or what is the matter with it.
      do: what to do next.
    """

    def __init__(self, what: str, value: object, allowed: str, do: str):
        line = f"{what} = {value!r}: {allowed}; {do}."
        super().__init__(" ".join(line.split()))


class Interrupted(BaseException):
    """Somebody asked the process to end, and what there was to save is saved.

    No ``Exception``, as KeyboardInterrupt is none: whoever catches those must not take it for one.
    """
