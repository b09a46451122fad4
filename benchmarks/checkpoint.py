"""How long saving a checkpoint holds up training: a share of a step, and of the run at its
interval.

    python benchmarks/checkpoint.py

Training waits while the state is checked and copied; the rest is written by a thread of its own,
whose seconds are shown beside.
"""

import importlib
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_TIMES = flags.DEFINE_integer("times", 5, "Times that each thing is timed.", lower_bound=1)

SETTINGS = {"quickstart": {}, "ffhq": {"data.image_size": 64, "train.batch_size": 8}}


def measure(name: str, changes: dict[str, int], folder: pathlib.Path) -> None:
    """Prints a line for the settings of ``configs/<name>.py`` with some changes."""
    import jax
    import numpy as np

    from lwgan.runs import checkpoint
    from lwgan.training.actions import require_finite
    from lwgan.training.recipes import layout_of, recipe_of
    from lwgan.training.state import build_gan, first_state, on_devices
    from lwgan.training.step import make_update

    config = importlib.import_module(f"configs.{name}").get_config()
    config.train.grad_accum = 1
    config.update_from_flattened_dict(changes)
    gan = build_gan(config)
    current = on_devices(first_state(gan, 0))
    update = make_update(gan, recipe_of(config, num_images=1000))
    side = config.data.image_size
    images = np.zeros((*layout_of(config).positions(0).shape, side, side, 3), np.uint8)
    current, metrics = update(2, current, images)
    metrics = {term: float(value) for term, value in metrics.items()}
    # Compiles.
    require_finite(current, metrics)

    steps, waits, writes = [], [], []
    for _ in range(_TIMES.value):
        since = time.perf_counter()
        current, _ = jax.block_until_ready(update(2, current, images))
        steps.append(time.perf_counter() - since)
        with checkpoint.Saver(folder, config.checkpoint) as saver:
            since = time.perf_counter()
            require_finite(current, metrics)
            saver.save(current, metrics, config)
            waits.append(time.perf_counter() - since)
        writes.append(time.perf_counter() - since)
    a_step, wait, write = map(statistics.median, (steps, waits, writes))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(current))
    every = config.checkpoint.every
    print(
        f"{name}, {side} px: state {size / 2**20:,.0f} MiB; a step {a_step:.3f} s; "
        f"a save holds it up for {wait:.4f} s, {wait / a_step:.1%} of a step, "
        f"{wait / (every * a_step):.4%} of a run that saves every {every} steps; "
        f"written after {write:.2f} s",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """Prints a line for each setting."""
    del argv
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    for name, changes in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            measure(name, changes, pathlib.Path(folder))


if __name__ == "__main__":
    app.run(main)
