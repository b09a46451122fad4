"""Prints every setting: its default, what it means, and what it may be.

python -m lwgan.settings
"""

from collections.abc import Iterator

from lwgan.settings.checks import allowed
from lwgan.settings.defaults import by_full_name


def lines() -> Iterator[str]:
    """Two lines for each setting."""
    for name, setting in by_full_name().items():
        fixed = "; cannot change within a run" if setting.fixed else ""
        yield f"{name} = {setting.default!r}"
        yield f"    {setting.meaning} ({allowed(setting)}{fixed})"


if __name__ == "__main__":
    print(*lines(), sep="\n")
