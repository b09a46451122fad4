"""Pictures of any kind at training size, and where they are kept."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from lwgan import doctor, pictures, sources
from lwgan.errors import UserError
from tests import drawn

WHITE, RED = [255, 255, 255], [255, 0, 0]


def load(**settings):
    config = drawn.settings(**settings)
    return pictures.load(sources.open_source(config), config)


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


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_pictures_that_do_not_decode_are_left_out(folder, monkeypatch, tmp_path, cache, crop_prob):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = load(path=str(folder), crop_prob=crop_prob)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:500])
    (folder / "3.png").write_bytes(b"")
    (folder / "lost.png").symlink_to("nowhere.png")
    kept = load(path=str(folder), cache=cache, crop_prob=crop_prob)
    assert kept.names == ["0.png", "2.png", "4.png"] and len(kept.infos) == 3
    assert kept.errors.keys() == {"1.png", "3.png", "lost.png"}
    for number, before in enumerate((0, 2, 4)):
        np.testing.assert_array_equal(kept.at(number), whole.at(before))
    assert "3 of 6 files left out" in doctor.summary(kept)


def test_pictures_read_at_each_use_are_replaced_by_the_next(folder, caplog):
    whole = load(path=str(folder))
    for name in ("3.png", "4.png"):
        (folder / name).write_bytes(b"no picture")
    kept = load(path=str(folder), cache="none")
    for _ in range(2):
        np.testing.assert_array_equal(kept.at(3), whole.at(0))
    assert kept.errors.keys() == {"3.png", "4.png"}


def test_a_set_that_is_mostly_broken_is_refused(folder):
    for name in ("1.png", "3.png", "4.png"):
        (folder / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3 of 5 pictures do not decode; the first is 1\.png"):
        load(path=str(folder))
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="no picture decodes"):
        load(path=str(folder), cache="none").at(0)


def test_a_decompression_bomb_is_not_decoded(folder, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 40 * 33)
    drawn.noise(0, (40, 34)).save(folder / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", None, raising=False)
    source = sources.open_source(drawn.settings(path=str(folder)))
    with pytest.raises(ValueError, match="40×34 px are more than"):
        pictures.read(source, source.names.index("bomb.png"), drawn.settings())


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_prepare_rgb(mode):
    expected = {
        "rgb": [[1, 2, 3], RED, [0, 255, 0], [0, 0, 255]],
        "rgba": [[1, 2, 3, 255], [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]],
        "grey": [[2], [76], [150], [29]],
    }
    image = pixels([[1, 2, 3], RED, [0, 255, 0], [0, 0, 255]])
    np.testing.assert_array_equal(pictures.prepare(image, 2, mode).reshape(4, -1), expected[mode])


@pytest.mark.parametrize("file", [None, "png", "webp"])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("rgb", [WHITE, [127, 127, 127], [200, 100, 50], [255, 251, 251]]),
        ("grey", [[255], [127], [124], [252]]),
        ("rgba", [[0, 0, 0, 0], [0, 0, 0, 128], [200, 100, 50, 255], [255, 0, 0, 4]]),
    ],
)
def test_prepare_lays_alpha_over_white(tmp_path, file, mode, expected):
    image = pixels([[9, 9, 9, 0], [0, 0, 0, 128], [200, 100, 50, 255], [255, 0, 0, 4]], "RGBA")
    if file:
        image = reopened(tmp_path, image, file, lossless=True, exact=True)
    np.testing.assert_array_equal(pictures.prepare(image, 2, mode).reshape(4, -1), expected)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_prepare_palette_with_transparency(tmp_path, suffix):
    image = pixels([0, 1, 1, 0], "P")
    image.putpalette([0, 0, 255, 255, 0, 0])
    image = reopened(tmp_path, image, suffix, transparency=0)
    assert image.mode == "P"
    rgb = pictures.prepare(image, 2, "rgb").reshape(4, -1)
    np.testing.assert_array_equal(rgb, [WHITE, RED, RED, WHITE])
    np.testing.assert_array_equal(
        pictures.prepare(image, 2, "rgba")[..., 3].ravel(), [0, 255, 255, 0]
    )


@pytest.mark.parametrize(("mode", "channels"), [("rgb", 3), ("grey", 1)])
def test_prepare_grey_of_16_bits(tmp_path, mode, channels):
    image = Image.fromarray(np.array([[0, 65535], [7 * 256 + 255, 128 * 256]], np.uint16))
    array = pictures.prepare(reopened(tmp_path, image, "png"), 2, mode)
    np.testing.assert_array_equal(array.reshape(4, -1), [[v] * channels for v in (0, 255, 7, 128)])


def test_prepare_turns_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's right is up
    image = reopened(tmp_path, pixels([1, 2, 3, 4], "L"), "png", exif=exif)
    np.testing.assert_array_equal(pictures.prepare(image, 2, "grey")[..., 0], [[3, 1], [4, 2]])


@pytest.mark.parametrize("suffix", [None, "jpg"])
def test_prepare_cmyk(tmp_path, suffix):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = reopened(tmp_path, image, suffix, quality=95) if suffix else image
    assert image.mode == "CMYK"
    np.testing.assert_allclose(pictures.prepare(image, 16, "rgb")[8, 8].astype(int), RED, atol=3)


def test_prepare_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    image = reopened(tmp_path, frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pictures.prepare(image, 2, "grey").ravel(), [10] * 4)


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
    image = drawn.noise(0, size)
    array = pictures.prepare(image, 20, mode)
    assert array.shape == (*shape, {"rgb": 3, "rgba": 4, "grey": 1}[mode])
    assert array.dtype == np.uint8
    expected = image.convert(pictures.PIL_MODES[mode]).resize(
        shape[::-1], Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(array.squeeze(), np.asarray(expected))


def test_prepare_keeps_the_colour_of_transparent_pixels_out():
    image = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 1, 4))
    assert pictures.prepare(image, 2, "rgba")[:, 0, :2].tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize(
    ("shape", "size", "top", "left"),
    [((5, 8), 5, 0, 2), ((4, 4), 4, 0, 0), ((7, 4), 4, 2, 0), ((4, 9), 4, 0, 2)],
)
def test_centre_crop(shape, size, top, left):
    left_, top_, right, bottom = pictures.centre_box(*shape)
    assert (top_, left_, bottom - top_, right - left_) == (top, left, size, size)


def test_random_crop_is_decided_by_its_key():
    array = np.asarray(drawn.noise(0, (50, 40)))
    first, again, other = (pictures.crop(array, 32, 1.0, (0, 1, key)) for key in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_random_crop_has_half_to_all_of_the_picture():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    crops = [pictures.crop(ramp, 32, 1.0, (0, 1, key)) for key in range(200)]
    widths = np.array([np.ptp(crop) + 1 for crop in crops])
    assert widths.min() >= 64 * 0.5**0.5 * 0.98 - 2
    assert widths.min() < 50 and widths.max() > 61
    assert len({int(crop.min()) for crop in crops}) > 5


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (0.25, 100), (1.0, 400)])
def test_random_crop_happens_with_its_probability(prob, expected):
    boxes = [pictures.draw_crop(300, 400, prob, (0, 1, key)) for key in range(400)]
    cropped = sum(box != pictures.centre_box(300, 400) for box in boxes)
    assert abs(cropped - expected) <= {0: 0, 0.25: 30, 1: 2}[prob]  # a crop may be all of it


@pytest.mark.parametrize("shape", [(32, 320, 3), (320, 32, 1), (32, 47, 4), (33, 32, 1)])
def test_random_crop_has_its_size_whatever_the_picture(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for key in range(10):
        assert pictures.crop(array, 32, 1.0, (0, 1, key)).shape == (32, 32, shape[2])


def test_a_picture_is_cropped_anew_at_each_position(folder):
    kept = load(path=str(folder), crop_prob=1.0)
    crops = kept.take(np.array([3, 3]), 0, np.array([3, 8]))
    assert (crops[0] != crops[1]).any()
    np.testing.assert_array_equal(kept.take(np.array([3]), 0, np.array([8])), crops[1:])
    assert (kept.take(np.array([3]), 1, np.array([8])) != crops[1:]).any()


@pytest.mark.parametrize(
    ("cache", "crop_prob", "memory", "disk", "where"),
    [
        ("auto", 0.0, 31_000, 0, "in memory"),  # the five pictures need 15,360 bytes
        ("auto", 0.0, 30_000, 31_000, "in /"),
        ("auto", 0.0, 30_000, 30_000, "nowhere"),
        ("auto", 0.5, 31_000, 0, "nowhere"),
        ("memory", 0.0, 0, 0, "in memory"),
        ("disk", 0.0, 10**9, 0, "in /"),
        ("none", 0.0, 10**9, 0, "nowhere"),
    ],
)
def test_cache_keeps_what_fits(
    folder, tmp_path, monkeypatch, cache, crop_prob, memory, disk, where
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "_free_memory", lambda: memory)
    monkeypatch.setattr(pictures, "_free_disk", lambda: disk)
    kept = load(path=str(folder), cache=cache, crop_prob=crop_prob)
    assert kept.kept.startswith(where)
    shutil.rmtree(folder)
    if where == "nowhere":
        with pytest.raises(UserError):
            kept.at(0)
    else:
        assert kept.at(0).shape == ((46, 56, 3) if crop_prob else (32, 32, 3))


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_a_disk_cache_holds_the_same_and_is_used_again(
    folder, tmp_path, monkeypatch, mode, crop_prob
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    choice = dict(path=str(folder), mode=mode, crop_prob=crop_prob)
    memory, disk = load(**choice), load(**choice, cache="disk")
    monkeypatch.setattr(pictures, "read", None)  # nothing is decoded again
    again = load(**choice, cache="disk")
    for kept in (disk, again):
        assert (kept.names, kept.infos) == (memory.names, memory.infos)
        positions = np.arange(10)
        np.testing.assert_array_equal(
            kept.take(positions % 5, 0, positions), memory.take(positions % 5, 0, positions)
        )
    assert len(list((tmp_path / "cache" / "lwgan").glob("*/pixels"))) == 1


def test_what_a_killed_process_left_of_a_disk_cache_is_made_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = drawn.settings(path=str(folder), cache="disk")
    cache = pictures._cache_folder(sources.open_source(config), config)
    cache.with_suffix(".part").mkdir(parents=True)
    (cache.with_suffix(".part") / "pixels").write_bytes(b"half")
    np.testing.assert_array_equal(load(**config).array, load(path=str(folder)).array)
    assert sorted(path.suffix for path in cache.parent.iterdir()) == ["", ".lock"]


def test_a_disk_cache_is_of_its_pictures_and_settings(folder):
    def key(**changes):
        config = drawn.settings(path=str(folder), **changes)
        return pictures._cache_folder(sources.open_source(config), config)

    keys = [key(), key(mode="grey"), key(image_size=64), key(crop_prob=0.1)]
    drawn.noise(7).save(folder / "0.png")
    assert len({*keys, key()}) == 5
    assert key(crop_prob=0.1) == key(crop_prob=0.9)


def test_two_processes_build_one_disk_cache(folder, tmp_path):
    code = (
        "from tests import drawn; from lwgan import pictures, sources; import sys\n"
        f"config = drawn.settings(path={str(folder)!r}, cache='disk')\n"
        "kept = pictures.load(sources.open_source(config), config)\n"
        "print(int(kept.array.sum()))"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    totals = [int(process.communicate(timeout=300)[0]) for process in processes]
    assert totals == [int(load(path=str(folder)).array.sum())] * 2


def test_pictures_are_kept_large_enough_for_the_smallest_crop(folder):
    kept = load(path=str(folder), crop_prob=1.0)
    height, width, _ = kept.at(0).shape
    boxes = [pictures.draw_crop(height, width, 1.0, (0, i)) for i in range(300)]
    assert min(min(right - left, bottom - top) for left, top, right, bottom in boxes) >= 32


def test_the_middle_of_a_kept_picture(folder):
    slope = np.linspace(0, 255, 300).astype(np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(slope, (200, 300))] * 3, -1)).save(folder / "0.png")
    plain, cropped = load(path=str(folder)), load(path=str(folder), crop_prob=0.5)
    np.testing.assert_array_equal(plain.centre(0), plain.at(0))
    np.testing.assert_allclose(cropped.centre(0).astype(int), plain.centre(0), atol=3)


def scene(mode):
    """A smooth picture (60×48) with a transparent, a half transparent and an opaque part where it may."""
    y, x = np.mgrid[:48, :60]
    bands = [2 * x + y, 250 - 3 * y, 4 * x % 200, np.select([x < 20, x < 40], [0, 128], 255)]
    array = np.stack(bands, -1).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray((257 * (2 * x + y)).astype(np.uint16))
    rgba = Image.fromarray(array)
    if mode == "P+t":
        return rgba.convert("RGB").quantize(64)
    return rgba.convert({"L": "RGB", "1": "L"}.get(mode, mode)).convert(mode)


def by_hand(path, mode):
    """What a file should become at 32 px, from Pillow's decode, in float: (32, 32, C)."""
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):
            grey = np.asarray(image) // 256
            rgba = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1).astype(np.float32)
        else:
            rgba = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"), np.float32)
    alpha = rgba[..., 3:] / 255
    if mode == "rgba":
        channels = np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:]], -1)
    else:
        channels = rgba[..., :3] * alpha + 255 * (1 - alpha)
    if mode == "grey":
        channels = channels @ np.float32([[0.299], [0.587], [0.114]])
    height, width = channels.shape[:2]
    size = (round(32 * width / min(height, width)), round(32 * height / min(height, width)))
    bands = [
        Image.fromarray(band).resize(size, Image.Resampling.BILINEAR)
        for band in channels.transpose(2, 0, 1)
    ]
    small = np.stack(bands, -1)
    left, top = (round((side - 32) / 2) for side in size)
    small = small[top : top + 32, left : left + 32]
    if mode == "rgba":
        small[..., :3] /= np.maximum(small[..., 3:], 1) / 255
    return small


KINDS = {
    "png": ["RGB", "RGBA", "L", "LA", "P", "P+t", "1", "I;16"],
    "jpg": ["RGB", "L", "CMYK"],
    "webp": ["RGB", "RGBA"],
    "tif": ["RGB", "RGBA", "L", "CMYK", "P", "I;16"],
    "bmp": ["RGB", "L", "P", "1"],
    "gif": ["L", "P", "P+t"],
}


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_every_kind_of_file_against_pillows_decode(tmp_path, mode):
    for suffix, image_modes in KINDS.items():
        for number, image_mode in enumerate(image_modes):
            options = {"transparency": 3} if image_mode == "P+t" else {}
            if suffix == "gif":
                options |= dict(save_all=True, append_images=[Image.new("L", (60, 48), 7)])
            path = tmp_path / f"{suffix}{number}.{suffix.upper() if number % 2 else suffix}"
            scene(image_mode).save(
                path, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **options
            )
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        scene("RGB").save(tmp_path / f"turned{turn}.jpg", exif=exif, quality=95)
    kept = load(path=str(tmp_path), mode=mode)
    assert len(kept.names) == 33 and not kept.errors
    for number, name in enumerate(kept.names):
        expected, found = by_hand(tmp_path / name, mode), kept.at(number).astype(float)
        seen = expected[..., 3:] > 32 if mode == "rgba" else True  # faint colours are rounded
        assert np.abs(np.where(seen, found - expected, 0)).max() <= 4, name


def test_a_large_jpeg_is_decoded_no_larger_than_is_of_use(tmp_path):
    image = Image.fromarray(np.asarray(scene("RGB").resize((1600, 1280), Image.Resampling.BICUBIC)))
    image.save(tmp_path / "a.jpg", quality=95)
    found = load(path=str(tmp_path))
    assert found.infos[0][:3] == ("JPEG", 1600, 1280)
    np.testing.assert_allclose(found.at(0), by_hand(tmp_path / "a.jpg", "rgb"), atol=4)


def test_infos(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn.noise(0, (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    drawn.noise(0, (60, 40), "RGBA").save(tmp_path / "b.png")
    drawn.noise(0, (40, 80), "L").save(tmp_path / "c.tif")
    Image.new("RGBA", (32, 32), (9, 9, 9, 255)).save(tmp_path / "d.webp", lossless=True)
    infos = load(path=str(tmp_path)).infos
    assert [info.format for info in infos] == ["JPEG", "PNG", "TIFF", "WEBP"]
    assert [(i.width, i.height) for i in infos] == [(40, 60), (60, 40), (40, 80), (32, 32)]
    assert [info.alpha for info in infos] == [False, True, False, False]
    assert [info.grey for info in infos] == [False, False, True, True]


def test_summary_finds_duplicates(tmp_path):
    """A face, its copy, and the same at another size, compressed; others look different."""
    config = drawn.settings(source="openmoji")
    source = sources.open_source(config)
    for number in range(0, 100, 10):
        white = Image.new("RGBA", (128, 128), (255, 255, 255, 255))
        white.alpha_composite(source.read(number))
        white.convert("RGB").save(tmp_path / f"{number:02d}.png")
    shutil.copy(tmp_path / "00.png", tmp_path / "copy.png")
    with Image.open(tmp_path / "10.png") as image:
        image.resize((90, 90)).save(tmp_path / "small.jpg", quality=60)
    text = doctor.summary(load(path=str(tmp_path)))
    assert "formats: JPEG 1, PNG 11" in text
    assert "shorter side: 90 to 128 px, median 128; 0 below 32 px" in text
    assert "duplicates: 1 exact; 1 pairs look alike: 10.png and small.jpg" in text


def test_summary_of_sizes(tmp_path):
    for number, size in enumerate([(20, 20), (40, 80), (80, 40)]):
        drawn.noise(number, size).save(tmp_path / f"{number}.png")
    text = doctor.summary(load(path=str(tmp_path)))
    assert "1 below 32 px, enlarged" in text
    assert "width / height: 0.50 to 2.00, median 1.00; the middle square cuts away 33%" in text
    assert "kept in memory, 0.0 MiB" in text
