"""Images that look alike, beside counting every pair."""

import tracemalloc

import numpy as np
import pytest

from lwgan.data.duplicates import find_pairs, group_alike


def flipped(hashes, times, rng):
    for _ in range(times):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, len(hashes)).astype(np.uint64))
    return hashes


def planted(seed):
    """Twenty clusters, some equal hashes with other pixels, exact duplicates, and random ones."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 20, dtype=np.uint64)
    hashes = np.r_[flipped(np.repeat(centres, 8), 2, rng), centres, centres[:5]]
    hashes = np.r_[hashes, rng.integers(0, 2**64, 60, dtype=np.uint64)]
    digests = rng.integers(0, 256, (len(hashes), 16), np.uint8)
    for first, second in ((0, 8), (160, 180), (30, 31)):
        hashes[second], digests[second] = hashes[first], digests[first]
    order = rng.permutation(len(hashes))
    return hashes[order], digests[order]


@pytest.mark.parametrize("seed", range(5))
def test_pairs_as_by_comparing_all(seed):
    hashes, digests = planted(seed)
    rows = [row.tobytes() for row in digests]
    expected = {
        (a, b)
        for b in range(len(rows))
        for a in range(b)
        if int(hashes[a] ^ hashes[b]).bit_count() <= 3 and rows[a] != rows[b]
    }
    found = find_pairs(hashes, digests)
    assert found.near == len(expected) > 50
    assert found.exact == 3
    assert len(set(found.shown)) == 3 and set(found.shown) <= expected
    assert find_pairs(hashes, digests) == found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [1 << 22, 16])
def test_groups_as_by_following_all_pairs(seed, block, monkeypatch):
    monkeypatch.setattr("lwgan.data.duplicates._BLOCK", block)
    hashes, _ = planted(seed)
    labels = list(range(len(hashes)))
    for b in range(len(hashes)):
        for a in range(b):
            if int(hashes[a] ^ hashes[b]).bit_count() <= 3 and labels[a] != labels[b]:
                old, new = labels[a], labels[b]
                labels = [new if label == old else label for label in labels]
    pairs = set(zip(labels, group_alike(hashes).tolist(), strict=True))
    assert len(pairs) == len(set(labels)) == len({found for _, found in pairs})


def test_few_or_none():
    nothing = np.zeros(0, np.uint64), np.zeros((0, 16), np.uint8)
    assert find_pairs(*nothing) == (0, 0, [])
    assert group_alike(nothing[0]).tolist() == []
    one = np.ones(1, np.uint64), np.zeros((1, 16), np.uint8)
    assert find_pairs(*one) == (0, 0, [])


def test_frames_that_all_look_alike_take_little_memory():
    """20,000 of them: 200 million pairs."""
    rng = np.random.default_rng(0)
    hashes = flipped(np.full(20_000, 12345, np.uint64), 1, rng)
    digests = rng.integers(0, 256, (20_000, 16), np.uint8)
    tracemalloc.start()
    found = find_pairs(hashes, digests)
    assert len(np.unique(group_alike(hashes))) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.near == 20_000 * 19_999 // 2
    assert peak < 300 * 2**20
