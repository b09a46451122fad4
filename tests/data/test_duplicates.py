"""Images that look alike, beside counting every pair."""

import itertools
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
    near = np.r_[flipped(np.repeat(centres, 4), 1, rng), flipped(np.repeat(centres, 4), 2, rng)]
    hashes = np.r_[near, centres, centres[:5]]
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


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_whichever_bits_differ(bits):
    flips = [sum(1 << bit for bit in some) for some in itertools.combinations(range(64), bits)]
    hashes = np.random.default_rng(0).integers(0, 2**64, len(flips), dtype=np.uint64)
    hashes = np.r_[hashes, hashes ^ np.array(flips, np.uint64)]
    digests = np.arange(2 * len(hashes), dtype=np.uint64).view(np.uint8).reshape(-1, 16)
    assert find_pairs(hashes, digests).near == len(flips)
    labels = group_alike(hashes)
    assert (labels[: len(flips)] == labels[len(flips) :]).all()
    assert len(np.unique(labels)) == len(flips)


@pytest.mark.parametrize(
    ("hashes", "pixels", "expected"),
    [
        ([0, 0b111], "ab", (0, 1, [(0, 1)])),
        ([0b111, 0], "ab", (0, 1, [(0, 1)])),
        ([0, 0b1111], "ab", (0, 0, [])),
        ([5, 5, 5], "aaa", (2, 0, [])),
        ([5, 5, 5], "aab", (1, 2, [(0, 2)])),
        ([4, 5, 4], "aba", (1, 2, [(0, 1)])),
    ],
)
def test_a_few_by_hand(hashes, pixels, expected):
    digests = np.array([[ord(pixel)] * 16 for pixel in pixels], np.uint8)
    assert find_pairs(np.array(hashes, np.uint64), digests) == expected


def test_few_or_none():
    nothing = np.zeros(0, np.uint64), np.zeros((0, 16), np.uint8)
    assert find_pairs(*nothing) == (0, 0, [])
    assert group_alike(nothing[0]).tolist() == []
    one = np.ones(1, np.uint64), np.zeros((1, 16), np.uint8)
    assert find_pairs(*one) == (0, 0, [])


@pytest.mark.parametrize("times", [1, 3])
def test_frames_that_all_look_alike_take_little_memory(times):
    """20,000 of them: 200 million pairs, of few hashes and of many."""
    rng = np.random.default_rng(0)
    hashes = flipped(np.full(20_000, 12345, np.uint64), times, rng)
    digests = rng.integers(0, 256, (20_000, 16), np.uint8)
    tracemalloc.start()
    found = find_pairs(hashes, digests)
    assert len(np.unique(group_alike(hashes))) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.near == 20_000 * 19_999 // 2) == (times == 1)
    assert peak < 150 * 2**20


def test_pairs_are_joined_before_they_fill_the_memory(monkeypatch):
    """Millions of pairs that look alike, in blocks of few."""
    monkeypatch.setattr("lwgan.data.duplicates._BLOCK", 1 << 16)
    hashes = flipped(np.full(20_000, 12345, np.uint64), 3, np.random.default_rng(0))
    # What it imports takes memory too.
    group_alike(hashes[:2])
    tracemalloc.start()
    group_alike(hashes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20
