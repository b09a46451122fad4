"""Kills a real training process at random moments, many times, and compares with a quiet run.

    python -m tests.kill_training --kills=20
    python -m tests.kill_training --kills=20 --signal=SIGTERM

A third of the kills and more come while a checkpoint is being written. In the end every array of
the state and every logged series must be those of a run that nobody disturbed, bit for bit.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lwgan import cli
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import read_run
from lwgan.training.state import build_gan, init_state
from tests.house import ROOT

STEPS_PER_LIFE = 8
# What the clock decides.
CLOCK = {"steps_per_sec", "uptime", "data/wait_share"}


class Outcome(NamedTuple):
    """What was survived, and how much was compared."""

    kills: int
    during_a_save: int
    bytes_compared: int
    lines_compared: int


def start(
    workdir: pathlib.Path,
    num_steps: int,
    *flags: str,
    program: Sequence[str] = ("main.py",),
    cache: pathlib.Path | None = None,
    fills_cache: bool = False,
) -> subprocess.Popen:
    """A tiny training run in a process of its own; ``cache`` keeps compiled programs."""
    environment = dict(os.environ)
    # A process that is killed must not write to it: half a program crashes whoever reads it.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        least_seconds = 0.5 if fills_cache else 1e9
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(least_seconds)
    settings = {
        "data.image_size": 32,
        "model.latent_dim": 8,
        "model.fmap_max": 8,
        "model.recon_size": 16,
        "model.side_channels": 4,
        "model.fmap_inverse_coef": 12,
        "train.batch_size": 4,
        "train.num_steps": num_steps,
        "train.log_every": 1,
        "checkpoint.every": 2,
        "checkpoint.keep_last": 1,
        "sample.every": 0,
        "eval.every": 0,
    }
    return subprocess.Popen(
        [
            sys.executable,
            *program,
            "--config=configs/quickstart.py",
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in settings.items()),
            *flags,
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    """Waits for a process that must end well."""
    _, errors = process.communicate(timeout=900)
    if process.returncode:
        raise RuntimeError(errors)


def saving(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(
        not (path / manifest.MANIFEST).exists() for path in (workdir / "checkpoints").glob("[0-9]*")
    )


def kill(
    process: subprocess.Popen,
    workdir: pathlib.Path,
    step: int,
    rng: random.Random,
    number: signal.Signals,
) -> bool:
    """Kills after a step that it has logged, at once, or within its next save: whether
    it was one.
    """
    in_a_save = rng.random() < 0.6
    while _last_step(workdir) < step or (in_a_save and not saving(workdir)):
        if process.poll() is not None:
            raise RuntimeError(process.stderr.read())
        time.sleep(0.001)
    time.sleep(rng.random() * (0.02 if in_a_save else 0.2))
    was_saving = saving(workdir)
    process.send_signal(number)
    _, errors = process.communicate(timeout=900)
    if number == signal.SIGKILL:
        return saving(workdir)
    assert process.returncode == cli.INTERRUPTED, errors
    saved = max(manifest.saved_steps(workdir))
    last_line = f"interrupted: saved at step {saved}; the same command continues"
    assert errors.splitlines()[-1] == last_line and not saving(workdir), errors
    return was_saving


def _last_step(workdir: pathlib.Path) -> int:
    try:
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0


def series(workdir: pathlib.Path) -> list[dict]:
    """The logged scalars that the clock does not decide."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if not CLOCK & line.keys() and "train/recoveries" not in line]


def aim_series(workdir: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """The same as Aim has it; empty without Aim."""
    aim_run = read_run(workdir).info.aim_run
    if aim_run is None:
        return {}
    import aim
    from aim.sdk.index_manager import RepoIndexManager

    repo = aim.Repo(str(workdir.parent))
    RepoIndexManager.get_index_manager(repo).index(aim_run)
    # Else it reads what it had before the index.
    repo.container_pool.clear()
    found = {}
    for metric in aim.Run(aim_run, repo=repo, read_only=True).metrics():
        steps, (values, *_) = metric.data.numpy()
        if metric.name not in CLOCK | {"train/recoveries"}:
            found[metric.name] = list(zip(steps.tolist(), values.tolist(), strict=True))
    return found


def compare(quiet: pathlib.Path, disturbed: pathlib.Path) -> tuple[int, int]:
    """Bytes and lines that are the same; raises if any are not."""
    config = read_run(quiet).config
    like = jax.eval_shape(lambda: init_state(build_gan(config), 0))
    step = manifest.resolve_step(quiet, None)
    assert step == manifest.resolve_step(disturbed, None) == config.train.num_steps
    ours, theirs = (jax.tree.leaves(checkpoint.restore(w, step, like)) for w in (disturbed, quiet))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert series(disturbed) == series(quiet)
    assert aim_series(disturbed) == aim_series(quiet)
    return sum(np.asarray(leaf).nbytes for leaf in ours), len(series(quiet))


def survive(
    folder: pathlib.Path, kills: int, seed: int, number: signal.Signals = signal.SIGKILL
) -> Outcome:
    """Trains twice, undisturbed and killed so many times, and compares."""
    rng, num_steps = random.Random(seed), STEPS_PER_LIFE * (kills + 1)
    quiet, disturbed = folder / "quiet" / "run", folder / "disturbed" / "run"
    cache = folder / "cache"
    finish(start(quiet, num_steps, cache=cache, fills_cache=True))
    during_a_save = 0
    for done in range(kills):
        step = done * STEPS_PER_LIFE + rng.randrange(1, STEPS_PER_LIFE)
        during_a_save += kill(
            start(disturbed, num_steps, cache=cache), disturbed, step, rng, number
        )
        print(f"kill {done + 1} of {kills}, {during_a_save} of them during a save", flush=True)
    finish(start(disturbed, num_steps, cache=cache))
    leftovers = [path.name for path in (disturbed / "checkpoints").iterdir()]
    assert leftovers == [str(num_steps)], leftovers
    return Outcome(kills, during_a_save, *compare(quiet, disturbed))


def main() -> None:
    """Prints what was survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM", "SIGINT"])
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        number = signal.Signals[arguments.signal]
        print(survive(pathlib.Path(folder), arguments.kills, arguments.seed, number))


if __name__ == "__main__":
    main()
