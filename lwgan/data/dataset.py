"""A dataset: images at training size, by index, wherever they are kept."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lwgan.data.decode import crop, middle
from lwgan.data.source import content_order
from lwgan.settings.shapes import Shape

# By so much the shapes of nine in ten images may differ and still be called the same.
_ALIKE = 1.05
# What the random numbers of a seed are for, as part of a NumPy generator's key.
ORDER, CROP = 0, 1

# What is known of each image: the fields of ``decode.Info``, then how it looks as it is kept: its
# perceptual hash, the digest of its pixels (duplicates have the same), its size.
RECORD = np.dtype(
    [
        ("format", "S8"),
        ("width", "u4"),
        ("height", "u4"),
        ("alpha", "?"),
        ("grey", "?"),
        ("profile", "u1"),
        ("faint", "?"),
        ("clipped", "?"),
        ("hash", "u8"),
        ("digest", "u1", (16,)),
        ("rows", "u4"),
        ("columns", "u4"),
    ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The images of a dataset at training size; those that do not decode are left out."""

    names: Sequence[str]
    # Of the source: the same for the same images, wherever they lie.
    fingerprint: str
    # Of each image's file, uint8 (N, 16).
    contents: np.ndarray
    # Of RECORD, (N,).
    infos: np.ndarray
    # Index -> uint8 (H, W, C), not yet cropped where crops are drawn.
    at: Callable[[int], np.ndarray]
    # Indices (…) -> uint8 (…, H, W, C), where images are kept and none is to be cropped.
    gather: Callable[[np.ndarray], np.ndarray] | None
    # Whether a batch is a matter of microseconds.
    in_memory: bool
    # At training size.
    shape: Shape
    crop_prob: float
    # A name in ``decode.FITS``.
    fit: str
    # Of each image, int32 (N,), places in ``label_names``; None without labels.
    labels: np.ndarray | None
    label_names: Sequence[str]
    # Why an image was left out, by name.
    errors: Mapping[str, str]
    # Files that were not looked at, by suffix.
    skipped: Mapping[str, int]
    # Where, in words, and how many bytes.
    kept: str

    def take(self, indices: np.ndarray, seed: int, positions: np.ndarray) -> np.ndarray:
        """A batch, uint8 (B, H, W, C). ``positions`` in the whole run decide the random crops."""
        if self.gather:
            return self.gather(indices)
        return np.stack(
            [
                crop(self.at(i), self.shape, self.crop_prob, (seed, CROP, position))
                for i, position in zip(indices, positions, strict=True)
            ]
        )

    @property
    def aspect(self) -> float | None:
        """Width by height of the images as they lie in their source; None where they differ."""
        ratios = self.infos["width"] / self.infos["height"]
        low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
        return float(middle) if high <= _ALIKE * low else None

    @property
    def labelling(self) -> str | None:
        """A digest of which image has which label; None without labels."""
        if self.labels is None:
            return None
        order = content_order(self.contents)
        names = np.array(self.label_names)[self.labels[order]]
        return hashlib.sha256(repr(names.tolist()).encode()).hexdigest()[:16]

    def centre(self, index: int) -> np.ndarray:
        """uint8 (H, W, C): the middle of an image."""
        return middle(self.at(index), self.shape)
