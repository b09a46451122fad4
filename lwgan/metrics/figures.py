"""Figures of samples beside real images: a table of functions of their features."""

from collections.abc import Callable, Iterable

from lwgan.errors import UserError
from lwgan.metrics.extraction import Extracted
from lwgan.metrics.frechet import frechet_distance
from lwgan.metrics.kid import kernel_distance
from lwgan.metrics.neighbours import precision_and_recall

# Images of each set.
FEWEST = 8
# With fewer, FID's bias is larger than most differences.
FEWEST_FOR_FID = 2048


def _fid(samples: Extracted, reals: Extracted) -> dict[str, float]:
    return {"fid": frechet_distance(samples.moments, reals.moments)}


def _kid(samples: Extracted, reals: Extracted) -> dict[str, float]:
    mean, error = kernel_distance(samples.features, reals.features)
    return {"kid": mean, "kid_stderr": error}


def _pr(samples: Extracted, reals: Extracted) -> dict[str, float]:
    precision, recall = precision_and_recall(samples.features, reals.features)
    return {"precision": precision, "recall": recall}


METRICS: dict[str, Callable[[Extracted, Extracted], dict[str, float]]] = {
    "fid": _fid,
    "kid": _kid,
    "pr": _pr,
}


def measure(samples: Extracted, reals: Extracted, metrics: Iterable[str]) -> dict[str, float]:
    """The figures of ``metrics``, names in ``METRICS``; at least ``FEWEST`` images on each side."""
    figures = {}
    for name in metrics:
        figures |= METRICS[name](samples, reals)
    return figures


def require_enough(what: str, count: int) -> None:
    """Refuses fewer images than figures can be made of.

    Raises:
      UserError: they are too few.
    """
    if count < FEWEST:
        raise UserError(what, f"{count} images", f"at least {FEWEST} are needed", "add some")
