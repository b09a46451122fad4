"""What a value may be beyond its type: whether it holds, and how "must be …" goes on."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """``holds`` sees values of the right type; ``{kind}`` in ``words`` stands for that type."""

    holds: Callable[[Any], bool]
    words: str


ANY = Rule(lambda value: True, "{kind}")
ABOVE_ZERO = Rule(lambda value: value > 0, "{kind} above 0")
BELOW_ONE = Rule(lambda value: 0 <= value < 1, "{kind} of at least 0 and below 1")


def at_least(low: float, *, negative: bool = False) -> Rule:
    """No less than ``low``; with ``negative`` also below 0, which leaves the choice open."""
    words = "{kind}" + (f" of at least {low:g}, or negative" if negative else f" from {low:g}")
    return Rule(lambda value: value >= low or (negative and value < 0), words)


def between(low: float, high: float) -> Rule:
    """From ``low`` to ``high``, both included."""
    return Rule(lambda value: low <= value <= high, f"{{kind}} from {low:g} to {high:g}")


def one_of(*values: Any) -> Rule:
    """One of a few."""
    return Rule(lambda value: value in values, "one of " + ", ".join(map(str, sorted(values))))


def power_of_two(low: int, high: int) -> Rule:
    """From ``low`` to ``high``, both included."""
    powers = {2**i for i in range(low.bit_length() - 1, high.bit_length())}
    return Rule(lambda value: value in powers, f"a power of two from {low} to {high}")


def tuple_of(kind: type, words: str) -> Rule:
    """A tuple whose every element is a ``kind``; ``words`` show one."""
    return Rule(lambda values: all(type(value) is kind for value in values), words)
