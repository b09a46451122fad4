"""Pictures and videos in files, written as they come."""

import gc
import warnings

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lwgan import pictures, sampling, writers


def frames(count):
    """A white square on black that moves, and comes back in the last frame."""
    for number in range(count):
        frame = np.zeros((32, 34, 3), np.uint8)
        left = 2 * (number % (count - 1))
        frame[8:16, left : left + 8] = 255
        yield frame


def read(path):
    """What a player sees: its information, and frames uint8 (H, W, 3)."""
    with warnings.catch_warnings(action="ignore"):  # its reader leaves pipes open
        reader = imageio_ffmpeg.read_frames(str(path))
        information = next(reader)
        width, height = information["size"]
        seen = [np.frombuffer(raw, np.uint8).reshape(height, width, 3) for raw in reader]
        del reader
        gc.collect()
    return information, np.stack(seen).astype(int)


@pytest.mark.parametrize(("fps", "count"), [(24, 9), (30, 13)])
def test_mp4_has_the_frames_and_the_rate(tmp_path, fps, count):
    path = tmp_path / "video.mp4"
    writers.write_video(path, frames(count), fps)
    assert [p.name for p in tmp_path.iterdir()] == ["video.mp4"]
    information, seen = read(path)
    assert (information["codec"], information["fps"], information["size"]) == (
        "h264",
        fps,
        (34, 32),
    )
    assert information["pix_fmt"].startswith("yuv420p")
    assert len(seen) == count
    expected = np.stack(list(frames(count)))
    assert np.abs(seen - expected).mean((1, 2, 3)).max() < 4
    assert np.abs(seen[0] - seen[-1]).mean() < 2 < np.abs(seen[0] - seen[4]).mean()


@pytest.mark.parametrize(("extension", "loss"), [("gif", 0), ("webp", 4)])
def test_gif_and_webp_have_the_frames_and_the_rate(tmp_path, extension, loss):
    path = tmp_path / f"video.{extension}"
    writers.write_video(path, frames(11), 25)
    with Image.open(path) as video:
        assert (video.format, video.n_frames, video.size) == (extension.upper(), 11, (34, 32))
        assert video.info["loop"] == 0
        for number, expected in enumerate(frames(11)):
            video.seek(number)
            seen = np.asarray(video.convert("RGB"), int)
            assert video.info["duration"] == 40
            assert np.abs(seen - expected).mean() <= loss


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_over_white(channels):
    image = np.zeros((2, 2, channels), np.uint8)
    image[0] = 200
    image[1, 1, -1] = 51
    seen = pictures.to_rgb(image, "white")
    if channels == 4:  # alpha 200, 0 and 51 of 255
        expected = [[200 * 200 / 255 + 55] * 2, [255, 204]]
    else:
        expected = [[200, 200], [0, 51]]
    np.testing.assert_array_equal(seen[..., 2], np.round(expected))
    assert seen.shape == (2, 2, 3)


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    """mp4 with yuv420p has no odd sizes: ffmpeg ends before it has read everything."""
    odd = (np.zeros((33, 33, 3), np.uint8) for _ in range(1000))
    with pytest.raises(OSError, match=r"ffmpeg: .*width not divisible by 2"):
        writers.write_video(tmp_path / "video.mp4", odd, 30)
    assert not (tmp_path / "video.mp4").exists()


def test_frames_that_fail_leave_no_video(tmp_path):
    def failing():
        yield from frames(4)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        writers.write_video(tmp_path / "video.mp4", failing(), 30)
    assert not (tmp_path / "video.mp4").exists()


def test_pictures_are_written_as_they_come(tmp_path, monkeypatch):
    """Each is there before the next is drawn; the grid shows the first that it has room for."""
    monkeypatch.setattr(writers, "GRID_PIXELS", 5 * 64)
    pictures = np.random.default_rng(0).uniform(-0.2, 1.2, (9, 8, 8, 3)).astype(np.float32)
    names = [f"{number:05d}" for number in range(9)]

    def drawn():
        for number, picture in enumerate(pictures):
            assert len(list(tmp_path.glob("*.png"))) == number
            yield picture

    writers.write_pictures(drawn(), tmp_path, names, extension="png", npy=True, columns=2)
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == [*(f"{name}.png" for name in names), "grid.png", "samples.npy"]
    rounded = sampling.to_uint8(pictures)
    for name, picture in zip(names, rounded, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), picture)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    np.testing.assert_array_equal(grid, sampling.grid(rounded[:5], 2))
    array = np.load(tmp_path / "samples.npy")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, pictures)


def test_arrays_alone(tmp_path):
    pictures = np.zeros((3, 8, 8, 1), np.float32)
    writers.write_pictures(
        iter(pictures), tmp_path, list("abc"), extension=None, npy=True, columns=None
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.png", "samples.npy"]
