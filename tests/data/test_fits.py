"""Images of other shapes than the network's: cropped, padded or stretched, and back."""

import numpy as np
import pytest
from PIL import Image

from lwgan.data import decode
from lwgan.data.cache import load_dataset
from lwgan.data.doctor import cut_away, others, summary
from lwgan.data.sources import open_source
from lwgan.settings.shapes import Shape, shape_of
from tests import drawn


def load(path, **changes):
    config = drawn.settings(path=str(path), **changes)
    return load_dataset(open_source(config), config)


def ramp(height, width):
    """Red grows to the right, green downwards: a pixel says where in the image it lies."""
    down, right = np.indices((height, width))
    columns = np.round(255 * (right + 0.5) / width), np.round(255 * (down + 0.5) / height)
    return np.stack([*columns, np.zeros((height, width))], -1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(ramp(400, 200)).save(tmp_path / "images" / "tall.png")
    Image.fromarray(ramp(200, 400)).save(tmp_path / "images" / "wide.png")
    return tmp_path / "images"


def places(pixels):
    """Where in their image (0 to 1) the corners of (H, W, C) lie: left, top, right, bottom."""
    first, last = pixels[0, 0] / 255, pixels[-1, -1] / 255
    return [first[0], first[1], last[0], last[1]]


def test_the_middle_of_the_shape_is_kept(folder):
    dataset = load(folder, image_size="64x96")
    tall, wide = (dataset.at(index) for index in range(2))
    assert tall.shape == wide.shape == (64, 96, 3)
    # 200 × 133 of 200 × 400, and 300 × 200 of 400 × 200.
    np.testing.assert_allclose(places(tall), [0, 1 / 3, 1, 2 / 3], atol=0.02)
    np.testing.assert_allclose(places(wide), [1 / 8, 0, 7 / 8, 1], atol=0.02)


def test_padding_shows_all_amid_white_and_is_cut_off_again(folder):
    dataset = load(folder, image_size="64x96", fit="pad")
    tall = dataset.at(0)
    assert tall.shape == (64, 96, 3)
    assert (tall[:, :32] == 255).all()
    assert (tall[:, 64:] == 255).all()
    np.testing.assert_allclose(places(tall[:, 32:64]), [0, 0, 1, 1], atol=0.02)
    back = decode.unfitted(tall, "pad", 0.5)
    np.testing.assert_array_equal(back, tall[:, 32:64])


def test_padding_with_alpha_is_transparent(tmp_path):
    Image.fromarray(ramp(50, 100)).save(tmp_path / "a.png")
    padded = load(tmp_path, fit="pad", mode="rgba").at(0)
    assert (padded[:8] == 0).all()
    assert (padded[8:24, :, 3] == 255).all()


def test_stretching_shows_all_and_is_undone(folder):
    dataset = load(folder, image_size="64x96", fit="stretch")
    for index, aspect in enumerate([0.5, 2.0]):
        stretched = dataset.at(index)
        assert stretched.shape == (64, 96, 3)
        np.testing.assert_allclose(places(stretched), [0, 0, 1, 1], atol=0.02)
        back = decode.unfitted(stretched, "stretch", aspect)
        assert back.shape == ((192, 96, 3) if index == 0 else (64, 128, 3))
        np.testing.assert_allclose(places(back), [0, 0, 1, 1], atol=0.02)


def test_cropped_images_stay_as_they_are():
    image = ramp(64, 96)
    assert decode.unfitted(image, "crop", 3.0) is image


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_where_shapes_differ_nothing_is_undone(folder, fit):
    assert load(folder, fit=fit).aspect is None
    image = ramp(64, 96)
    assert decode.unfitted(image, fit, None) is image
    (folder / "wide.png").unlink()
    assert load(folder, fit=fit).aspect == 0.5


def test_a_turned_photograph_is_decoded_large_enough(tmp_path):
    """A wide shape, of a JPEG that lies on its side: as sharp as the same one upright."""
    stripes = np.tile(np.arange(4096)[None] // 16 % 2 * 255, (1024, 1)).astype(np.uint8)
    image = Image.fromarray(stripes)
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "a.jpg")
    turned, exif = image.rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images" / "b.jpg", exif=exif)
    dataset = load(tmp_path / "images", image_size="64x512", mode="grey")
    upright, was_turned = (dataset.at(index).astype(int) for index in range(2))
    assert upright.shape == was_turned.shape == (64, 512, 1)
    assert was_turned.std() > 0.97 * upright.std()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_random_crops_have_the_shape(folder, fit):
    dataset = load(folder, image_size="64x96", crop_prob=1.0, fit=fit)
    taken = dataset.take(np.array([0, 1] * 20), 0, np.arange(40))
    assert taken.shape == (40, 64, 96, 3)
    # The tall one is too long for a random crop of a wide shape.
    assert len(np.unique(taken[1::2].reshape(20, -1), axis=0)) == 20
    assert dataset.centre(0).shape == (64, 96, 3)


def test_random_crops_of_a_shape_keep_its_ratio():
    boxes = [decode.draw_crop(400, 600, 1.0, (0, 1, key), 2.0) for key in range(300)]
    sizes = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes])
    # What does not fit is the middle.
    drawn_ones = sizes[(sizes != (600, 300)).any(1)]
    assert len(drawn_ones) > 20
    ratios = drawn_ones[:, 0] / drawn_ones[:, 1] / 2
    assert (ratios > 0.97).all()
    assert (ratios < 1.03).all()


def test_the_emoji_are_drawn_in_the_shape():
    config = drawn.settings(source="openmoji", image_size="32x64")
    dataset = load_dataset(open_source(config), config)
    face = dataset.at(0)
    assert face.shape == (32, 64, 3)
    assert (face[:, :16] == 255).all()
    assert (face[:, 48:] == 255).all()
    assert (face[:, 16:48] != 255).any()


def test_the_doctor_says_which_shape_cuts_away_least(folder, tmp_path):
    Image.fromarray(ramp(400, 200)).save(folder / "another.png")
    text = summary(load(folder, image_size=64))
    assert "the middle square cuts away 50% of an image on average, data.image_size=" in text
    ratios = np.array([0.5, 0.5, 2.0])
    costs = {other: cut_away(ratios, other) for other in others(shape_of(64))}
    assert costs[Shape(128, 64)] == min(costs.values()) == pytest.approx(0.25)
    assert "data.image_size=128x64 25%" in text
    assert "data.image_size" not in summary(load(folder, image_size="128x64"))


def test_the_doctor_says_what_padding_and_stretching_cost(folder):
    padded = summary(load(folder, image_size=64, fit="pad"))
    assert "50% of a padded image is plain on average" in padded
    stretched = summary(load(folder, image_size="64x96", fit="stretch"))
    assert "stretched up to 3.00 times as much one way as the other" in stretched
