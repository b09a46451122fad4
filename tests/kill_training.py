"""Kills a real training process at random moments, many times, and compares with a quiet run.

    python -m tests.kill_training --kills=20
    python -m tests.kill_training --kills=20 --signal=SIGTERM
    python -m tests.kill_training --kills=20 --during=evaluation
    python -m tests.kill_training --kills=60 --during=samples,evaluation,retention

A third of the kills and more come while a checkpoint is being written, or all of them during
samples, evaluation or retention. In the end every array of the state, every logged series, every
record of evaluation and every grid must be those of a run that nobody disturbed, bit for bit.
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
from lwgan.metrics.records import read_records
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import read_run
from lwgan.training.state import build_gan, init_state
from tests.house import ROOT

STEPS_PER_LIFE = 8
# As in tests.watched_training.
MOMENTS = ("samples", "evaluation", "retention")
SETTINGS = {
    "data.image_size": 32,
    "model.latent_dim": 8,
    "model.fmap_max": 8,
    "model.recon_size": 16,
    "model.side_channels": 4,
    "model.fmap_inverse_coef": 12,
    # A small program, for each life has to trace and to read it.
    "loss.gp_weight": 0.0,
    "loss.aux_weight": 0.0,
    "train.batch_size": 4,
    "train.log_every": 1,
    "checkpoint.every": 2,
    "checkpoint.keep_last": 1,
    "sample.every": 0,
    "eval.every": 0,
}
# What else there is to be disturbed: evaluation where a checkpoint is due anyway, and elsewhere.
BUSY = {"sample__every": 2, "sample__grid": "(2,2)", "eval__every": 3, "eval__num_images": 9}
# What the clock decides.
CLOCK = {"steps_per_sec", "uptime", "data/wait_share"}


class Outcome(NamedTuple):
    """What was survived, and how much was compared."""

    kills: int
    # Of a save, or what they were to disturb.
    in_the_midst: int
    bytes_compared: int
    lines_compared: int


def start(
    workdir: pathlib.Path,
    num_steps: int,
    *flags: str,
    program: Sequence[str] = ("main.py",),
    cache: pathlib.Path | None = None,
    fills_cache: bool = False,
    **overrides: object,
) -> subprocess.Popen:
    """A tiny training run in a process of its own; ``cache`` keeps compiled programs.

    Overrides of settings are full names with __ for the dot.
    """
    environment = dict(os.environ)
    # A process that is killed must not write to it: half a program crashes whoever reads it.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        least_seconds = 0.5 if fills_cache else 1e9
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(least_seconds)
    settings = SETTINGS | {name.replace("__", "."): value for name, value in overrides.items()}
    settings["train.num_steps"] = num_steps
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
    *,
    file: pathlib.Path | None = None,
) -> bool:
    """Kills after a step that it has logged: whether it came in the midst of something.

    That is a save, in most cases; with a file all that goes on as long as the file is there.
    """
    wanted = file or rng.random() < 0.6

    def in_the_midst() -> bool:
        return file.exists() if file else saving(workdir)

    while _last_step(workdir) < step or (wanted and not in_the_midst()):
        if process.poll() is not None:
            raise RuntimeError(process.stderr.read())
        time.sleep(0.001)
    time.sleep(rng.random() * (0.1 if file else 0.02 if wanted else 0.2))
    was_in_the_midst = in_the_midst()
    process.send_signal(number)
    _, errors = process.communicate(timeout=900)
    if number == signal.SIGKILL:
        return in_the_midst()
    assert process.returncode == cli.INTERRUPTED, errors
    saved = max(manifest.saved_steps(workdir))
    last_line = f"interrupted: saved at step {saved}; the same command continues"
    assert errors.splitlines()[-1] == last_line and not saving(workdir), errors
    return was_in_the_midst


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
    assert read_records(disturbed) == read_records(quiet)
    assert manifest.saved_steps(disturbed) == manifest.saved_steps(quiet)
    grids, others = (
        {path.name: path.read_bytes() for path in workdir.glob("samples/*")}
        for workdir in (quiet, disturbed)
    )
    assert grids == others
    return sum(np.asarray(leaf).nbytes for leaf in ours), len(series(quiet))


def survive(
    folder: pathlib.Path,
    kills: int,
    seed: int,
    number: signal.Signals = signal.SIGKILL,
    during: Sequence[str] = (),
) -> Outcome:
    """Trains twice, undisturbed and killed so many times, and compares.

    Kills come ``during`` these in turn.
    """
    rng, num_steps = random.Random(seed), STEPS_PER_LIFE * (kills + 1)
    quiet, disturbed = folder / "quiet" / "run", folder / "disturbed" / "run"
    cache, options = folder / "cache", {}
    if during:
        options = {"program": ("-m", "tests.watched_training", str(folder)), **BUSY}
    finish(start(quiet, num_steps, cache=cache, fills_cache=True, **options))
    in_the_midst = 0
    for done in range(kills):
        step = done * STEPS_PER_LIFE + rng.randrange(1, STEPS_PER_LIFE)
        what = during[done % len(during)] if during else "a save"
        file = folder / what if during else None
        for left in MOMENTS:
            (folder / left).unlink(missing_ok=True)
        process = start(disturbed, num_steps, cache=cache, **options)
        in_the_midst += kill(process, disturbed, step, rng, number, file=file)
        print(
            f"kill {done + 1} of {kills} ({what}), {in_the_midst} of them in its midst", flush=True
        )
    finish(start(disturbed, num_steps, cache=cache, **options))
    leftovers = [
        path.name
        for path in disturbed.rglob("*")
        if any(word in path.name for word in (".part", ".deleted", "tmp"))
    ]
    assert not leftovers, leftovers
    assert aim_series(disturbed) == aim_series(quiet)
    return Outcome(kills, in_the_midst, *compare(quiet, disturbed))


def main() -> None:
    """Prints what was survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"]
    )
    parser.add_argument("--during", default="", help=f"of {', '.join(MOMENTS)}")
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        number = signal.Signals[arguments.signal]
        during = tuple(filter(None, arguments.during.split(",")))
        print(survive(pathlib.Path(folder), arguments.kills, arguments.seed, number, during))


if __name__ == "__main__":
    main()
