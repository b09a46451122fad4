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
    digests[500:510] = digests[0]
    groups = np.random.default_rng(3).integers(0, 200, 1000)
    found = held(digests, groups)
    for group in range(200):
        sides = {digests[index].tobytes() in found for index in np.flatnonzero(groups == group)}
        assert len(sides) <= 1 or digests[0].tobytes() in {
            digests[index].tobytes() for index in np.flatnonzero(groups == group)
        }


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
