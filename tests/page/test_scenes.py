"""What the page may ask for, and what not."""

import json
import random

import numpy as np
import pytest

from lwgan.errors import UserError
from lwgan.page.scenes import read_scene

GOOD = {"step": 3, "images": [{"seed": 5}]}


def read(**changes):
    return read_scene(GOOD | changes, latent_dim=2, num_labels=3)


def test_a_scene():
    scene = read(
        images=[{"seed": 5}, {"seed": 2**32 - 1, "latent": [1, -0.5], "moves": {"7": 1.5}}],
        weights="raw",
        truncation=0.7,
        noise="fresh",
        noise_seed=9,
        label=2,
    )
    assert (scene.step, scene.weights, scene.truncation, scene.label) == (3, "raw", 0.7, 2)
    assert (scene.noise, scene.noise_seed, scene.frames, scene.frame) == ("fresh", 9, 0, None)
    first, second = scene.images
    assert (first.seed, first.latent, first.moves) == (5, None, {})
    assert (second.seed, second.moves) == (2**32 - 1, {7: 1.5})
    np.testing.assert_array_equal(second.latent, np.array([1, -0.5], np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, "step = '-1': must be from 0"),
        ({"step": "3"}, "step = '3'"),
        ({"step": True}, "step = 'True'"),
        ({"step": 1.5}, "step = 1.5: must be a whole number"),
        ({"step": None}, "step = 'None'"),
        ({"step": 10**400}, "step = '1000"),
        ({"images": []}, "images = 0: too few"),
        ({"images": [{"seed": 1}] * 65}, "must be a list of at most 64"),
        ({"images": {"seed": 1}}, "must be a list of at most 64"),
        ({"images": [7]}, "each must be an object"),
        ({"images": [{"seed": 2**32}]}, "seed = '4294967296': must be from 0 to 4294967295"),
        ({"images": [{"seed": 1, "latent": [1]}]}, "latent = 1: must be 2 numbers"),
        ({"images": [{"seed": 1, "latent": [1, 1e30]}]}, r"latent = '1e\+30': must be from"),
        ({"images": [{"seed": 1, "latent": [1, "x"]}]}, "latent = 'x': must be from"),
        ({"images": [{"seed": 1, "moves": {"-1": 1}}]}, "moves = .* must be numbers by places"),
        ({"images": [{"seed": 1, "moves": {"0000001": 1}}]}, "must be numbers by places"),
        ({"images": [{"seed": 1, "moves": [1]}]}, "moves = .* must be numbers by places"),
        ({"images": [{"seed": 1, "moves": {"1": float("nan")}}]}, "1 = 'nan'"),
        ({"truncation": float("inf")}, "truncation = 'inf': must be from"),
        ({"truncation": -1}, "truncation = '-1': must be from"),
        ({"weights": "both"}, "weights = 'both': must be one of ema, raw"),
        ({"weights": ["ema"]}, "weights = .* must be one of"),
        ({"noise": "loud"}, "noise = 'loud': must be one of fixed, fresh, zero"),
        ({"label": 3}, "label = '3': must be from 0 to 2"),
        ({"frames": 10}, "images = 1: too few"),
        ({"frames": 601, "images": [{"seed": 1}] * 2}, "frames = '601': must be from 0 to 600"),
        ({"frames": 2, "images": [{"seed": 1}] * 2}, "images = 2: too few, or too many for 2"),
        ({"frames": 9, "frame": 9, "images": [{"seed": 1}] * 2}, "frame = '9': must be from"),
        ({"frame": 0}, "frame = '0': must be from 0 to -1"),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        read(**changes)


def test_nothing_that_is_asked_for_crashes():
    rng = random.Random(0)
    names = [*GOOD, "weights", "truncation", "noise", "noise_seed", "label", "frames", "frame"]

    def anything(depth):
        deeper = [lambda: [anything(depth - 1) for _ in range(rng.randrange(4))]]
        deeper += [lambda: {rng.choice(["seed", "latent", "moves", "0"]): anything(depth - 1)}]
        plain = [None, True, 0, -1, 3, 2**70, 10**400, 1e300, 0.5, "", "ema", "x" * 200]
        return rng.choice(deeper)() if depth and rng.random() < 0.4 else rng.choice(plain)

    for _ in range(3000):
        asked = GOOD | {name: anything(3) for name in rng.sample(names, rng.randrange(1, 5))}
        try:
            read_scene(json.loads(json.dumps(asked)), latent_dim=2, num_labels=3)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 300
