"""What is held out stays held out."""

import numpy as np
import pytest

from lwgan.data.cache import load_dataset
from lwgan.data.holdout import split, split_by_content
from lwgan.data.sources import open_source
from tests import drawn


def contents(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


def held(digests, groups=None, holdout=0.3):
    """The digests that are held out."""
    groups = np.arange(len(digests)) if groups is None else np.asarray(groups)
    training, held_out = split_by_content(digests, groups, holdout)
    assert sorted([*training, *held_out]) == list(range(len(digests)))
    return {digests[index].tobytes() for index in held_out}


def test_neither_more_images_nor_another_order_move_one_across():
    digests, more = contents(300), contents(900, 1)
    first = held(digests)
    assert 60 <= len(first) <= 120
    assert held(digests[::-1]) == first
    both = held(np.random.default_rng(2).permutation(np.concatenate([more, digests])))
    assert both & {digest.tobytes() for digest in digests} == first
    assert first < held(digests, holdout=0.6)


@pytest.mark.parametrize("holdout", [0.02, 0.1, 0.5])
def test_the_share_is_about_what_is_asked_for(holdout):
    count = 20_000
    digests = contents(count)
    spread = np.sqrt(count * holdout * (1 - holdout))
    assert abs(len(held(digests, holdout=holdout)) - holdout * count) < 5 * spread
    groups = np.arange(count) // 4
    assert abs(len(held(digests, groups, holdout)) - holdout * count) < 5 * 2 * spread


def test_images_that_look_alike_lie_on_one_side():
    digests = contents(1000)
    groups = np.random.default_rng(3).integers(0, 200, 1000)
    _, held_out = split_by_content(digests, groups, 0.3)
    assert 20 < len(np.unique(groups[held_out])) < 110
    assert np.isin(groups, groups[held_out]).sum() == len(held_out)


def test_neither_more_groups_nor_another_order_move_a_group():
    digests, more = contents(600), contents(900, 1)
    groups = np.random.default_rng(3).integers(0, 200, 600)
    first = held(digests, groups)
    order = np.random.default_rng(4).permutation(600)
    assert held(digests[order], -7 * groups[order]) == first
    everything = np.r_[groups, 200 + np.arange(900) // 3]
    both = held(np.r_[digests, more], everything)
    assert both & {digest.tobytes() for digest in digests} == first


@pytest.mark.parametrize("seed", range(20))
def test_groups_that_share_a_content_are_one(seed):
    """Three pairs in a row, tied by equal files, among pairs of others."""
    digests, groups = contents(40, seed), np.arange(40) // 2
    digests[2], digests[4] = digests[0], digests[3]
    _, held_out = split_by_content(digests, groups, 0.4)
    assert np.isin(range(6), held_out).sum() in (0, 6)
    assert held(digests[::-1], groups[::-1], 0.4) == held(digests, groups, 0.4)


def test_a_group_of_more_than_half_is_trained_with():
    for seed in range(20):
        digests = contents(21, seed)
        groups = np.r_[np.zeros(11, int), np.arange(1, 11)]
        assert digests[0].tobytes() not in held(digests, groups, 0.99)
    halves = np.arange(20) // 10
    assert any(len(held(contents(20, seed), halves, 0.5)) == 10 for seed in range(20))


def test_something_is_always_trained_with():
    digests = contents(20)
    assert not held(digests, np.zeros(20, int), 0.99)
    assert not held(digests[:1], holdout=0.99)
    assert len(held(digests, holdout=0.9999)) < 20


def test_training_is_in_the_order_of_contents():
    digests = contents(100)
    for holdout in (0.0, 0.3):
        for part in split_by_content(digests, np.arange(100), holdout):
            rows = [digests[index].tobytes() for index in part]
            assert rows == sorted(rows)


def test_near_duplicates_of_a_folder_are_not_divided(tmp_path):
    """Each image three times: as it is, compressed, and with another pixel."""
    smooth = np.random.default_rng(0)
    for number in range(20):
        image = drawn.Image.fromarray(smooth.integers(0, 256, (4, 4, 3), np.uint8))
        image = image.resize((64, 64), drawn.Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{number}a.png")
        image.save(tmp_path / f"{number}b.jpg", quality=97)
        image.putpixel((5, 5), (0, 0, 0))
        image.save(tmp_path / f"{number}c.png")
    config = drawn.settings(path=str(tmp_path))
    dataset = load_dataset(open_source(config), config)
    training, held_out = split(dataset, 0.4, 0)
    assert len(held_out) > 8 and len(training) > 8
    hashes = dataset.infos["hash"]
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= 3
    assert near.sum() > 60 + 2 * 10
    assert not near[np.ix_(training, held_out)].any()
    assert split(dataset, 0.4, 1)[1].tolist() == held_out.tolist()
