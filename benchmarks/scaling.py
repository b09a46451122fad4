"""Weak scaling over processes of this machine, and what a step sends from device to device.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --processes=

Seconds of a step of ``configs/quickstart.py`` with eight images a process, for 1, 2 and 4 processes
in turn; on one machine they share its cores. Then the sums over devices in the step of
``configs/ffhq.py``, read from the program before it is compiled, and how long they take in a ring.
"""

import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_PROCESSES = flags.DEFINE_list("processes", ["1", "2", "4"], "How many, in turn.")

# Of a chip or card, as published: TFLOP/s in bfloat16, GB/s to the next in a ring of 8, and of
# 64 (a slice of a pod; machines with a network card for each GPU).
KINDS = {"TPU v5e": (197, 100, 100), "H100": (989, 450, 50)}
# Of the published rate, what a step is taken to reach.
REACHED = 0.3
# TFLOP of the step with the penalty per image, by size: see the table of TPUs in docs/speed.md.
TFLOP = {256: 0.243, 1024: 0.263}
IMAGES_EACH = 6


def seconds_of_a_step(processes: int, folder: str) -> float:
    """The median over logged steps, of process 0."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{opened.getsockname()[1]}"
    settings = {
        "train.batch_size": 8 * processes,
        "train.num_steps": 40,
        "train.log_every": 10,
        "sample.every": 0,
        "eval.every": 0,
        "track.aim": False,
    }
    several = [f"--coordinator={address}", f"--num_processes={processes}"]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "main.py",
                "--config=configs/quickstart.py",
                f"--workdir={folder}/run{processes}",
                *(f"--config.{name}={value}" for name, value in settings.items()),
                *([*several, f"--process_id={index}"] if processes > 1 else []),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for index in range(processes)
    ]
    if any([process.wait() for process in started]):
        sys.exit(f"{processes} processes did not end well")
    lines = pathlib.Path(folder, f"run{processes}", "metrics.jsonl").read_text().splitlines()
    rates = [line["steps_per_sec"] for line in map(json.loads, lines) if "steps_per_sec" in line]
    # The first ones are of compiling.
    return 1 / statistics.median(rates[1:])


def summed_bytes(size: int) -> int:
    """Bytes that the step with the penalty sums over devices, of a device."""
    import jax
    import numpy as np

    from configs import ffhq
    from lwgan.training.compiling import lower
    from lwgan.training.recipes import recipe_of
    from lwgan.training.state import build_gan
    from lwgan.training.step import make_update

    config = ffhq.get_config(str(size))
    config.train.precision, config.train.grad_accum = "bfloat16", 1
    config.train.batch_size = IMAGES_EACH * jax.device_count()
    gan = build_gan(config)
    update = make_update(gan, recipe_of(config, num_images=1000))
    text = lower(update.penalized, gan, config).as_text()
    total = 0
    for _, body in re.findall(
        r'"stablehlo\.(all_reduce|all_gather)"(.*?)-> \(?(?:tensor)', text, re.S
    ):
        types = body[body.rindex("}) : (") if "}) : (" in body else body.rindex(" : (") :]
        for shape in re.findall(r"tensor<([^>]*)>", types):
            *sides, kind = shape.split("x")
            total += int(np.prod([int(side) for side in sides])) * (2 if kind == "bf16" else 4)
    return total


def main(argv: list[str]) -> None:
    """Prints the tables."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        counts = [int(count) for count in _PROCESSES.value if count]
        if counts:
            print("| processes | seconds a step | images a second |\n|---|---|---|")
        for count in counts:
            seconds = seconds_of_a_step(count, folder)
            print(f"| {count} | {seconds:.2f} | {8 * count / seconds:.1f} |", flush=True)
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    heads = [f"{name}, {count}" for name in KINDS for count in (8, 64)]
    print(f"\n| px | MB summed | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}")
    for size, tflop in TFLOP.items():
        summed, cells = summed_bytes(size), []
        for rate, near, far in KINDS.values():
            computing = IMAGES_EACH * tflop / rate / REACHED
            for count, speed in ((8, near), (64, far)):
                sending = 2 * (count - 1) / count * summed / speed / 1e9
                cells.append(f"{sending * 1000:.1f} of {computing * 1000:.0f} ms")
        print(f"| {size} | {summed / 1e6:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
