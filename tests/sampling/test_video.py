"""Videos as other programs read them."""

import gc
import pathlib
import warnings

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lwgan.data import decode
from lwgan.sampling.video import write_video


def frames(count):
    """A white square on black that moves, and comes back in the last frame."""
    for number in range(count):
        frame = np.zeros((32, 34, 3), np.uint8)
        left = 2 * (number % (count - 1))
        frame[8:16, left : left + 8] = 255
        yield frame


def read(path):
    """What a player sees: its information, and frames uint8 (H, W, 3)."""
    # Its reader leaves pipes open.
    with warnings.catch_warnings(action="ignore"):
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
    write_video(path, frames(count), fps)
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
    write_video(path, frames(11), 25)
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
    seen = decode.to_rgb(image, "white")
    # Alpha 200, 0 and 51 of 255.
    if channels == 4:
        expected = [[200 * 200 / 255 + 55] * 2, [255, 204]]
    else:
        expected = [[200, 200], [0, 51]]
    np.testing.assert_array_equal(seen[..., 2], np.round(expected))
    assert seen.shape == (2, 2, 3)


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    """mp4 with yuv420p has no odd sizes: ffmpeg ends before it has read everything."""
    odd = (np.zeros((33, 33, 3), np.uint8) for _ in range(1000))
    with pytest.raises(OSError, match=r"ffmpeg: .*width not divisible by 2"):
        write_video(tmp_path / "video.mp4", odd, 30)
    assert not (tmp_path / "video.mp4").exists()


def test_frames_that_fail_leave_no_video(tmp_path):
    def failing():
        yield from frames(4)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_video(tmp_path / "video.mp4", failing(), 30)
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize("name", ["2025-11-25T10:30:00", "-x", "a b,[c]%d#'q'", "http:x"])
@pytest.mark.parametrize("extension", ["mp4", "webp", "gif"])
def test_a_folder_may_have_any_name(tmp_path, monkeypatch, name, extension):
    """As runs named by the time have; ffmpeg makes something of colons and dashes."""
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path(name)
    folder.mkdir()
    write_video(folder / f"video.{extension}", frames(3), 25)
    assert [path.name for path in folder.iterdir()] == [f"video.{extension}"]
    assert (folder / f"video.{extension}").stat().st_size > 100
