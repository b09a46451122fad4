"""How good a generator's samples are beside the pictures of its run, by the run's ``eval`` settings."""

import fcntl
import itertools
import json
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lwgan import data
from lwgan.errors import UserError
from lwgan.losses import LOSSES
from lwgan.metrics import measure
from lwgan.metrics.features import Features, open_features
from lwgan.metrics.scores import realness
from lwgan.models.discriminator import Discriminator
from lwgan.pictures import Pictures, to_rgb
from lwgan.run import write_text
from lwgan.sampling import Sampler
from lwgan.state import Params

Record = dict[str, Any]  # what was measured, how, and the figures

FILE = "metrics.json"  # in the run: a list of records
CHOOSING = ("kid", "fid")  # lower is better
SCORED = 512  # pictures of each kind that the discriminator is asked about
# What makes one record another, and not a newer measurement of the same.
IDENTITY = (
    "step", "data", "features", "weights", "resize", "background", "num_images", "num_reals",
    "num_held_out", "seed",
)  # fmt: skip


class Reals(NamedTuple):
    """The pictures of a run, and what a network sees in them."""

    pictures: Pictures
    fingerprint: str  # of the data set
    trained: np.ndarray  # indices of those that are looked at, of those that training sees
    held_out: np.ndarray  # of those that it does not see
    features: Features
    seen: measure.Seen  # of ``trained``
    unseen: measure.Seen | None  # of ``held_out``; None if too few are held out

    def mirrored(self, config: ConfigDict) -> measure.Seen:
        """What the network sees in the mirror images of ``trained``."""
        return _see(
            config, self.pictures, self.fingerprint, self.features, self.trained, mirrored=True
        )


def see_reals(config: ConfigDict, pictures: Pictures, fingerprint: str) -> Reals:
    """Looks at the pictures of a run, at most ``eval.num_images`` of each kind; ``fingerprint`` is theirs.

    Raises:
      UserError: the network's weights cannot be had, or there are too few pictures.
    """
    count = len(pictures.names)
    most = config.eval.num_images
    parts = data.split(count, config.data.holdout, config.train.seed)
    trained, held_out = (part[measure.choose(len(part), most)] for part in parts)
    require_enough("data", len(trained))
    features = open_features(config.eval.features, config.eval.weights, config.eval.resize)
    seen = _see(config, pictures, fingerprint, features, trained)
    unseen = None
    if len(held_out) >= measure.FEWEST:
        unseen = _see(config, pictures, fingerprint, features, held_out)
    return Reals(pictures, fingerprint, trained, held_out, features, seen, unseen)


def _see(
    config: ConfigDict,
    pictures: Pictures,
    fingerprint: str,
    features: Features,
    indices: np.ndarray,
    *,
    mirrored: bool = False,
) -> measure.Seen:
    return measure.see_reals(
        features, pictures, fingerprint, config.data, indices, config.eval.background,
        mirrored=mirrored,
    )  # fmt: skip


def see_samples(
    config: ConfigDict, sampler: Sampler, features: Features, seed: int, batch_size: int, title: str
) -> measure.Seen:
    """Looks at the first ``eval.num_images`` pictures of a seed."""
    count = config.eval.num_images
    drawn = sampler.samples(seed, count, batch_size)

    def batches() -> Iterator[np.ndarray]:
        while batch := list(itertools.islice(drawn, features.batch_size)):
            yield to_rgb(np.stack(batch), config.eval.background)

    return measure.see(features, batches(), count, title)


def record(
    config: ConfigDict,
    reals: Reals,
    samples: measure.Seen,
    step: int,
    seed: int,
    discriminator: Discriminator,
    d_params: Params,
) -> Record:
    """The figures of samples, beside the pictures learnt from and those held out, and how they came about.

    Where pictures are held out, the discriminator's scores of both kinds are among them: where those
    learnt from score higher, it knows them by heart.
    """
    figures = measure.measure(samples, reals.seen, config.eval.metrics)
    if reals.unseen:
        others = measure.measure(samples, reals.unseen, config.eval.metrics)
        figures |= {f"{name}_held_out": value for name, value in others.items()}
        for name, indices in {"trained": reals.trained, "held_out": reals.held_out}.items():
            scores = realness(
                discriminator, d_params, LOSSES[config.loss.kind],
                _batches(reals.pictures, indices[:SCORED], config.train.batch_size),
            )  # fmt: skip
            figures[f"realness_{name}"] = float(scores.mean())
    return {"step": step, **_identity(config, reals, seed), **figures}


def _batches(pictures: Pictures, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(indices), size):
        yield np.stack([pictures.centre(index) for index in indices[first : first + size]])


def _identity(config: ConfigDict, reals: Reals, seed: int) -> Record:
    return {
        "data": reals.fingerprint[:16],
        "features": reals.features.name,
        "weights": reals.features.fingerprint[:16],
        "resize": reals.features.resize,
        "background": config.eval.background,
        "num_images": config.eval.num_images,
        "num_reals": len(reals.trained),
        "num_held_out": len(reals.held_out) if reals.unseen else 0,
        "seed": seed,
    }


def figures(found: Record) -> dict[str, float]:
    """The figures of a record alone, named for the trackers: ``efficientnet_lite0/kid``."""
    return {
        f"{found['features']}/{name}": value
        for name, value in found.items()
        if name not in IDENTITY
    }


def read(workdir: pathlib.Path) -> list[Record]:
    """The records of a run, by step.

    Raises:
      UserError: the file is not what lwgan writes.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text())
        return sorted(records, key=lambda found: found["step"])
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(
            "--workdir", str(path), f"cannot be read ({error})", "move it aside"
        ) from None


def merge(workdir: pathlib.Path, records: list[Record]) -> None:
    """Adds records to those of a run; one measured in the same way is brought up to date."""
    merged: dict[tuple, Record] = {}
    with (workdir / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a trainer and lwgan.evaluate may both be at it
        for found in [*read(workdir), *records]:
            identity = tuple(found.get(name) for name in IDENTITY)
            merged[identity] = merged.get(identity, {}) | found
        ordered = sorted(merged.values(), key=lambda found: found["step"])
        write_text(workdir / FILE, json.dumps(ordered, indent=1) + "\n")


def best(workdir: pathlib.Path, metrics: Sequence[str], steps: Collection[int]) -> int | None:
    """Which of these steps has the best samples, by the first of ``metrics`` that is kid or fid.

    What was measured like the newest of them is compared; None if nothing was.
    """
    metric = next((name for name in metrics if name in CHOOSING), None)
    measured = [found for found in read(workdir) if found["step"] in steps and metric in found]

    def way(found: Record) -> list[Any]:
        return [found.get(name) for name in IDENTITY if name != "step"]

    alike = [found for found in measured if way(found) == way(measured[-1])]
    return min((found[metric], found["step"]) for found in alike)[1] if alike else None


def require_enough(what: str, count: int) -> None:
    """Refuses fewer pictures than figures can be made of.

    Raises:
      UserError: they are too few.
    """
    if count < measure.FEWEST:
        raise UserError(
            what, f"{count} pictures", f"at least {measure.FEWEST} are needed", "add some"
        )
