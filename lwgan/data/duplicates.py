"""Images that look alike, found by their perceptual hashes in about linear time and memory.

Hashes that differ in at most three of 64 bits agree in at least two of five bands of bits, so it is
enough to compare those that do: multi-index hashing (Norouzi et al. 2012, arXiv:1307.2982).
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Bits that near duplicates differ in at most; with five bands, two of them agree.
_MOST_BITS = 3
_BANDS = [(0, 13), (13, 13), (26, 13), (39, 13), (52, 12)]
_SHOWN = 3
# Comparisons, or edges, held at once.
_BLOCK = 1 << 20


# The side of an image that is hashed, and eight frequencies over it.
TINY = 32
_WAVES = np.cos(np.pi * np.outer(np.arange(1, 9), np.arange(TINY) + 0.5) / TINY)


class Pairs(NamedTuple):
    """How many images are alike."""

    # Images that repeat an earlier one.
    exact: int
    # Pairs that look alike and are no exact duplicates.
    near: int
    # The first few such pairs, as indices.
    shown: list[tuple[int, int]]


def perceptual_hashes(tiny: np.ndarray) -> np.ndarray:
    """Of integers (N, 32, 32, C): 64 bits each that barely change with size, compression and
    brightness, uint64 (N,).

    Which of the 8×8 lowest frequencies lie above their median.
    """
    grey = sum(np.moveaxis(tiny, -1, 0)) / tiny.shape[-1]
    # One after the other: what is 0 but for rounding depends on how many are multiplied at once.
    lowest = np.stack([_WAVES @ one @ _WAVES.T for one in grey]).reshape(-1, 64)
    median = np.sort(lowest, 1)[:, 31:33].mean(1, keepdims=True)
    return np.packbits(lowest > median, axis=1).view(">u8").ravel().astype(np.uint64)


def find_pairs(hashes: np.ndarray, digests: np.ndarray) -> Pairs:
    """Exact and near duplicates among hashes uint64 (N,), and digests of pixels uint8 (N, 16)."""
    keys = np.ascontiguousarray(digests).view("V16").ravel()
    _, same_pixels = np.unique(keys, return_inverse=True)
    copies = np.bincount(same_pixels) if len(keys) else np.zeros(0, int)
    distinct, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    starts = np.cumsum(counts) - counts
    near = int((counts * (counts - 1) // 2).sum() - (copies * (copies - 1) // 2).sum())
    shown = []
    for hash_ in np.flatnonzero(counts > 1):
        if len(shown) == _SHOWN:
            break
        members = order[starts[hash_] : starts[hash_] + counts[hash_]]
        others = members[same_pixels[members] != same_pixels[members[0]]]
        if len(others):
            shown.append((int(members[0]), int(others[0])))
    for first, second in _near(distinct):
        near += int((counts[first] * counts[second]).sum())
        for a, b in zip(first[:_SHOWN], second[:_SHOWN], strict=True):
            pair = sorted((int(order[starts[a]]), int(order[starts[b]])))
            shown.append(tuple(pair))
    return Pairs(len(keys) - len(copies), near, sorted(shown)[:_SHOWN])


def group_alike(hashes: np.ndarray) -> np.ndarray:
    """Labels, int64 (N,), of images that look alike, directly or through others."""
    distinct, which = np.unique(hashes, return_inverse=True)
    labels, edges, held = np.arange(len(distinct)), [], 0
    for first, second in _near(distinct):
        edge = np.stack([labels[first], labels[second]])
        # In a large cluster nearly all pairs are joined already.
        edges.append(edge[:, edge[0] != edge[1]])
        held += edges[-1].shape[1]
        if held > _BLOCK:
            labels, edges, held = connected(np.concatenate(edges, 1), len(labels))[labels], [], 0
    if edges:
        labels = connected(np.concatenate(edges, 1), len(labels))[labels]
    return labels[which]


def connected(edges: np.ndarray, count: int) -> np.ndarray:
    """Labels, int64 (count,), of nodes that edges, int64 (2, E), connect: 0, 1, … without gaps."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), (count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _near(distinct: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs among distinct hashes that differ in few bits, each once, as two arrays of indices."""
    bands = [(distinct >> np.uint64(first)) & np.uint64((1 << bits) - 1) for first, bits in _BANDS]
    tables = list(itertools.combinations(range(len(bands)), 2))
    for table, (one, other) in enumerate(tables):
        key = bands[one] << np.uint64(13) | bands[other]
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(key) else []
        sizes = np.diff(np.r_[starts, len(key)]) if len(key) else np.zeros(0, int)
        for first, second in _within(order, starts, sizes):
            alike = np.bitwise_count(distinct[first] ^ distinct[second]) <= _MOST_BITS
            first, second = first[alike], second[alike]
            # An earlier table has had it.
            for a, b in tables[:table]:
                had = (bands[a][first] == bands[a][second]) & (bands[b][first] == bands[b][second])
                first, second = first[~had], second[~had]
            if len(first):
                yield first, second


def _within(
    order: np.ndarray, starts: np.ndarray, sizes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs within runs of equal keys, in blocks."""
    # The place after each, and how many of its run follow it.
    left = np.repeat(starts + sizes, sizes) - np.arange(len(order)) - 1 if len(order) else sizes
    rows = np.flatnonzero(left)
    ends = np.cumsum(left[rows])
    begin = 0
    while begin < len(rows):
        before = ends[begin] - left[rows[begin]]
        end = max(begin + 1, int(np.searchsorted(ends, before + _BLOCK, "right")))
        some, counts = rows[begin:end], left[rows[begin:end]]
        first = np.repeat(some, counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[first], order[first + 1 + offsets]
        begin = end
