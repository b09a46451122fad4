"""Random damages to the files of a run, each followed by ``sample``, ``evaluate`` and a start.

    python -m tests.fuzz_files --count=200 --seed=0
    python -m tests.fuzz_files --count=200 --seed=0 --only=57

Each command must end well, or in one line with exit code 2. No damage may change what is drawn or
trained, nor cost a checkpoint that was whole.
"""

import argparse
import collections
import io
import itertools
import os
import pathlib
import random
import re
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from lwgan import cli
from lwgan.errors import UserError
from lwgan.metrics import evaluator
from lwgan.runs import checkpoint, log
from lwgan.runs.directory import read_run
from lwgan.settings.files import to_json
from lwgan.training.loop import train
from lwgan.training.state import build_gan, init_state
from tests import sharing, tiny
from tests.calling import Ended, call
from tests.metrics.test_evaluator import Means

STEPS = (2, 4)
NUM_STEPS = STEPS[-1] + 1
# How many of the damages are to a group of files; the others are to each once.
SHARES = {"config.json": 4, "run.json": 3, "metrics.json": 2, "metrics.jsonl": 2}

KINDS = ("cut", "flipped", "emptied", "removed", "directory", "unreadable")


class Damage(NamedTuple):
    """What happens to a file of a run."""

    kind: str
    # Its path in the run.
    file: str
    # Where in the file, from 0 to 1, and the bit there.
    place: float = 0.5
    bit: int = 0

    def happen(self, workdir: pathlib.Path) -> None:
        """Damages the file."""
        path = workdir / self.file
        content = bytearray(path.read_bytes())
        place = int(self.place * len(content))
        path.unlink()
        if self.kind == "cut":
            path.write_bytes(content[:place])
        elif self.kind == "flipped":
            if content:
                content[place] ^= 1 << self.bit
            path.write_bytes(content)
        elif self.kind == "emptied":
            path.touch()
        elif self.kind == "directory":
            path.mkdir()
        elif self.kind == "unreadable":
            _make_unreadable(path, content)


def _make_unreadable(path: pathlib.Path, content: bytes) -> None:
    """A file that is there and cannot be opened."""
    if os.geteuid():
        path.write_bytes(content)
        path.chmod(0)
    else:
        # Root may read every file, but not open a socket.
        os.mknod(path, stat.S_IFSOCK | 0o600)


def draw_damages(workdir: pathlib.Path, rng: random.Random) -> Iterator[Damage]:
    """Random damages to a run, without end; small files get their share."""
    groups = collections.defaultdict(list)
    for path in sorted(workdir.rglob("*")):
        if path.is_file():
            parts = path.relative_to(workdir).parts
            groups["/".join(parts[::2] if len(parts) > 2 else parts[:1])].append("/".join(parts))
    groups = dict(groups)
    weights = [SHARES.get(group, 1) for group in groups]
    while True:
        (files,) = rng.choices(list(groups.values()), weights)
        yield Damage(rng.choice(KINDS), rng.choice(files), rng.random(), rng.randrange(8))


class Undamaged(NamedTuple):
    """A run, and what comes of it."""

    workdir: pathlib.Path
    settings: str
    # What ``sample`` draws of each checkpoint.
    grids: list[bytes]
    # Every array, when it has been continued.
    state: list[bytes]


def make_undamaged(folder: pathlib.Path) -> Undamaged:
    """Trains a run, samples its checkpoints, and continues a copy."""
    workdir, continued = folder / "undamaged", folder / "continued"
    config = tiny.config(
        data__holdout=0.25,
        checkpoint__every=2,
        checkpoint__keep_last=99,
        sample__every=2,
        train__log_every=1,
        eval__every=2,
        eval__num_images=8,
        eval__features="efficientnet_lite0",
    )
    train(config, workdir)
    outs = [folder / f"samples of {step}" for step in STEPS]
    for step, out in zip(STEPS, outs, strict=True):
        require(sample(workdir, out, step))
    require(run("lwgan.evaluate", workdir))
    shutil.copytree(workdir, continued)
    require(start(continued))
    grids = [(out / "grid.png").read_bytes() for out in outs]
    return Undamaged(workdir, settings_of(workdir), grids, state_of(continued))


def require(ended: Ended) -> None:
    """Raises unless a command has ended well."""
    if ended.returncode:
        raise RuntimeError(ended.stderr)


def run(name: str, workdir: pathlib.Path, *arguments: object) -> Ended:
    """How a command ends; with a traceback it is code 1, as in a process of its own."""
    try:
        return call(name, f"--workdir={workdir}", *arguments)
    except Exception:
        return Ended(1, "", traceback.format_exc())


def sample(workdir: pathlib.Path, out: pathlib.Path, step: object = "latest") -> Ended:
    """Draws a few images of a checkpoint."""
    return run("lwgan.sample", workdir, f"--out={out}", f"--step={step}", "--num_images=4")


def start(workdir: pathlib.Path) -> Ended:
    """Goes on for a step."""
    return run("main", workdir, f"--config.train.num_steps={NUM_STEPS}")


def settings_of(workdir: pathlib.Path) -> str:
    """The settings of a run; empty if it cannot be read."""
    try:
        return to_json(read_run(workdir).config)
    except UserError:
        return ""


def state_of(workdir: pathlib.Path) -> list[bytes]:
    """Every array of the last checkpoint."""
    networks = build_gan(read_run(workdir).config)
    like = jax.eval_shape(lambda: init_state(networks, 0))
    state = checkpoint.restore(workdir, NUM_STEPS, like)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a directory that can be read."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and os.access(path, os.R_OK)
    }


class Survived(NamedTuple):
    """What came of a damage."""

    # How each command ended.
    ends: dict[str, Ended]
    # Whether it was to the settings, which are possible all the same.
    resettled: bool
    # What should not have happened.
    violations: list[str]


def survive(whole: Undamaged, damage: Damage, folder: pathlib.Path) -> Survived:
    """Damages a copy of the run, and tries all three commands on it."""
    workdir, out = folder / "run", folder / "out"
    shutil.copytree(whole.workdir, workdir)
    damage.happen(workdir)
    settings = settings_of(workdir)
    ends = {"sample": sample(workdir, out), "evaluate": run("lwgan.evaluate", workdir)}
    before = contents(workdir)
    ends["start"] = start(workdir)
    violations = [f"{name}: {ended}" for name, ended in ends.items() if not is_good(ended)]
    violations += [f"{name} is lost" for name in lost(whole, damage, workdir)]
    trained, resettled = ends["start"].returncode == 0, settings not in ("", whole.settings)
    if not trained and contents(workdir) != before:
        violations.append("a start that was refused has changed the run")
    if trained and not resettled and state_of(workdir) != whole.state:
        violations.append("another state was trained")
    if (out / "grid.png").exists() and not resettled:
        if (out / "grid.png").read_bytes() not in whole.grids:
            violations.append("samples of no checkpoint were drawn")
    return Survived(ends, resettled, violations)


def is_good(ended: Ended) -> bool:
    """Whether a command ended well, or in one line."""
    if ended.returncode == 0:
        return not ended.stderr
    one_line = ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    return ended.returncode == cli.USER_ERROR and one_line


def lost(whole: Undamaged, damage: Damage, workdir: pathlib.Path) -> list[str]:
    """The files of checkpoints that are gone; those of a damaged one may be in ``damaged/``."""
    names, there = [], contents(workdir)
    for name, content in contents(whole.workdir / "checkpoints").items():
        hurt = damage.file.startswith(f"checkpoints/{name.partition('/')[0]}/")
        places = [f"checkpoints/{name}", *[f"damaged/{name}"] * hurt]
        if damage.file not in places and content not in map(there.get, places):
            names.append(name)
    return names


def first_words(ended: Ended) -> str:
    """How a command ended, without paths and numbers."""
    if ended.returncode == 0:
        return "ended well"
    line = ended.stderr.splitlines()[-1]
    return re.sub(r"'[^']*'|\d+", "…", line)[:110]


def main() -> None:
    """Prints what was survived, and what was not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="The number of one damage.")
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Compiling is what this costs.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    sharing.share_programs()
    log.start()
    # Only what the commands say otherwise is looked at.
    logging.get_absl_handler().python_handler.setStream(io.StringIO())
    evaluator.open_features = lambda name, weights, resize: Means()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        root = pathlib.Path(folder)
        whole = make_undamaged(root)
        drawn = draw_damages(whole.workdir, random.Random(arguments.seed))
        damages = dict(enumerate(itertools.islice(drawn, arguments.count)))
        if arguments.only is not None:
            damages = {arguments.only: damages[arguments.only]}
        report(whole, damages, root)


def report(whole: Undamaged, damages: Mapping[int, Damage], root: pathlib.Path) -> None:
    """Prints what comes of each damage, and how often each end was."""
    tally, violations = collections.Counter(), 0
    for number, damage in damages.items():
        survived = survive(whole, damage, root / str(number))
        shutil.rmtree(root / str(number))
        print(number, damage, *survived.violations, sep="\n  ", flush=True)
        violations += bool(survived.violations)
        note = ", other settings" * survived.resettled
        for name, ended in survived.ends.items():
            tally[damage.kind, f"{name}{note}: {first_words(ended)}"] += 1
    for (kind, end), times in sorted(tally.items()):
        print(f"{kind:10} {times:4} × {end}")
    print(f"{len(damages) - violations} of {len(damages)} damages survived")
    sys.exit(violations > 0)


if __name__ == "__main__":
    main()
