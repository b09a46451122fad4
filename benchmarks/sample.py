"""Memory and speed of lwgan.sample, by how many images it draws.

    python benchmarks/sample.py --workdir=runs/quickstart

Prints the peak resident memory of the whole process for each number of images, and whether the
images that two numbers share are the same files, byte for byte.
"""

import filecmp
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import jax
from absl import app, flags

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.", required=True)
_COUNTS = flags.DEFINE_list("counts", ["100", "1000", "10000"], "Images.")


def main(argv: list[str]) -> None:
    """Draws with each number."""
    del argv
    counts = [int(count) for count in _COUNTS.value]
    print(f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as place:
        folders = []
        for count in counts:
            folder = pathlib.Path(place, str(count))
            started = time.perf_counter()
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "lwgan.sample", f"--workdir={_WORKDIR.value}"),
                    *(f"--num_images={count}", f"--out={folder}", "--save_npy"),
                ],
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            print(
                f"{count:6} images: {time.perf_counter() - started:6.1f} s, "
                f"{usage.ru_maxrss / 1024:.0f} MiB at the peak"
            )
            folders.append(folder)
        shared = [f"{number:05d}.png" for number in range(min(counts))]
        for folder in folders[1:]:
            same, *_ = filecmp.cmpfiles(folders[0], folder, shared, shallow=False)
            print(f"{len(same)} of {len(shared)} files of {folders[0].name} are in {folder.name}")


if __name__ == "__main__":
    app.run(main)
