"""What a dataset is like, before anything is trained with it."""

from collections.abc import Iterator

import numpy as np

from lwgan.data.dataset import Dataset
from lwgan.data.duplicates import find_pairs
from lwgan.data.folder import not_looked_at
from lwgan.data.values import Profile
from lwgan.settings.shapes import LONGEST, Shape, named

# Longer than so many times its width, or the other way round.
_EXTREME = 3


# Labels that are named, and images of one that are few.
_MOST, _FEW = 20, 50
# Of an image, that another shape must save before it is spoken of.
_WORTH = 0.05


def summary(dataset: Dataset) -> str:
    """What a dataset is like, in a few lines: the data doctor."""
    good, bad = len(dataset.names), len(dataset.errors)
    lines = [f"{good} images" + (f"; {bad} of {good + bad} files left out" if bad else "")]
    if dataset.skipped:
        lines.append(not_looked_at(dataset.skipped))
    lines += [*_shapes(dataset), *_labels(dataset), *_values(dataset), _duplicates(dataset)]
    return "\n  ".join([*lines, f"kept {dataset.kept}"])


def _shapes(dataset: Dataset) -> Iterator[str]:
    """Formats, sizes, and what the crop and the channels lose."""
    infos = dataset.infos
    names, counts = np.unique(infos["format"], return_counts=True)
    formats = {name.decode() or "drawn": n for name, n in zip(names, counts, strict=True)}
    widths, heights = (infos[side].astype(int) for side in ("width", "height"))
    shorter, longer = np.minimum(widths, heights), np.maximum(widths, heights)
    height, width = dataset.shape
    low, narrow = heights < height, widths < width
    small = int((low & narrow if dataset.fit == "pad" else low | narrow).sum())
    ratios = widths / heights
    yield "formats: " + ", ".join(f"{name} {n}" for name, n in sorted(formats.items()))
    yield (
        f"shorter side: {shorter.min()} to {shorter.max()} px, median {np.median(shorter):.0f}; "
        f"{small} below {named(dataset.shape)} px, enlarged"
    )
    yield (
        f"width / height: {ratios.min():.2f} to {ratios.max():.2f}, "
        f"median {np.median(ratios):.2f}; {_fit(dataset, ratios)}"
    )
    if (longer > _EXTREME * shorter).any():
        yield _counted(dataset, longer > _EXTREME * shorter, "{} of them over 3:1 or below 1:3")
    alpha, grey = (infos[name].mean() for name in ("alpha", "grey"))
    yield f"transparent in part: {alpha:.0%}; grey: {grey:.0%}"


def _fit(dataset: Dataset, ratios: np.ndarray) -> str:
    """What the shape costs, and which would cost less."""
    shape = dataset.shape
    lost = cut_away(ratios, shape)
    if dataset.fit == "pad":
        return f"{lost:.0%} of a padded image is plain on average"
    if dataset.fit == "stretch":
        most = max(shape.aspect / ratios.min(), ratios.max() / shape.aspect)
        return f"stretched up to {most:.2f} times as much one way as the other"
    which = "square" if shape.height == shape.width else named(shape)
    line = f"the middle {which} cuts away {lost:.0%} of an image on average"
    best = min(others(shape), key=lambda other: cut_away(ratios, other))
    if lost - cut_away(ratios, best) > _WORTH:
        line += f", data.image_size={named(best)} {cut_away(ratios, best):.0%}"
    return line


def cut_away(ratios: np.ndarray, shape: Shape) -> float:
    """The mean share of images of these widths by height that lies outside of their middle."""
    return float(np.mean(1 - np.minimum(ratios, shape.aspect) / np.maximum(ratios, shape.aspect)))


def others(shape: Shape) -> list[Shape]:
    """Shapes of as many layers, up to 3:1: 4 by 4 to 12 of a power of two, either way."""
    step = shape.size // 4
    longer = [step * parts for parts in range(4, 13) if step * parts <= LONGEST]
    return [Shape(shape.size, side) for side in longer] + [
        Shape(side, shape.size) for side in longer
    ]


def _labels(dataset: Dataset) -> Iterator[str]:
    """How many images each label has."""
    if dataset.labels is None:
        return
    counts = np.bincount(dataset.labels, minlength=len(dataset.label_names))
    shown = [f"{name} {n}" for name, n in zip(dataset.label_names[:_MOST], counts, strict=False)]
    more = ", …" if len(counts) > _MOST else ""
    yield f"{len(counts)} labels: " + ", ".join(shown) + more
    few = [name for name, n in zip(dataset.label_names, counts, strict=True) if n < _FEW]
    if few:
        some = ", ".join(few[:_MOST]) + (", …" if len(few) > _MOST else "")
        yield f"of less than {_FEW} images, which are soon learnt by heart: {some}"


def _values(dataset: Dataset) -> Iterator[str]:
    """Profiles, and values that may not mean what they are taken for."""
    infos = dataset.infos
    kinds = {
        "{} with a colour profile, converted to sRGB": infos["profile"] == Profile.CONVERTED,
        "{} with a colour profile that cannot be used": infos["profile"] == Profile.LEFT,
        "{} of 12 bits or more use less than a tenth of their range": infos["faint"],
        "{} of floats beyond 0 … 1, which are cut off": infos["clipped"],
    }
    for words, chosen in kinds.items():
        if chosen.any():
            yield _counted(dataset, chosen, words)


def _counted(dataset: Dataset, chosen: np.ndarray, words: str) -> str:
    first = dataset.names[int(np.flatnonzero(chosen)[0])]
    return f"{words.format(int(chosen.sum()))}, such as {first}"


def _duplicates(dataset: Dataset) -> str:
    """Exact duplicates, and pairs that look alike with three of them."""
    found = find_pairs(dataset.infos["hash"], dataset.infos["digest"])
    line = f"duplicates: {found.exact} exact; {found.near:,} pairs look alike"
    if found.shown:
        shown = (f"{dataset.names[a]} and {dataset.names[b]}" for a, b in found.shown)
        line += ": " + ", ".join(shown) + (", …" if found.near > len(found.shown) else "")
    return line
