"""Seconds from the command to the first step and to the first images, cold and warm.

    python benchmarks/startup.py

``main.py --config=configs/quickstart.py`` until its first step is logged, then ``lwgan.sample`` of
16 images, each twice: with an empty cache and with what the first time has left there.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import app

ROOT = pathlib.Path(__file__).parents[1]


def seconds_until(words: str, command: list[str]) -> float:
    """Until the command says something, or until its end if it never does."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = None
    for line in process.stdout:
        if seconds is None and words and words in line:
            seconds = time.perf_counter() - began
    if process.wait():
        sys.exit(f"{command} ended with {process.returncode}")
    return seconds or time.perf_counter() - began


def main(argv: list[str]) -> None:
    """Prints a table."""
    del argv
    print("| | cold | warm |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"

        def train(turn: int) -> float:
            command = ["main.py", "--config=configs/quickstart.py", f"--workdir={folder}/run{turn}"]
            few = {"train.num_steps": 2, "train.log_every": 1, "sample.every": 0, "eval.every": 0}
            changes = [f"--config.{name}={value}" for name, value in few.items()]
            return seconds_until("step 1 ", [*command, *changes, "--config.track.aim=False"])

        def sample(turn: int) -> float:
            command = ["-m", "lwgan.sample", f"--workdir={folder}/run0", "--num_images=16"]
            return seconds_until("", [*command, f"--out={folder}/images{turn}"])

        for what, act in (("the first step of the quickstart", train), ("16 images", sample)):
            print(f"| to {what} | {act(0):.1f} s | {act(1):.1f} s |", flush=True)


if __name__ == "__main__":
    app.run(main)
