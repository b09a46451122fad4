"""Seconds per training step, pictures per second and peak memory, each setting in a process of its own.

    python benchmarks/train_step.py                  # the quickstart, and the full width at 64 px
    python benchmarks/train_step.py --steps=8

The gradient penalty comes in one step of ``loss.gp_every``: the figures are means over that cycle, of
the medians of both kinds of step. Compiling is shown apart.
"""

import multiprocessing
import pathlib
import platform
import resource
import statistics
import sys
import time

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_STEPS = flags.DEFINE_integer("steps", 8, "Steps of each kind that are timed.")


def settings() -> dict:
    """What is measured, by name."""
    from configs import default, quickstart

    full = default.get_config()
    full.data.image_size = 64
    full.train.batch_size, full.train.grad_accum = 8, 1
    return {
        "quickstart, 64 px, batch 16": quickstart.get_config(),
        "full width, 64 px, batch 8": full,
    }


def measure(name: str, steps: int) -> None:
    """Prints one row."""
    import jax
    import numpy as np

    from lwgan.state import build, init_state, on_devices
    from lwgan.step import make_update
    from lwgan.train import layout, recipe

    config = settings()[name]
    gan = build(config)
    state = on_devices(jax.jit(lambda: init_state(gan, 0))())
    update = make_update(gan, recipe(config, num_pictures=1000))
    size = config.data.image_size
    shape = (*layout(config).positions(0).shape, size, size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    seconds = {}
    every = config.loss.gp_every
    for kind, number in (("penalized", 1), ("plain", 2)):
        times = []
        for _ in range(1 + steps):
            start = time.perf_counter()
            state, metrics = update(number, state, images)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - start)
        seconds[kind], seconds[f"{kind} compiling"] = statistics.median(times[1:]), times[0]
    mean = (seconds["penalized"] + (every - 1) * seconds["plain"]) / every
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:28} {mean:7.3f} s/step ({seconds['plain']:.3f} plain, {seconds['penalized']:.3f} with "
        f"penalty)  {config.train.batch_size / mean:6.1f} pictures/s  {peak:5.2f} GiB peak  "
        f"{seconds['plain compiling']:.0f} + {seconds['penalized compiling']:.0f} s compiling",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """Measures every setting in turn."""
    del argv
    import importlib.metadata as metadata

    print(
        f"{platform.machine()}, {multiprocessing.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"jax {metadata.version('jax')}"
    )
    context = multiprocessing.get_context("spawn")
    for name in settings():
        process = context.Process(target=measure, args=(name, _STEPS.value))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    app.run(main)
