"""Images of any kind at training size, and where they are kept."""

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from lwgan.data import decode
from lwgan.data.cache import load_dataset
from lwgan.data.sources import open_source
from lwgan.settings.shapes import shape_of
from tests import drawn


def load(**settings):
    config = drawn.settings(**settings)
    return load_dataset(open_source(config), config)


WHITE, RED = [255, 255, 255], [255, 0, 0]


def pixels(values, mode="RGB"):
    """An image of 2×2 pixels, so that preparation at 2 px resizes nothing."""
    image = Image.new(mode, (2, 2))
    image.putdata([tuple(v) if isinstance(v, list) else v for v in values])
    return image


def reopened(tmp_path, image, suffix, **options):
    path = tmp_path / f"image.{suffix}"
    image.save(path, **options)
    with Image.open(path) as image:
        image.load()
        return image


def test_a_decompression_bomb_is_not_decoded(folder, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 40 * 33)
    drawn.noise(0, (40, 34)).save(folder / "bomb.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    source = open_source(drawn.settings(path=str(folder)))
    with pytest.raises(ValueError, match="40×34 px are more than"):
        decode.read_image(source, source.names.index("bomb.png"), drawn.settings())


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_prepare_rgb(mode):
    expected = {
        "rgb": [[1, 2, 3], RED, [0, 255, 0], [0, 0, 255]],
        "rgba": [[1, 2, 3, 255], [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]],
        "grey": [[2], [76], [150], [29]],
    }
    image = pixels([[1, 2, 3], RED, [0, 255, 0], [0, 0, 255]])
    np.testing.assert_array_equal(
        decode.prepare(image, shape_of(2), mode).reshape(4, -1), expected[mode]
    )


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
    np.testing.assert_array_equal(decode.prepare(image, shape_of(2), mode).reshape(4, -1), expected)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_prepare_palette_with_transparency(tmp_path, suffix):
    image = pixels([0, 1, 1, 0], "P")
    image.putpalette([0, 0, 255, 255, 0, 0])
    image = reopened(tmp_path, image, suffix, transparency=0)
    assert image.mode == "P"
    rgb = decode.prepare(image, shape_of(2), "rgb").reshape(4, -1)
    np.testing.assert_array_equal(rgb, [WHITE, RED, RED, WHITE])
    np.testing.assert_array_equal(
        decode.prepare(image, shape_of(2), "rgba")[..., 3].ravel(), [0, 255, 255, 0]
    )


@pytest.mark.parametrize(("mode", "channels"), [("rgb", 3), ("grey", 1)])
def test_prepare_grey_of_16_bits(tmp_path, mode, channels):
    image = Image.fromarray(np.array([[0, 65535], [7 * 256 + 255, 128 * 256]], np.uint16))
    array = decode.prepare(reopened(tmp_path, image, "png"), shape_of(2), mode)
    np.testing.assert_array_equal(array.reshape(4, -1), [[v] * channels for v in (0, 255, 7, 128)])


def test_prepare_turns_by_exif(tmp_path):
    exif = Image.Exif()
    # The camera's right is up.
    exif[0x0112] = 6
    image = reopened(tmp_path, pixels([1, 2, 3, 4], "L"), "png", exif=exif)
    np.testing.assert_array_equal(
        decode.prepare(image, shape_of(2), "grey")[..., 0], [[3, 1], [4, 2]]
    )


@pytest.mark.parametrize("suffix", [None, "jpg"])
def test_prepare_cmyk(tmp_path, suffix):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = reopened(tmp_path, image, suffix, quality=95) if suffix else image
    assert image.mode == "CMYK"
    np.testing.assert_allclose(
        decode.prepare(image, shape_of(16), "rgb")[8, 8].astype(int), RED, atol=3
    )


def test_prepare_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    image = reopened(tmp_path, frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode.prepare(image, shape_of(2), "grey").ravel(), [10] * 4)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((60, 40), (20, 30)),
        ((40, 60), (30, 20)),
        ((20, 20), (20, 20)),
        ((7, 5), (20, 28)),
        ((3, 300), (2000, 20)),
        # 20.5.
        ((41, 40), (20, 20)),
    ],
)
@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_prepare_brings_the_shorter_side_to_size(size, shape, mode):
    image = drawn.noise(0, size)
    array = decode.prepare(image, shape_of(20), mode)
    assert array.shape == (*shape, {"rgb": 3, "rgba": 4, "grey": 1}[mode])
    assert array.dtype == np.uint8
    expected = image.convert(decode.PIL_MODES[mode]).resize(shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(array.squeeze(), np.asarray(expected))


def test_prepare_keeps_the_colour_of_transparent_pixels_out():
    image = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 1, 4))
    assert decode.prepare(image, shape_of(2), "rgba")[:, 0, :2].tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize(
    ("shape", "size", "top", "left"),
    [((5, 8), 5, 0, 2), ((4, 4), 4, 0, 0), ((7, 4), 4, 2, 0), ((4, 9), 4, 0, 2)],
)
def test_centre_crop(shape, size, top, left):
    left_, top_, right, bottom = decode.centre_box(*shape)
    assert (top_, left_, bottom - top_, right - left_) == (top, left, size, size)


def test_random_crop_is_decided_by_its_key():
    array = np.asarray(drawn.noise(0, (50, 40)))
    first, again, other = (decode.crop(array, shape_of(32), 1.0, (0, 1, key)) for key in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_random_crop_has_half_to_all_of_the_image():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    crops = [decode.crop(ramp, shape_of(32), 1.0, (0, 1, key)) for key in range(200)]
    widths = np.array([np.ptp(crop) + 1 for crop in crops])
    assert widths.min() >= 64 * 0.5**0.5 * 0.98 - 2
    assert widths.min() < 50 and widths.max() > 61
    assert len({int(crop.min()) for crop in crops}) > 5


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (0.25, 100), (1.0, 400)])
def test_random_crop_happens_with_its_probability(prob, expected):
    boxes = [decode.draw_crop(300, 400, prob, (0, 1, key)) for key in range(400)]
    cropped = sum(box != decode.centre_box(300, 400) for box in boxes)
    # A crop may be all of it.
    assert abs(cropped - expected) <= {0: 0, 0.25: 30, 1: 2}[prob]


@pytest.mark.parametrize("shape", [(32, 320, 3), (320, 32, 1), (32, 47, 4), (33, 32, 1)])
def test_random_crop_has_its_size_whatever_the_image(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for key in range(10):
        assert decode.crop(array, shape_of(32), 1.0, (0, 1, key)).shape == (32, 32, shape[2])


def scene(mode):
    """A smooth image (60×48) with a transparent, a half transparent and an opaque part where it
    may.
    """
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
        # Faint colours are rounded.
        seen = expected[..., 3:] > 32 if mode == "rgba" else True
        assert np.abs(np.where(seen, found - expected, 0)).max() <= 4, name


def test_a_large_jpeg_is_decoded_no_larger_than_is_of_use(tmp_path):
    image = Image.fromarray(np.asarray(scene("RGB").resize((1600, 1280), Image.Resampling.BICUBIC)))
    image.save(tmp_path / "a.jpg", quality=95)
    found = load(path=str(tmp_path))
    assert found.infos[["format", "width", "height"]][0].tolist() == (b"JPEG", 1600, 1280)
    np.testing.assert_allclose(found.at(0), by_hand(tmp_path / "a.jpg", "rgb"), atol=4)


def test_infos(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn.noise(0, (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    drawn.noise(0, (60, 40), "RGBA").save(tmp_path / "b.png")
    drawn.noise(0, (40, 80), "L").save(tmp_path / "c.tif")
    Image.new("RGBA", (32, 32), (9, 9, 9, 255)).save(tmp_path / "d.webp", lossless=True)
    infos = load(path=str(tmp_path)).infos
    assert infos["format"].tolist() == [b"JPEG", b"PNG", b"TIFF", b"WEBP"]
    sizes = infos[["width", "height"]].tolist()
    assert sizes == [(40, 60), (60, 40), (40, 80), (32, 32)]
    assert infos["alpha"].tolist() == [False, True, False, False]
    assert infos["grey"].tolist() == [False, False, True, True]
