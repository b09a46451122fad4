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
FEWEST_FOR_FID = 10_000


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


# Distances between distributions: of what can be mirrored, half of the images are.
DISTANCES = ("fid", "kid")


def measure(
    samples: Extracted,
    reals: Extracted,
    metrics: Iterable[str],
    with_mirrors: Extracted | None = None,
) -> dict[str, float]:
    """The figures of ``metrics``, names in ``METRICS``; at least ``FEWEST`` images on each side.

    ``with_mirrors`` are the reals and their mirror images, where a generator has learnt from both:
    distances are taken to them. Neighbours are counted among the reals alone, for a mirror image is
    often an image's next neighbour.
    """
    figures = {}
    for name in metrics:
        beside = with_mirrors if with_mirrors and name in DISTANCES else reals
        figures |= METRICS[name](samples, beside)
    return figures


def require_enough(what: str, count: int) -> None:
    """Refuses fewer images than figures can be made of.

    Raises:
      UserError: they are too few.
    """
    if count < FEWEST:
        raise UserError(what, f"{count} images", f"at least {FEWEST} are needed", "add some")
