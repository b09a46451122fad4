"""How far something is that takes a while: a bar on a terminal, else lines in the log."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from absl import logging

from lwgan.runs import processes

T = TypeVar("T")
# Seconds between lines of the log.
_PAUSE = 30


def counted(
    items: Iterable[T],
    title: str,
    count: int,
    unit: str = "images",
    *,
    size: Callable[[T], int] | None = None,
) -> Iterator[T]:
    """The items, while what has been done with them is shown: as a bar, or every 30 seconds.

    ``count`` is how many there are in all; ``size`` says for how many an item stands, else one.
    """
    from tqdm import tqdm

    # None: on a terminal only.
    hidden = None if processes.is_first() else True
    with tqdm(None, title, count, unit=f" {unit}", disable=hidden, leave=False) as bar:
        done, started = 0, time.monotonic()
        told = started
        for item in items:
            yield item
            new = size(item) if size else 1
            bar.update(new)
            done += new
            now = time.monotonic()
            if bar.disable and now - told >= _PAUSE:
                told = now
                rate = done / (now - started)
                shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
                logging.info("%s: %s of %s (%s a second)", title, f"{done:,}", f"{count:,}", shown)
