"""What people have: every format, depth, profile and shape, and what is none of them."""

import contextlib
import io
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from lwgan.data import decode, formats
from lwgan.data.cache import load_dataset
from lwgan.data.doctor import summary
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.settings.shapes import shape_of
from tests import drawn
from tests.data import icc


def load(path, **settings):
    config = drawn.settings(path=str(path), **settings)
    return load_dataset(open_source(config), config)


def found(dataset, name):
    """The colours of an image of one colour."""
    pixels = dataset.at(dataset.names.index(name)).reshape(-1, 3).astype(int)
    assert np.ptp(pixels, 0).max() <= 6, name
    return pixels[len(pixels) // 2]


COLOUR = (180, 90, 40)
# Pillow's format by suffix; what a name does not tell, the content does.
SPELLINGS = {
    **dict.fromkeys("jpg JPG jpeg jpe jfif jif pjpeg mpo".split(), "jpeg"),
    **dict.fromkeys("png apng".split(), "png"),
    **dict.fromkeys("tif TIFF".split(), "tiff"),
    **dict.fromkeys("bmp dib".split(), "bmp"),
    **dict.fromkeys("ppm pnm".split(), "ppm"),
    **dict.fromkeys("jp2 jpx".split(), "jpeg2000"),
    **{"j2k": "jpeg2000", "tga": "tga", "webp": "webp", "gif": "gif"},
    **dict.fromkeys(["heic", "txt", "png.download", ""], "jpeg"),
}


def test_every_spelling_of_every_format(tmp_path):
    spellings = SPELLINGS | ({"avif": "avif"} if features.check("avif") else {})
    for suffix, kind in spellings.items():
        Image.new("RGB", (50, 40), COLOUR).save(tmp_path / f"a.{suffix}".strip("."), kind)
    dataset = load(tmp_path)
    assert len(dataset.names) == len(spellings) and not dataset.errors and not dataset.skipped
    for name in dataset.names:
        np.testing.assert_allclose(found(dataset, name), COLOUR, atol=5)


def test_what_is_not_looked_at_is_counted_with_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(formats, "reads_heif", lambda: False)
    heic = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(40)
    for number in range(3):
        (folder / f"IMG_{number}.HEIC").write_bytes(heic)
    for name in ("a.txt", "b.pdf", "c.eps", "LICENSE"):
        (folder / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage")
    # A raw file is a TIFF to Pillow, with a thumbnail.
    drawn.noise(1).save(folder / "d.nef", "tiff")
    os.mkfifo(folder / "pipe.png")
    drawn.noise(2).save(folder / "._0.png")
    text = summary(load(folder))
    assert "5 images\n" in text
    for part in ("3 .heic (pip install pillow-heif", "1 .txt", "1 .pdf", "1 without a suffix"):
        assert part in text
    assert "1 .nef (raw: develop" in text and "pipe" not in text
    for path in folder.glob("[0-9].png"):
        path.unlink()
    with pytest.raises(UserError, match=r"no image below it \(not looked at: 3 \.heic \(pip"):
        load(folder)


def test_values_by_the_range_of_their_type(tmp_path):
    """Half of each range is 128, whatever the type."""

    def save(name, array):
        Image.fromarray(array).save(tmp_path / name)

    shape = (40, 50)
    save("16.png", np.full(shape, 2**15, np.uint16))
    save("16.tif", np.full(shape, 2**15, np.uint16))
    save("32.tif", np.full(shape, 2**30, np.int32))
    save("float.tif", np.full(shape, 0.502, np.float32))
    (tmp_path / "16.pgm").write_bytes(b"P5 50 40 65535\n" + b"\x80\0" * 2000)
    (tmp_path / "12.tif").write_bytes(tiff(50, 40, 12, b"\x80\x08\0" * 1000))
    (tmp_path / "u32.tif").write_bytes(tiff(50, 40, 32, struct.pack("<I", 2**31) * 2000))
    dataset = load(tmp_path)
    assert len(dataset.names) == 7 and not dataset.errors
    for name in dataset.names:
        np.testing.assert_allclose(found(dataset, name), 128, atol=1, err_msg=name)
    # One value is less than a tenth of the range.
    assert "7 of 12 bits or more use less than a tenth of their range" in summary(dataset)


def test_white_may_be_zero(tmp_path):
    pixels = struct.pack("<H", 2**16 - 1 - 2**14) * 2000
    (tmp_path / "16.tif").write_bytes(tiff(50, 40, 16, pixels, photometric=0))
    np.testing.assert_array_equal(found(load(tmp_path), "16.tif"), 2**14 >> 8)


def tiff(width, height, bits, pixels, photometric=1):
    """A TIFF of one grey channel of whole numbers, uncompressed."""
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)]
    entries += [(277, 1), (278, height), (279, len(pixels))]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(entries)) + table + bytes(4)


def png_of_16_bits(colours):
    """A PNG of uint16 (H, W, 3), which Pillow does not write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def test_faint_colours_of_16_bits_are_said(tmp_path):
    ramp = np.linspace(0, 1, 6000).reshape(40, 50, 3)
    (tmp_path / "12in16.png").write_bytes(png_of_16_bits((4095 * ramp).astype(np.uint16)))
    (tmp_path / "full.png").write_bytes(png_of_16_bits((65535 * ramp).astype(np.uint16)))
    # A pixel of 16 bits, not a channel.
    head = struct.pack(
        "<2sIIIIiiHHIIiiII", b"BM", 4066, 0, 66, 40, 50, 40, 1, 16, 3, 4000, *[0] * 4
    )
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    (tmp_path / "565.bmp").write_bytes(head + masks + bytes(4000))
    # Of 8 bits, it is what it looks like.
    Image.fromarray((15 * ramp).astype(np.uint8)).save(tmp_path / "dark.png")
    dataset = load(tmp_path)
    assert len(dataset.names) == 4
    line = "1 of 12 bits or more use less than a tenth of their range, such as 12in16.png"
    assert line in summary(dataset)


def test_faint_and_clipped_values_are_said(tmp_path):
    ramp = np.linspace(0, 1, 2000).reshape(40, 50)
    Image.fromarray((4095 * ramp).astype(np.uint16)).save(tmp_path / "12in16.png")
    Image.fromarray((65535 * ramp).astype(np.uint16)).save(tmp_path / "full.png")
    Image.fromarray((255 * ramp).astype(np.float32)).save(tmp_path / "float.tif")
    text = summary(load(tmp_path))
    assert "1 of 12 bits or more use less than a tenth of their range, such as 12in16.png" in text
    assert "1 of floats beyond 0 … 1, which are cut off, such as float.tif" in text


@pytest.mark.parametrize("space", [icc.ADOBE, icc.WIDE], ids=["adobe", "wide"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_colour_profiles_against_the_formulas(tmp_path, space, suffix):
    colours = [COLOUR, (60, 120, 110), (200, 190, 60), (128, 128, 128)]
    for number, colour in enumerate(colours):
        image = Image.new("RGB", (50, 40), colour)
        image.save(tmp_path / f"{number}.{suffix}", icc_profile=icc.profile(*space), quality=100)
    dataset = load(tmp_path)
    for number, expected in enumerate(icc.in_srgb(colours, *space)):
        # JPEG rounds in other colours, and dark ones are spread.
        atol = 7 if suffix == "jpg" else 3
        np.testing.assert_allclose(found(dataset, f"{number}.{suffix}"), expected, atol=atol)
    assert "4 with a colour profile, converted to sRGB" in summary(dataset)


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_profiles_with_transparency_palette_and_grey(tmp_path, mode):
    profile = icc.profile(*icc.ADOBE)
    Image.new("RGBA", (50, 40), (*COLOUR, 255)).save(tmp_path / "a.png", icc_profile=profile)
    Image.new("RGB", (50, 40), COLOUR).quantize(4).save(tmp_path / "p.png", icc_profile=profile)
    Image.new("L", (50, 40), 128).save(tmp_path / "l.png", icc_profile=profile)
    dataset = load(tmp_path, mode=mode)
    expected = np.round(icc.in_srgb([COLOUR], *icc.ADOBE)).astype(np.uint8)
    expected = decode.prepare(Image.fromarray(expected[None]), shape_of(1), mode)[0, 0].astype(int)
    for number in (0, 2):
        np.testing.assert_allclose(dataset.at(number)[16, 16].astype(int), expected, atol=3)
    assert (dataset.infos["profile"] == 1).all()


def test_grey_profiles_with_and_without_transparency(tmp_path):
    """A grey image with alpha becomes what it would be without."""
    profile = icc.grey_profile(1.8)
    for name, mode in {"l.png": "L", "la.png": "LA"}.items():
        image = Image.new("L", (50, 40), 100)
        if mode == "LA":
            image.putalpha(255)
        image.save(tmp_path / name, icc_profile=profile)
    dataset = load(tmp_path)
    # sRGB's curve at the light that a gamma of 1.8 gives to 100.
    linear = (100 / 255) ** 1.8
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    for name in dataset.names:
        np.testing.assert_allclose(found(dataset, name), expected, atol=2)


def test_profiles_that_cannot_be_used_are_left_and_counted(tmp_path):
    for name, profile in {
        "broken.png": b"no profile" * 20,
        "cut.png": icc.profile(*icc.ADOBE)[:90],
    }.items():
        Image.new("RGB", (50, 40), COLOUR).save(tmp_path / name, icc_profile=profile)
    Image.new("CMYK", (50, 40)).save(tmp_path / "c.jpg", icc_profile=icc.profile(*icc.ADOBE))
    dataset = load(tmp_path)
    assert "3 with a colour profile that cannot be used" in summary(dataset)
    assert found(dataset, "cut.png").tolist() == list(COLOUR)


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
def test_a_line_costs_no_more_than_a_square(tmp_path, crop_prob, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def watched(image, size, *arguments, **options):
        sizes.append(size)
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    Image.new("RGB", (3000, 1), COLOUR).save(tmp_path / "line.png")
    Image.new("RGB", (1, 3000), COLOUR).save(tmp_path / "upright.png")
    dataset = load(tmp_path, image_size=256, crop_prob=crop_prob)
    assert max(map(max, sizes)) <= 2.1 * 363
    assert dataset.take(np.arange(2), 0, np.arange(2)).shape == (2, 256, 256, 3)
    assert "2 of them over 3:1 or below 1:3, such as line.png" in summary(dataset)


def test_no_random_crop_of_a_long_image_is_lost(tmp_path):
    """What is cut away before is nothing that a crop could show."""
    long = np.asarray(drawn.noise(0, (640, 100)))
    kept = decode.prepare(Image.fromarray(long), shape_of(100), "rgb", decode.MOST_LONG)
    assert kept.shape == (100, 210, 3)
    for key in range(100):
        for array in (long, kept):
            assert decode.draw_crop(*array.shape[:2], 1.0, (0, key)) == decode.centre_box(
                *array.shape[:2]
            )
    np.testing.assert_array_equal(
        decode.crop(long, shape_of(100), 0, (0,)), decode.crop(kept, shape_of(100), 0, (0,))
    )


@pytest.mark.parametrize("size", [(97, 60), (60, 97), (33, 500), (400, 399), (10, 13)])
def test_the_middle_is_as_that_of_the_whole_resized(size):
    image = drawn.noise(0, size)
    whole = decode.prepare(image, shape_of(32), "rgb")
    middle = decode.resize(whole, shape_of(32), decode.centre_box(*whole.shape[:2]))
    found = decode.prepare(image, shape_of(32), "rgb", 1.0)
    np.testing.assert_allclose(found.astype(int), middle, atol=1 if max(size) < 90 else 12)


def test_pillows_globals_stay():
    before = Image.MAX_IMAGE_PIXELS
    assert before and before < decode.MAX_PIXELS


def test_an_image_above_pillows_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    drawn.noise(0).save(tmp_path / "a.png")
    assert len(load(tmp_path).names) == 1


def test_defects_are_left_out_by_name(folder, monkeypatch):
    monkeypatch.setattr(formats, "reads_heif", lambda: False)
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html>404</html>")
    (folder / "heic.jpg").write_bytes(struct.pack(">I4s4s", 24, b"ftyp", b"heic") + bytes(40))
    dataset = load(folder)
    assert len(dataset.names) == 5
    assert dataset.errors.keys() == {"cut.png", "empty.jpg", "page.jpg", "heic.jpg"}
    assert "pip install pillow-heif" in dataset.errors["heic.jpg"]
    assert dataset.errors["empty.jpg"] == "is empty"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_images_that_lie_have_their_upright_size(tmp_path, suffix):
    """A TIFF is turned by Pillow, others by us."""
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn.noise(0, (120, 80)).save(tmp_path / f"a.{suffix}", exif=exif)
    infos = load(tmp_path).infos
    assert (infos["width"][0], infos["height"][0]) == (80, 120)


# A TIFF of one entry: the orientation, as text.
TEXT = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0" + b"6\0\0\0" + bytes(4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [b"no TIFF", b"", TEXT], ids=["other", "empty", "text"])
def test_damaged_exif_is_no_reason_to_leave_an_image_out(tmp_path, suffix, exif):
    # With a density, Pillow reads EXIF of a JPEG only when it is asked for.
    drawn.noise(0).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0" + exif, dpi=(72, 72))
    names = [f"a.{suffix}"]
    if suffix == "png":
        deep = Image.fromarray(np.arange(1320, dtype=np.uint16).reshape(33, 40))
        deep.save(tmp_path / "deep.png", exif=b"Exif\0\0" + exif)
        names.append("deep.png")
    assert load(tmp_path).names == names


def test_an_image_is_decoded_only_when_there_is_room(tmp_path, monkeypatch):
    """A PNG's EXIF may come after its pixels; libjpeg holds all of a progressive image."""
    drawn.noise(0, (640, 480)).save(tmp_path / "a.png")
    drawn.noise(0, (640, 480)).save(tmp_path / "b.jpg")
    drawn.noise(0, (640, 480)).save(tmp_path / "c.jpg", progressive=True)
    asked, budget = [], decode._budget()

    @contextlib.contextmanager
    def of(size):
        asked.append(size)
        yield

    def load(image):
        assert asked
        return whole(image)

    whole = ImageFile.ImageFile.load
    monkeypatch.setattr(budget, "of", of)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    source = open_source(drawn.settings(path=str(tmp_path)))
    sizes = []
    for number in range(3):
        asked.clear()
        decode.read_image(source, number, drawn.settings())
        sizes.append(asked[0] // decode._BYTES_A_PIXEL)
    assert sizes == [640 * 480, 160 * 120, 640 * 480]


def test_heic_where_its_package_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 48), COLOUR)
    pillow_heif.from_pillow(image).save(tmp_path / "a.HEIC", quality=95)
    shutil.copy(tmp_path / "a.HEIC", tmp_path / "b")
    dataset = load(tmp_path)
    assert dataset.names == ["a.HEIC", "b"]
    for name in dataset.names:
        np.testing.assert_allclose(found(dataset, name), COLOUR, atol=6)
    assert "HEIF" not in Image.OPEN


def test_a_file_that_is_open_is_closed(folder):
    source = open_source(drawn.settings(path=str(folder)))
    with source.read(0) as image:
        file = image.fp
        image.load()
    assert file.closed
    buffer = io.BytesIO(b"nothing")
    with pytest.raises(ValueError):
        formats.open_image_file(buffer, "a")
    assert buffer.closed


def test_a_folder_that_is_closed_is_left_out_and_said(folder, monkeypatch, caplog):
    (folder / "lost+found").mkdir()
    drawn.noise(9).save(folder / "lost+found" / "9.png")
    scandir = os.scandir

    def closed(path):
        if str(path).rstrip("/").endswith(caplog.closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    caplog.closed = "lost+found"
    monkeypatch.setattr(os, "scandir", closed)
    assert len(load(folder).names) == 5
    assert "Left out: the folder" in caplog.text
    caplog.closed = "images"
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        load(folder)
