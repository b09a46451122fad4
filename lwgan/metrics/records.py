"""What a run remembers of its evaluations: ``metrics.json``, a list of records."""

import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

from lwgan.errors import UserError
from lwgan.runs.files import write_text
from lwgan.runs.locks import locked

# What was measured, how, and the figures.
Record = dict[str, Any]

FILE = "metrics.json"
# Lower is better.
CHOOSING = ("kid", "fid")
# How something was measured: only figures that agree in all of it can be compared.
WAY = (
    "generator",
    "data",
    "features",
    "weights",
    "resize",
    "background",
    "num_images",
    "mirrored",
    "num_reals",
    "num_held_out",
    "seed",
)
# What makes one record another, and not a newer measurement of the same.
IDENTITY = ("step", *WAY)


def figures_of(record: Record) -> dict[str, float]:
    """The figures of a record alone, named for the trackers: ``efficientnet_lite0/kid``.

    Those of the live generator are ``efficientnet_lite0/raw/kid``.
    """
    kind = "/raw" if record["generator"] == "raw" else ""
    return {
        f"{record['features']}{kind}/{name}": value
        for name, value in record.items()
        if name not in IDENTITY
    }


def read_records(workdir: pathlib.Path) -> list[Record]:
    """The records of a run, by step.

    Raises:
      UserError: the file is not what lwgan writes.
    """
    path = workdir / FILE
    try:
        said = json.loads(path.read_text("utf-8"))
        _require_records(said)
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            FILE,
            str(path),
            f"cannot be read ({reason})",
            "bring back a copy of it, or move it aside",
        ) from None
    # Earlier versions measured the EMA generator, beside no mirror images, and did not say so.
    before = {"generator": "ema", "mirrored": False}
    return sorted((before | each for each in said), key=lambda each: each["step"])


def _require_records(said: Any) -> None:
    """Raises ValueError for anything else than records."""
    if not isinstance(said, list):
        raise ValueError("this is no list of records")
    for number, record in enumerate(said, 1):
        if not isinstance(record, dict) or not isinstance(record.get("features"), str):
            raise ValueError(f"record {number} is none")
        for name in ("step", *CHOOSING):
            if not isinstance(record.get(name, 0), int | float):
                raise ValueError(f"record {number} has no number as its {name}")
        if any(isinstance(record.get(name), list | dict) for name in IDENTITY):
            raise ValueError(f"record {number} does not say how it was measured")
        if "step" not in record:
            raise ValueError(f"record {number} has no step")


def add_record(workdir: pathlib.Path, record: Record) -> None:
    """Adds a record to those of a run; one measured in the same way is brought up to date.

    Raises:
      UserError: see ``read_records``.
      OSError: the file cannot be written.
    """
    # A trainer and lwgan.evaluate may both be at it.
    with locked(workdir / f".{FILE}.lock"):
        by_identity: dict[tuple, Record] = {}
        for each in [*read_records(workdir), record]:
            identity = tuple(each.get(name) for name in IDENTITY)
            by_identity[identity] = by_identity.get(identity, {}) | each
        ordered = sorted(by_identity.values(), key=lambda each: each["step"])
        write_text(workdir / FILE, json.dumps(ordered, indent=1) + "\n")


def best_step(
    records: Sequence[Record], metrics: Sequence[str], steps: Collection[int], way: Record
) -> int | None:
    """Which of these steps has the best samples, by the first of ``metrics`` that is kid or fid.

    Only what was measured in this ``way`` is compared: names of ``WAY`` with their values. Where it
    leaves one open (the weights, if they cannot be had), the newest such record decides it. None if
    nothing was measured so.
    """
    alike = _measured(records, metrics, steps)
    alike = [each for each in alike if way.items() <= each.items()]
    alike = [each for each in alike if _way_of(each) == _way_of(alike[-1])]
    metric = _choosing(metrics)
    return min((each[metric], each["step"]) for each in alike)[1] if alike else None


def steps_to_keep(
    records: Sequence[Record], metrics: Sequence[str], steps: Collection[int], way: Record
) -> set[int]:
    """The best of these steps in this ``way``; where none was measured so, in each other way."""
    own = best_step(records, metrics, steps, way)
    if own is not None:
        return {own}
    others = [_way_of(each) for each in _measured(records, metrics, steps)]
    return {best_step(records, metrics, steps, other) for other in others}


def _choosing(metrics: Sequence[str]) -> str | None:
    return next((name for name in metrics if name in CHOOSING), None)


def _measured(
    records: Sequence[Record], metrics: Sequence[str], steps: Collection[int]
) -> list[Record]:
    metric = _choosing(metrics)
    return [each for each in records if each["step"] in steps and metric in each]


def _way_of(record: Record) -> Record:
    return {name: record[name] for name in WAY if name in record}
