"""Records in words, and the samples that look most like training images."""

from collections.abc import Iterator, Sequence

import numpy as np

from lwgan.metrics.evaluator import Evaluator
from lwgan.metrics.figures import FEWEST_FOR_FID
from lwgan.metrics.neighbours import Memorisation
from lwgan.metrics.records import IDENTITY, Record
from lwgan.sampling.labels import labels_at
from lwgan.sampling.sampler import Sampler, to_uint8
from lwgan.sampling.sheets import make_grid

# Samples on the sheet of copies.
SHEET_ROWS = 16


def table(records: Sequence[Record]) -> str:
    """The figures of records that have the same ones, a line each."""
    names = [name for name in records[0] if name == "step" or name not in IDENTITY]
    rows = [names]
    for record in records:
        figures = (
            f"{record[name]:.{5 if name.startswith('kid') else 3}f}"
            for name in names
            if name != "step"
        )
        rows.append([str(record["step"]), *figures] if "step" in names else [*figures])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)


def remarks(record: Record) -> Iterator[str]:
    """How to read a record's figures, a line each."""
    beside = f"{record['num_images']:,} images beside {record['num_reals']:,} real ones"
    beside += " and their mirror images" * bool(record.get("mirrored"))
    live = "of the live generator, " if record.get("generator") == "raw" else ""
    yield f"{live}{record['features']} features, resize {record['resize']}, {beside}"
    names = ("num_images", "num_reals", "num_held_out")
    fewest = min(record[name] for name in names if record.get(name))
    if "fid" in record and fewest < FEWEST_FOR_FID:
        yield f"FID of fewer than {FEWEST_FOR_FID:,} images is biased upwards: compare by KID"
    if "copies" in record:
        yield (
            f"copies: {record['copies']:.0%} of the samples are nearer to a training image than "
            "all but 5% of new images would be"
        )


def sheet_name(record: Record) -> str:
    """Names what a sheet depends on, so that other evaluations have other sheets."""
    samples = f"{record['step']:08d}-seed{record['seed']}-{record['num_images']}"
    parts = [samples, f"of{record['num_reals']}", record["features"]]
    parts += [f"data{record['data'][:8]}", f"weights{record['weights'][:8]}"]
    usual = {"generator": "ema", "resize": "clean", "background": "white"}
    return "-".join([*parts, *(record[name] for name in usual if record[name] != usual[name])])


def sheet_of_copies(
    evaluator: Evaluator, sampler: Sampler, seed: int, copies: Memorisation
) -> np.ndarray:
    """The most suspicious samples of a seed, each left of its nearest training images.

    uint8 (H, W, C); ``copies`` are what the evaluator found of these samples.
    """
    tiles, places = [], evaluator.places(len(copies.ratios))
    for number in np.argsort(copies.ratios)[:SHEET_ROWS]:
        latents = sampler.latents(seed, 1, int(number))
        labels = None
        if places is not None:
            labels = labels_at(places[[number]], sampler.label_names)
        sample = to_uint8(sampler(latents, seed, 1, int(number), labels=labels))
        nearest = evaluator.training.indices[copies.nearest[number]]
        tiles += [sample[0], *(evaluator.dataset.centre(index) for index in nearest)]
    return make_grid(np.stack(tiles), 1 + copies.nearest.shape[1])
