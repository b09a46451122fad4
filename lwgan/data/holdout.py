"""Which images are held out of training: decided by their content alone."""

import functools
import hashlib

import numpy as np

from lwgan.data.dataset import Dataset
from lwgan.data.duplicates import connected, group_alike
from lwgan.data.source import BY_CONTENT, content_order

# Of NumPy's generator, beside ``dataset.ORDER`` and ``dataset.CROP``.
_HOLDOUT = 2


@functools.lru_cache(maxsize=2)
def split(dataset: Dataset, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of images that are trained with, and of those held out: int64 (N,) and (M,).

    ``holdout`` is about the share of those that are held out, below 1. The seed counts only for
    runs that began when it decided.
    """
    if not dataset.fingerprint.endswith(BY_CONTENT):
        return split_by_seed(len(dataset.names), holdout, seed)
    groups = group_alike(dataset.infos["hash"]) if holdout else np.arange(len(dataset.names))
    training, held_out = split_by_content(dataset.contents, groups, holdout)
    if dataset.labels is None:
        return training, held_out
    # A label of which nothing would be left is trained with.
    left = np.isin(dataset.labels[held_out], dataset.labels[training])
    together = np.concatenate([training, held_out[~left]])
    return together[content_order(dataset.contents[together])], held_out[left]


def split_by_seed(num_images: int, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The split of runs whose fingerprint is of names and sizes; each part is in order."""
    shuffled = np.random.default_rng((seed, _HOLDOUT)).permutation(num_images)
    count = min(round(holdout * num_images), num_images - 1)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


def split_by_content(
    contents: np.ndarray, groups: np.ndarray, holdout: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training images and of held-out ones, each part in the order of its digests.

    A group is held out if the number in [0, 1) that a hash makes of its smallest digest is below
    ``holdout``. So other images move none across, but for those that look like its own group. A
    group of more than half of all images is trained with, for too little would be left; and if all
    were held out, none is.

    Args:
      contents: digests of files, uint8 (N, 16).
      groups: labels, int64 (N,); images that look alike have the same.
      holdout: the share of groups that are held out, below 1.
    """
    order = content_order(contents)
    if not holdout:
        return order, order[:0]
    contents = contents[order]
    groups = _join_equal(contents, groups[order])
    # Of each group, the first in the order of digests.
    _, leaders, sizes = np.unique(groups, return_index=True, return_counts=True)
    shares = np.array([_share(leader.tobytes()) for leader in contents[leaders]])
    held_out = ((shares < holdout) & (2 * sizes <= len(order)))[groups]
    if held_out.all():
        return order, order[:0]
    return order[~held_out], order[held_out]


def _join_equal(ordered: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Labels 0, 1, … of groups, int64 (N,), of which those that share a digest are made one.

    ``ordered`` are the digests, uint8 (N, 16), in order.
    """
    names, groups = np.unique(groups, return_inverse=True)
    equal = (ordered[1:] == ordered[:-1]).all(1)
    return connected(np.stack([groups[:-1][equal], groups[1:][equal]]), len(names))[groups]


def _share(content: bytes) -> float:
    digest = hashlib.blake2b(content, digest_size=8, person=b"lwgan holdout").digest()
    return int.from_bytes(digest, "big") / 2**64
