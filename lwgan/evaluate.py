"""Measures how good a run's samples are, or how alike two folders of pictures.

  python -m lwgan.evaluate --workdir=runs/quickstart
  python -m lwgan.evaluate --workdir=runs/quickstart --step=all --metrics=kid
  python -m lwgan.evaluate --images=A --reference=B --features=efficientnet_lite0 --json=figures.json

Of a run, samples of the averaged generator are measured beside the pictures that it was trained with.
The figures go to metrics.json in the run too, and to Aim. --report adds how many samples are copies of
training pictures, and a sheet in generated/: the most suspicious samples, each beside the training
pictures that it is most like.
"""

import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags, logging

from lwgan import command
from lwgan.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_STEP = flags.DEFINE_string("step", "latest", "The checkpoint: its step, latest or all.")
_IMAGES = flags.DEFINE_string("images", None, "A folder, zip or tar of pictures to measure.")
_REFERENCE = flags.DEFINE_string("reference", None, "The pictures that --images should be like.")
_JSON = flags.DEFINE_string("json", None, "With --images: also write the figures to this file.")
_METRICS = flags.DEFINE_list("metrics", ["fid", "kid", "pr"], "Of fid, kid and pr.")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 2048, "Samples, and real pictures at most.", lower_bound=8
)
_FEATURES = flags.DEFINE_string("features", "inception", "inception or efficientnet_lite0.")
_WEIGHTS = flags.DEFINE_string(
    "weights", "", "A file of the network's weights instead of the published one."
)
_RESIZE = flags.DEFINE_enum(
    "resize", "clean", ["clean", "pytorch_fid"], "As clean-fid or as pytorch-fid."
)
_BACKGROUND = flags.DEFINE_enum(
    "background", "white", ["white", "black"], "What lies under rgba pictures."
)
_REPORT = flags.DEFINE_bool("report", True, "Also look for copies of training pictures.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of latents and noise.", lower_bound=0, upper_bound=2**32 - 1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures drawn at once.", lower_bound=1)

Record = dict[str, Any]  # what was measured, how, and the figures

SHEET_ROWS = 16  # samples on the sheet
# What makes one record another, and not a newer measurement of the same.
IDENTITY = ("step", "features", "resize", "background", "num_images", "num_reals", "seed")
DECIMALS = {"fid": 3, "kid": 5, "kid_stderr": 5}  # of a table; 3 of anything else


def table(records: list[Record]) -> str:
    """The figures of records that have the same ones, a line each."""
    names = [name for name in records[0] if name == "step" or name not in IDENTITY]
    rows = [names]
    for record in records:
        figures = (f"{record[name]:.{DECIMALS.get(name, 3)}f}" for name in names if name != "step")
        rows.append([str(record["step"]), *figures] if "step" in names else [*figures])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)


def remarks(record: Record) -> Iterator[str]:
    """How to read a record's figures, a line each."""
    from lwgan.metrics.measure import FEWEST_FOR_FID

    counts = f"{record['num_images']:,} pictures beside {record['num_reals']:,} real ones"
    yield f"{record['features']} features, resize {record['resize']}, {counts}"
    if "fid" in record and min(record["num_images"], record["num_reals"]) < FEWEST_FOR_FID:
        yield f"FID of fewer than {FEWEST_FOR_FID:,} pictures is biased upwards: compare by KID"
    if "copies" in record:
        yield (
            f"copies: {record['copies']:.0%} of the samples are nearer to a training picture than all "
            "but 5% of new pictures would be"
        )


def merge_records(path: pathlib.Path, records: list[Record]) -> None:
    """Adds records to a JSON list in a file, where one measured in the same way is brought up to date."""
    from lwgan.run import write_text

    old = json.loads(path.read_text()) if path.exists() else []
    merged: dict[tuple, Record] = {}
    for record in [*old, *records]:
        identity = tuple(record[name] for name in IDENTITY)
        merged[identity] = merged.get(identity, {}) | record
    ordered = sorted(merged.values(), key=lambda record: record["step"])
    write_text(path, json.dumps(ordered, indent=1) + "\n")


def compare_folders() -> Record:
    """The figures of the pictures in ``--images`` beside those in ``--reference``."""
    from lwgan import sources
    from lwgan.metrics import measure
    from lwgan.metrics.features import open_features

    opened = {
        flag.name: sources.open_path(
            flag.value or "", f"--{flag.name}", "name a folder, zip or tar of pictures"
        )
        for flag in (_IMAGES, _REFERENCE)
    }
    for name, source in opened.items():
        _require_enough(f"--{name}", len(source.names))
    features = open_features(_FEATURES.value, _WEIGHTS.value, _RESIZE.value)
    seen = {}
    for name, source in opened.items():
        batches = _whole_pictures(source, features.batch_size)
        key = ("whole", source.fingerprint, _BACKGROUND.value)
        seen[name] = measure.see_once(features, batches, len(source.names), f"--{name}", key)
    return {
        "features": features.name,
        "resize": features.resize,
        "num_images": len(opened["images"].names),
        "num_reals": len(opened["reference"].names),
        **measure.measure(seen["images"], seen["reference"], _METRICS.value),
    }


def _whole_pictures(source: Any, size: int) -> Iterator[list[np.ndarray]]:
    """Lists of ``size`` pictures uint8 (H, W, 3), as large as they are."""
    from lwgan.metrics.measure import to_rgb
    from lwgan.pictures import parallel_map

    def read(index: int) -> np.ndarray:
        try:
            with source.read(index) as image:
                mode = "RGBA" if image.has_transparency_data else "RGB"
                pixels = np.asarray(image.convert(mode))
        except Exception as error:  # Pillow raises many kinds
            raise UserError(
                "picture", source.names[index], f"does not decode ({error})", "take it away"
            ) from None
        return to_rgb(pixels, _BACKGROUND.value)

    pictures = parallel_map(read, range(len(source.names)), -1)
    while batch := list(itertools.islice(pictures, size)):
        yield batch


def evaluate_run() -> list[Record]:
    """The figures of each checkpoint that ``--step`` asks for; into metrics.json, Aim, and the sheets."""
    import jax

    from lwgan import checkpoint, losses, pictures, run, sampling, sources, state, tracking
    from lwgan.metrics import measure, neighbours
    from lwgan.metrics.features import open_features
    from lwgan.metrics.scores import realness

    workdir = pathlib.Path(_WORKDIR.value).expanduser()
    opened = run.read(workdir)
    config, steps = opened.config, _steps(workdir)
    source = sources.open_source(config.data)
    if opened.info.fingerprint not in ("", source.fingerprint):
        logging.warning("These are not the pictures that the run has learnt from")
    features = open_features(_FEATURES.value, _WEIGHTS.value, _RESIZE.value)
    kept = pictures.load(source, config.data)
    trained, held_out = np.arange(len(kept.names)), np.arange(0)
    trained = trained[measure.choose(len(trained), _NUM_IMAGES.value)]
    _require_enough("data", len(trained))

    def see_reals(indices: np.ndarray, mirrored: bool = False) -> measure.Seen:
        return measure.see_reals(
            features, kept, source.fingerprint, config.data, indices, _BACKGROUND.value,
            mirrored=mirrored,
        )  # fmt: skip

    reals = see_reals(trained)
    mirrored = see_reals(trained, mirrored=True) if _REPORT.value else None
    unseen = see_reals(held_out) if len(held_out) >= measure.FEWEST else None
    gan = state.build(config)
    like = jax.eval_shape(lambda: state.init_state(gan, config.train.seed))
    records = []
    for step in steps:
        weights = checkpoint.restore_generator(workdir, step, like, "ema")
        sampler = sampling.Sampler(state.build_generator(config), *weights)
        drawn = sampler.stream(_SEED.value, _NUM_IMAGES.value, _BATCH_SIZE.value)
        samples = measure.see(
            features,
            (measure.to_rgb(images, _BACKGROUND.value) for images in drawn),
            _NUM_IMAGES.value,
            f"Samples of step {step}",
        )
        figures = measure.measure(samples, reals, _METRICS.value)
        if unseen:
            others = measure.measure(samples, unseen, _METRICS.value)
            figures |= {f"{name}_held_out": value for name, value in others.items()}
            d_params = checkpoint.restore(workdir, step, like).d_params
            loss = losses.LOSSES[config.loss.kind]
            for name, indices in {"trained": trained, "held_out": held_out}.items():
                parts = np.split(indices, range(_BATCH_SIZE.value, len(indices), _BATCH_SIZE.value))
                batches = (np.stack([kept.centre(index) for index in part]) for part in parts)
                scores = realness(gan.discriminator, d_params, loss, batches)
                figures[f"realness_{name}"] = float(scores.mean())
        if mirrored:
            found = neighbours.memorisation(samples.features, reals.features, mirrored.features)
            figures |= {
                name: getattr(found, name) for name in ("closer", "closer_if_new", "copies")
            }
            folder = workdir / "generated"
            run.make_directory(folder, "--workdir")
            name = f"{step:08d}-seed{_SEED.value}-{_NUM_IMAGES.value}-{features.name}.png"
            sampling.save_png(folder / name, sheet(found, sampler, kept, trained))
            logging.info("Samples beside the nearest training pictures: %s", folder / name)
        record = {
            "step": step,
            "features": features.name,
            "resize": features.resize,
            "background": _BACKGROUND.value,
            "num_images": _NUM_IMAGES.value,
            "num_reals": len(trained),
            "seed": _SEED.value,
            **figures,
        }
        merge_records(workdir / "metrics.json", [record])
        scalars = {f"{features.name}/{name}": value for name, value in figures.items()}
        tracking.add_to_aim(opened, step, scalars)
        records.append(record)
    return records


def sheet(found: Any, sampler: Any, kept: Any, trained: np.ndarray) -> np.ndarray:
    """The samples nearest to training pictures, each left of its neighbours: uint8 (H, W, C)."""
    from lwgan import sampling

    rows = []
    for number in np.argsort(found.ratios)[:SHEET_ROWS]:
        latents = sampler.latents(_SEED.value, 1, int(number))
        sample = sampling.to_uint8(sampler.pictures(latents, _SEED.value, 1, int(number)))
        rows += [sample[0], *(kept.centre(trained[index]) for index in found.nearest[number])]
    return sampling.grid(np.stack(rows), 1 + found.nearest.shape[1])


def _steps(workdir: pathlib.Path) -> list[int]:
    """The checkpoints that ``--step`` asks for; of all of them those that are whole.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    from lwgan import checkpoint

    if _STEP.value == "all":
        checkpoint.choose(workdir, None)  # there is one that is whole
        there = checkpoint.steps(workdir)
        return [step for step in there if not checkpoint.damage(workdir, step)]
    if _STEP.value != "latest" and not _STEP.value.isdecimal():
        raise UserError(
            "--step", _STEP.value, "must be a step, latest or all", "leave it out for the latest"
        )
    step = None if _STEP.value == "latest" else int(_STEP.value)
    return [checkpoint.choose(workdir, step)]


def _require_enough(what: str, count: int) -> None:
    from lwgan.metrics.measure import FEWEST

    if count < FEWEST:
        raise UserError(what, f"{count} pictures", f"at least {FEWEST} are needed", "add some")


def _require_choice(flag: str, values: list[str], choices: dict[str, Any]) -> None:
    for value in values:
        if value not in choices:
            raise UserError(
                flag,
                value,
                f"must be of {', '.join(choices)}",
                f"for example {next(iter(choices))}",
            )


def main() -> None:
    """Runs the command with its flags."""
    from lwgan.metrics.features import FEATURES
    from lwgan.metrics.measure import METRICS

    _require_choice("--metrics", _METRICS.value, METRICS)
    _require_choice("--features", [_FEATURES.value], FEATURES)
    if _IMAGES.value or _REFERENCE.value:
        record = compare_folders()
        if _JSON.value:
            from lwgan.run import write_text

            text = json.dumps(record, indent=1) + "\n"
            write_text(pathlib.Path(_JSON.value).expanduser(), text)
        records = [record]
    elif _WORKDIR.value:
        records = evaluate_run()
    else:
        raise UserError(
            "--workdir", None, "must name a run directory, or --images and --reference two folders",
            "for example runs/quickstart",
        )  # fmt: skip
    print(table(records))
    print(*remarks(records[-1]), sep="\n")


if __name__ == "__main__":
    command.run(main)
