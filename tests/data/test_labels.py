"""Which kind each image is: from folders, files or TensorFlow Datasets."""

import json
import shutil

import numpy as np
import pytest

from lwgan.data.batches import Labelled, Layout, drawing, read_batches
from lwgan.data.cache import load_dataset
from lwgan.data.doctor import summary
from lwgan.data.holdout import split
from lwgan.data.labels import labels_of
from lwgan.data.source import Source, select
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from tests import drawn


@pytest.fixture
def folder(tmp_path):
    """Three boats, two cars, one of them deeper."""
    for number, name in enumerate(["boats/0", "boats/1", "boats/2", "cars/old/3", "cars/4"]):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.noise(number).save(path)
    return tmp_path / "images"


def load(path, **changes):
    config = drawn.settings(path=str(path), **changes)
    return load_dataset(open_source(config), config)


def named(dataset):
    return {
        name: dataset.label_names[k] for name, k in zip(dataset.names, dataset.labels, strict=True)
    }


BY_FOLDER = {
    "boats/0.png": "boats",
    "boats/1.png": "boats",
    "boats/2.png": "boats",
    "cars/4.png": "cars",
    "cars/old/3.png": "cars",
}


def test_without_labels_there_are_none(folder):
    dataset = load(folder)
    assert dataset.labels is None
    assert dataset.label_names == ()


def test_folders_are_labels(folder):
    dataset = load(folder, labels="folders")
    assert dataset.label_names == ("boats", "cars")
    assert named(dataset) == BY_FOLDER
    assert dataset.labels.dtype == np.int32


@pytest.mark.parametrize("names", [["a/b/boats/1.png", "a/b/cars/2.png"], ["boats/1", "cars/2"]])
def test_folders_that_all_share_tell_nothing(names):
    source = Source(names, np.zeros((len(names), 16), np.uint8), "", None, {}, None)
    assert labels_of(source, drawn.settings(labels="folders")) == ["boats", "cars"]


def test_an_image_in_no_folder_is_named(folder):
    drawn.noise(9).save(folder / "stray.png")
    with pytest.raises(UserError, match=r"data.labels = 'folders': stray.png lies in none; "):
        load(folder, labels="folders")


def test_one_label_alone_is_refused(folder):
    shutil.rmtree(folder / "cars")
    with pytest.raises(UserError, match="all images have the label 'boats'; use none"):
        load(folder, labels="folders")


@pytest.mark.parametrize("where", ["beside", "within"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", json.dumps(BY_FOLDER | {"another.png": "cars"})),
        (
            "labels.json",
            json.dumps({"labels": [[n, int(v == "cars")] for n, v in BY_FOLDER.items()]}),
        ),
        ("labels.csv", "name,label\n" + "".join(f"{n},{v}\r\n" for n, v in BY_FOLDER.items())),
        ("labels.csv", "\n".join(f'"{n}", {v}' for n, v in BY_FOLDER.items())),
        ("labels.csv", "\ufeff" + "".join(f"{n},{v}\n" for n, v in BY_FOLDER.items())),
    ],
)
def test_files_of_names_and_labels(folder, tmp_path, where, name, text):
    path = (folder if where == "within" else tmp_path) / name
    path.write_text(text)
    dataset = load(folder, labels=name if where == "within" else str(path))
    found = named(dataset)
    numbers = {"boats": "0", "cars": "1"}
    expected = (
        BY_FOLDER
        if "boats" in dataset.label_names
        else {name: numbers[label] for name, label in BY_FOLDER.items()}
    )
    assert found == expected


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "[1, 2]", "does not hold names and labels"),
        ("a.json", "{", "does not hold names and labels"),
        ("a.json", '{"boats/0.png": null}', "None is no label"),
        ("a.json", '{"boats/0.png": true}', "True is no label"),
        ("a.csv", "one\n", "a line has not two columns"),
        ("a.csv", "boats/0.png,boats\n", "4 of 5 images, such as boats/1.png, have no label"),
        ("missing.csv", None, "No such file"),
        (".csv", "boats/0.png,boats\n", "4 of 5 images"),
    ],
)
def test_files_that_say_something_else(folder, tmp_path, name, text, reason):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=reason):
        load(folder, labels=str(tmp_path / name))


def test_names_that_are_given_keep_their_order(folder):
    dataset = load(folder, labels="folders", label_names=("cars", "planes", "boats"))
    assert dataset.label_names == ("cars", "planes", "boats")
    assert named(dataset) == BY_FOLDER
    with pytest.raises(
        UserError, match=r"data\.labels = 'boats': is none of the labels cars, planes"
    ):
        load(folder, labels="folders", label_names=("cars", "planes"))


def test_labels_that_are_numbers_are_in_their_order(tmp_path):
    for number in (10, 9, 2):
        (tmp_path / str(number)).mkdir()
        drawn.noise(number).save(tmp_path / str(number) / "a.png")
    assert load(tmp_path, labels="folders").label_names == ("2", "9", "10")


def test_what_has_which_label_has_a_digest(folder):
    before = load(folder, labels="folders").labelling
    (folder / "boats" / "0.png").rename(folder / "boats" / "renamed.png")
    assert load(folder, labels="folders").labelling == before
    (folder / "boats" / "renamed.png").rename(folder / "cars" / "0.png")
    assert load(folder, labels="folders").labelling != before
    assert load(folder).labelling is None


def test_a_source_without_labels_of_its_own(folder):
    with pytest.raises(UserError, match="a folder has no labels of its own"):
        load(folder, labels="tfds")


def test_some_of_a_source_keep_their_labels(folder):
    source = open_source(drawn.settings(path=str(folder)))._replace(labels=lambda: list("abcde"))
    assert select(source, [4, 1], "").labels() == ["e", "b"]


def test_images_that_do_not_decode_leave_with_their_labels(folder):
    (folder / "boats" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    dataset = load(folder, labels="folders")
    left = dict(BY_FOLDER)
    del left["boats/1.png"]
    assert named(dataset) == left


def test_each_label_is_drawn_as_often_and_each_image_of_it(folder):
    labels = np.array([0, 0, 0, 2, 0, 2])
    rows = drawing(5, 6, labels)(np.arange(48))
    np.testing.assert_array_equal(labels[rows], np.tile([0, 2], 24))
    counts = np.bincount(rows, minlength=6)
    np.testing.assert_array_equal(counts, [6, 6, 6, 12, 6, 12])
    # Shuffled anew.
    assert len({tuple(rows[0:48:2][first : first + 4]) for first in range(0, 24, 4)}) > 1
    # Of a position alone.
    np.testing.assert_array_equal(drawing(5, 6, labels)(np.arange(20, 30)), rows[20:30])
    assert (drawing(6, 6, labels)(np.arange(48)) != rows).any()


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("balanced", [False, True])
def test_batches_carry_the_labels_of_their_images(folder, cache, balanced):
    dataset = load(folder, labels="folders", cache=cache)
    layout = Layout(batches=2, batch_size=4, grad_accum=2, devices=2)
    of_image = {dataset.at(i).tobytes(): label for i, label in enumerate(dataset.labels)}

    def stream(start):
        how = dict(seed=0, start_step=start, num_threads=2, balanced=balanced)
        return read_batches(dataset, np.arange(5), layout, **how)

    batches = stream(0)
    seen = [next(batches) for _ in range(6)]
    for batch in seen:
        assert isinstance(batch, Labelled)
        assert batch.labels.shape == (2, 2, 2, 1)
        for place in np.ndindex(batch.labels.shape):
            assert of_image[batch.images[place].tobytes()] == batch.labels[place]
        if balanced:
            assert batch.labels.sum() == 4
    later = stream(3)
    for batch in seen[3:]:
        again = next(later)
        np.testing.assert_array_equal(batch.images, again.images)
        np.testing.assert_array_equal(batch.labels, again.labels)


def test_no_label_is_held_out_whole(tmp_path):
    """Of four labels with one image each, and one with many."""
    for number in range(40):
        name = f"many/{number}" if number >= 4 else f"only{number}/x"
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        drawn.noise(number).save(path)
    dataset = load(tmp_path, labels="folders")
    training, held_out = split(dataset, 0.5, 0)
    assert set(dataset.labels[training]) == set(range(5))
    assert 5 < len(held_out) < 30
    assert sorted([*training, *held_out]) == list(range(40))
    without_labels = split(load(tmp_path), 0.5, 0)[1]
    assert set(held_out) < set(without_labels)


def test_the_doctor_counts_labels_and_names_small_ones(folder):
    text = summary(load(folder, labels="folders"))
    assert "2 labels: boats 3, cars 2" in text
    assert "of less than 50 images, which are soon learnt by heart: boats, cars" in text
    assert "labels" not in summary(load(folder))
