"""Frames to a video as they come."""

import contextlib
import itertools
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np

from lwgan.data.decode import to_rgb
from lwgan.runs.files import replacing

# What ffmpeg is told for each kind of video. A GIF has a palette for each frame: one for all of
# them would have to wait for the last.
_VIDEOS = {
    ".mp4": "-f mp4 -c:v libx264 -crf 17 -pix_fmt yuv420p -movflags +faststart",
    ".webp": "-f webp -c:v libwebp_anim -quality 90 -loop 0",
    ".gif": "-f gif -c:v gif -loop 0 -vf "
    "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1",
}


def write_video(path: pathlib.Path, frames: Iterator[np.ndarray], fps: int) -> None:
    """Writes uint8 (H, W, C) frames as they come, as .mp4 (H.264), .webp or .gif.

    The file is whole or absent. Height and width are even. rgba lies over white.

    Raises:
      OSError: ffmpeg cannot write it.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    first = next(frames)
    height, width, _ = first.shape
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    options = f"-y -v error {raw} {_VIDEOS[path.suffix]}".split()
    with replacing(path) as part, tempfile.TemporaryFile() as said:
        # Else what comes before a colon would be a protocol, and a dash an option.
        command = [get_ffmpeg_exe(), *options, f"file:{part}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
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
