"""Prints every setting: its default, what it means, and what it may be.

python -m lwgan.settings
"""

from collections.abc import Iterator

from lwgan.settings.checks import allowed, with_choices
from lwgan.settings.defaults import by_full_name


def lines() -> Iterator[str]:
    """Two lines for each setting."""
    # The tables of all rooms take a second.
    from lwgan.training.checks import NAMES

    for name, setting in by_full_name().items():
        fixed = "; cannot change within a run" if setting.fixed else ""
        yield f"{name} = {setting.default!r}"
        choices = NAMES.get(name, ())
        yield f"    {setting.meaning} ({allowed(with_choices(setting, choices))}{fixed})"


if __name__ == "__main__":
    print(*lines(), sep="\n")
