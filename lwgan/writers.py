"""Pictures and videos to files as they come: none of these holds more than it must in memory."""

import contextlib
import itertools
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from lwgan import sampling
from lwgan.pictures import to_rgb

GRID_PIXELS = 2**24  # of a grid at most: it is held in memory

# What ffmpeg is told for each kind of video. A GIF has a palette for each frame: one for all of them would
# have to wait for the last.
_VIDEOS = {
    ".mp4": "-f mp4 -c:v libx264 -crf 17 -pix_fmt yuv420p -movflags +faststart",
    ".webp": "-f webp -c:v libwebp_anim -quality 90 -loop 0",
    ".gif": "-f gif -c:v gif -loop 0 -vf "
    "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1",
}


def write_pictures(
    pictures: Iterator[np.ndarray],
    folder: pathlib.Path,
    names: Sequence[str],
    *,
    extension: str | None,
    npy: bool,
    columns: int | None,
) -> None:
    """Writes float32 (H, W, C) pictures, one for each name, and ``grid.png`` of the first of them.

    Without an extension (png, webp, jpg) there are no files of single pictures. ``npy`` adds
    ``samples.npy``, float32 (B, H, W, C), before clipping. ``columns`` are the grid's, which is
    nearly square without.
    """
    first = next(pictures)
    in_grid = max(1, GRID_PIXELS // (first.shape[0] * first.shape[1]))
    of_grid = []
    with contextlib.ExitStack() as stack:
        if npy:
            shape = (len(names), *first.shape)
            array = stack.enter_context(_npy(folder / "samples.npy", shape))
        every = zip(names, itertools.chain([first], pictures), strict=True)
        for name, picture in tqdm(every, total=len(names), unit="pictures", disable=None):
            if npy:
                array.write(picture.astype("<f4").tobytes())
            rounded = sampling.to_uint8(picture)
            if extension:
                sampling.save_picture(folder / f"{name}.{extension}", rounded)
            if len(of_grid) < in_grid:
                of_grid.append(rounded)
    columns = columns or sampling.square_columns(len(of_grid))
    sampling.save_picture(folder / "grid.png", sampling.grid(np.stack(of_grid), columns))


@contextlib.contextmanager
def _npy(path: pathlib.Path, shape: tuple[int, ...]) -> Iterator:
    """A file that becomes a float32 array of this shape. (A mapped one dies of a full disk.)"""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
    part.replace(path)


def write_video(path: pathlib.Path, frames: Iterator[np.ndarray], fps: int) -> None:
    """Writes uint8 (H, W, C) frames as they come, whole or not at all, as .mp4 (H.264), .webp or .gif.

    Height and width are even. rgba lies over white.

    Raises:
      OSError: ffmpeg cannot write it.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    first = next(frames)
    height, width, _ = first.shape
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    part = path.with_name(path.name + ".part")
    command = [
        get_ffmpeg_exe(),
        *"-y -v error".split(),
        *raw.split(),
        *_VIDEOS[path.suffix].split(),
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*command, part], stdin=subprocess.PIPE, stderr=said)
        # Where ffmpeg has ended early, the pipe is broken, and its exit status and words tell why.
        try:
            with contextlib.suppress(BrokenPipeError):
                for frame in itertools.chain([first], frames):
                    process.stdin.write(to_rgb(frame, "white").tobytes())
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        if process.returncode:
            said.seek(0)
            raise OSError(f"ffmpeg: {said.read().decode(errors='replace').strip()}")
    part.replace(path)
