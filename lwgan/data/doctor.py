"""What a dataset is like, before anything is trained with it."""

import collections
from collections.abc import Iterator

import numpy as np

from lwgan.data.cache import Dataset


def near_duplicates(dataset: Dataset, most_bits: int = 3) -> Iterator[tuple[int, int]]:
    """Pairs of images that look alike: perceptual hashes that differ in at most ``most_bits``."""
    hashes = np.array([info.hash for info in dataset.infos], np.uint64)
    for first in range(len(hashes)):
        differ = np.bitwise_count(hashes[first + 1 :] ^ hashes[first])
        for offset in np.flatnonzero(differ <= most_bits):
            yield first, first + 1 + int(offset)


def summary(dataset: Dataset) -> str:
    """What a dataset is like, in a few lines: the data doctor."""
    good, bad = len(dataset.names), len(dataset.errors)
    lines = [f"{good} images" + (f"; {bad} of {good + bad} files left out" if bad else "")]
    if dataset.infos:
        lines += [*_shapes(dataset), _duplicates(dataset)]
    return "\n  ".join([*lines, f"kept {dataset.kept}"])


def _shapes(dataset: Dataset) -> Iterator[str]:
    """Formats, sizes, and what the crop and the channels lose."""
    infos = dataset.infos
    formats = collections.Counter(info.format or "drawn" for info in infos)
    sides = np.array([(info.width, info.height) for info in infos])
    shorter, longer = sides.min(1), sides.max(1)
    small = int((shorter < dataset.image_size).sum())
    ratios = sides[:, 0] / sides[:, 1]
    lost = float(np.mean(1 - shorter / longer))
    yield "formats: " + ", ".join(f"{name} {n}" for name, n in sorted(formats.items()))
    yield (
        f"shorter side: {shorter.min()} to {shorter.max()} px, median {np.median(shorter):.0f}; "
        f"{small} below {dataset.image_size} px, enlarged"
    )
    yield (
        f"width / height: {ratios.min():.2f} to {ratios.max():.2f}, "
        f"median {np.median(ratios):.2f}; "
        f"the middle square cuts away {lost:.0%} of an image on average"
    )
    alpha, grey = (np.mean([getattr(info, name) for info in infos]) for name in ("alpha", "grey"))
    yield f"transparent in part: {alpha:.0%}; grey: {grey:.0%}"


def _duplicates(dataset: Dataset) -> str:
    """Exact duplicates, and pairs that look alike with three of them."""
    digests = [info.digest for info in dataset.infos]
    exact = len(digests) - len(set(digests))
    near = [
        (first, second)
        for first, second in (near_duplicates(dataset) if len(digests) <= 50_000 else ())
        if digests[first] != digests[second]
    ]
    line = f"duplicates: {exact} exact; {len(near)} pairs look alike"
    if near:
        shown = (f"{dataset.names[a]} and {dataset.names[b]}" for a, b in near[:3])
        line += ": " + ", ".join(shown) + (", …" if len(near) > 3 else "")
    return line
