"""Labels of what is drawn."""

import numpy as np
import pytest

from lwgan.errors import UserError
from lwgan.models.build import build_generator
from lwgan.sampling.labels import chosen_labels, file_names, label_suffix, place_of
from lwgan.sampling.paths import closed_loop, mixed_loop
from lwgan.sampling.sampler import Draws, Sampler
from lwgan.training.state import build_gan
from tests import tiny

NAMES = ("boats", "fast cars", "2")


@pytest.fixture(scope="module")
def sampler():
    config = tiny.config(data__label_names=NAMES)
    state = tiny.random_state(build_gan(config), 0)
    weights = state.g_params, state.g_stats
    return Sampler(build_generator(config), *weights, label_names=NAMES)


@pytest.mark.parametrize(
    ("label", "place"), [("boats", 0), ("fast cars", 1), (1, 1), ("1", 1), ("2", 2), (2, 2)]
)
def test_a_label_by_name_or_number(label, place):
    assert place_of(label, NAMES) == place


@pytest.mark.parametrize("label", ["Boats", "3", -1, ""])
def test_another_label_is_refused(label):
    with pytest.raises(
        UserError, match=r"is none of the run's; choose from boats, fast cars, 2, or 0"
    ):
        place_of(label, NAMES)


def test_a_run_without_labels():
    with pytest.raises(UserError, match="label = 'boats': the run has no labels; leave it out"):
        place_of("boats", ())
    with pytest.raises(UserError, match="the run has no labels"):
        chosen_labels("all", ())


@pytest.mark.parametrize(
    ("text", "places"), [("all", [0, 1, 2]), ("2,boats", [2, 0]), ("fast cars", [1]), ("a,b", [0])]
)
def test_several_labels(text, places):
    names = ("a,b", "c", "d") if text == "a,b" else NAMES
    assert chosen_labels(text, names) == places


def test_no_label_is_asked_for_twice():
    with pytest.raises(UserError, match="label = 'boats,0': names a label twice; name it once"):
        chosen_labels("boats,0", NAMES)


def test_files_of_two_labels_have_different_names():
    assert file_names([0, 1], NAMES) == ["boats", "fast_cars"]
    assert file_names([2, 1], ("A", "A & B", "A + B")) == ["2-A_B", "1-A_B"]


def test_directories_are_named_by_what_was_asked_for():
    assert label_suffix(None) == ""
    assert label_suffix("../fast cars") == "-.._fast_cars"


def test_an_image_of_a_label_is_that_of_its_row(sampler):
    of_name = sampler.sample(seed=3, num_images=5, label="fast cars")
    np.testing.assert_array_equal(of_name, sampler.sample(seed=3, num_images=5, label=1))
    rows = np.tile(np.eye(3, dtype=np.float32)[1], (5, 1))
    raw = sampler(sampler.latents(3, 5), 3, labels=rows)
    np.testing.assert_array_equal(np.round(np.clip(raw, 0, 1) * 255), of_name)
    assert (of_name != sampler.sample(seed=3, num_images=5, label=0)).any()


def test_without_a_label_one_is_drawn_for_each_image(sampler):
    places = sampler.drawn_labels(Draws.of_seed(3, 300)).argmax(1)
    counts = np.bincount(places, minlength=3)
    assert (counts > 70).all()
    np.testing.assert_array_equal(sampler.drawn_labels(Draws.of_seed(3, 7)).argmax(1), places[:7])
    assert (sampler.drawn_labels(Draws.of_seed(4, 300)).argmax(1) != places).any()
    images = sampler.sample(seed=3, num_images=5)
    for number, place in enumerate(places[:5]):
        own = sampler.sample(seed=3, num_images=5, label=int(place))
        np.testing.assert_array_equal(images[number], own[number])
    few = np.stack(list(sampler.samples(3, 5, batch_size=2)))
    np.testing.assert_allclose(few.astype(int), images, atol=1)


def test_labels_go_straight_from_one_to_the_next():
    keyframes = np.eye(3, dtype=np.float32)
    path, stops = closed_loop(np.eye(3), 31)
    mixed = mixed_loop(keyframes, stops)
    assert mixed.shape == (31, 3)
    assert len(path) == 31
    np.testing.assert_array_equal(mixed[stops], keyframes[[0, 1, 2, 0]])
    np.testing.assert_allclose(mixed.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed[(stops[0] + stops[1]) // 2], [0.5, 0.5, 0], atol=0.06)
