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
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from lwgan import command
from lwgan.errors import UserError

if TYPE_CHECKING:
    from lwgan.metrics.measure import Seen
    from lwgan.quality import Reals, Record
    from lwgan.sampling import Sampler

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_STEP = flags.DEFINE_string("step", "latest", "The checkpoint: its step, latest or all.")
_IMAGES = flags.DEFINE_string("images", None, "A folder, zip or tar of pictures to measure.")
_REFERENCE = flags.DEFINE_string("reference", None, "The pictures that --images should be like.")
_JSON = flags.DEFINE_string("json", None, "With --images: also write the figures to this file.")
_METRICS = flags.DEFINE_list("metrics", None, "Of fid, kid and pr; the run's eval.metrics, or all.")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    None,
    "Samples, and real pictures at most; the run's eval.num_images.",
    lower_bound=8,
)
_FEATURES = flags.DEFINE_string(
    "features", None, "inception or efficientnet_lite0; the run's, or inception."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "A file of the network's weights instead of the published one."
)
_RESIZE = flags.DEFINE_enum(
    "resize", None, ["clean", "pytorch_fid"], "As clean-fid or as pytorch-fid; the run's, or clean."
)
_BACKGROUND = flags.DEFINE_enum(
    "background", None, ["white", "black"], "What lies under rgba pictures; the run's, or white."
)
_REPORT = flags.DEFINE_bool("report", True, "Also look for copies of training pictures.")
_SEED = flags.DEFINE_integer(
    "seed",
    None,
    "Of latents and noise; the run's by default.",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures drawn at once.", lower_bound=1)

OWN = {
    flag.name: flag for flag in (_METRICS, _NUM_IMAGES, _FEATURES, _WEIGHTS, _RESIZE, _BACKGROUND)
}  # which replace the settings eval.* of a run
SHEET_ROWS = 16  # samples on the sheet
DECIMALS = {"kid": 5, "kid_stderr": 5}  # of a table; 3 of anything else


def table(records: list["Record"]) -> str:
    """The figures of records that have the same ones, a line each."""
    from lwgan.quality import IDENTITY

    names = [name for name in records[0] if name == "step" or name not in IDENTITY]
    rows = [names]
    for record in records:
        figures = (
            f"{record[name]:.{DECIMALS.get(name.removesuffix('_held_out'), 3)}f}"
            for name in names
            if name != "step"
        )
        rows.append([str(record["step"]), *figures] if "step" in names else [*figures])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)


def remarks(record: "Record") -> Iterator[str]:
    """How to read a record's figures, a line each."""
    from lwgan.metrics.measure import FEWEST_FOR_FID

    beside = f"{record['num_images']:,} pictures beside {record['num_reals']:,} real ones"
    yield f"{record['features']} features, resize {record['resize']}, {beside}"
    counts = [
        record[name] for name in ("num_images", "num_reals", "num_held_out") if record.get(name)
    ]
    if "fid" in record and min(counts) < FEWEST_FOR_FID:
        yield f"FID of fewer than {FEWEST_FOR_FID:,} pictures is biased upwards: compare by KID"
    if "copies" in record:
        yield (
            f"copies: {record['copies']:.0%} of the samples are nearer to a training picture than all "
            "but 5% of new pictures would be"
        )


def compare_folders() -> "Record":
    """The figures of the pictures in ``--images`` beside those in ``--reference``."""
    from lwgan import settings, sources
    from lwgan.metrics import measure
    from lwgan.metrics.features import open_features
    from lwgan.quality import require_enough

    way = ConfigDict(settings.ADDED["eval"] | _asked_for())
    opened = {
        flag.name: sources.open_path(
            flag.value or "", f"--{flag.name}", "name a folder, zip or tar of pictures"
        )
        for flag in (_IMAGES, _REFERENCE)
    }
    for name, source in opened.items():
        require_enough(f"--{name}", len(source.names))
    features = open_features(way.features, way.weights, way.resize)
    seen = {}
    for name, source in opened.items():
        batches = _whole_pictures(source, features.batch_size, way.background)
        seen[name] = measure.see(features, batches, len(source.names), f"--{name}")
    return {
        "features": features.name,
        "resize": features.resize,
        "num_images": len(opened["images"].names),
        "num_reals": len(opened["reference"].names),
        **measure.measure(seen["images"], seen["reference"], way.metrics),
    }


def _asked_for() -> dict[str, Any]:
    given = {name: flag.value for name, flag in OWN.items() if flag.value is not None}
    return given | ({"metrics": tuple(given["metrics"])} if "metrics" in given else {})


def _whole_pictures(source: Any, size: int, background: str) -> Iterator[list[np.ndarray]]:
    """Lists of ``size`` pictures uint8 (H, W, 3), as large as they are."""
    from lwgan.pictures import parallel_map, to_rgb, upright

    def read(index: int) -> np.ndarray:
        try:
            with source.read(index) as image:
                image = upright(image)
                mode = "RGBA" if image.has_transparency_data else "RGB"
                pixels = np.asarray(image.convert(mode))
        except Exception as error:  # Pillow raises many kinds
            raise UserError(
                "picture", source.names[index], f"does not decode ({error})", "take it away"
            ) from None
        return to_rgb(pixels, background)

    pictures = parallel_map(read, range(len(source.names)), -1)
    while batch := list(itertools.islice(pictures, size)):
        yield batch


def evaluate_run() -> list["Record"]:
    """The figures of each checkpoint that ``--step`` asks for; into metrics.json, Aim, and the sheets."""
    import jax

    from lwgan import checkpoint, pictures, quality, run, sources, state, tracking, trained

    this_run = run.read(pathlib.Path(_WORKDIR.value).expanduser())
    workdir, config, steps = this_run.workdir, this_run.config, _steps(this_run.workdir)
    config.eval.update(_asked_for())
    seed = config.train.seed if _SEED.value is None else _SEED.value
    source = sources.open_source(config.data)
    if this_run.info.fingerprint not in ("", source.fingerprint):
        logging.warning("These are not the pictures that the run has learnt from")
    reals = quality.see_reals(config, pictures.load(source, config.data), source.fingerprint)
    mirrored = reals.mirrored(config) if _REPORT.value else None
    discriminator = state.build_discriminator(config)
    like = jax.eval_shape(lambda: state.init_state(state.build(config), config.train.seed))
    records = []
    for step in steps:
        sampler = trained.at_step(this_run, step, "ema")
        d_params = (
            None if reals.unseen is None else checkpoint.restore(workdir, step, like).d_params
        )
        samples = quality.see_samples(
            config, sampler, reals.features, seed, _BATCH_SIZE.value, f"Samples of step {step}"
        )
        record = quality.record(config, reals, samples, step, seed, discriminator, d_params)
        if mirrored:
            record |= copies(workdir, step, seed, samples, reals, mirrored, sampler)
        with run.writing(workdir, "--workdir"):
            quality.merge(workdir, [record])
        tracking.add_to_aim(this_run, step, quality.figures(record))
        records.append(record)
    return records


def copies(
    workdir: pathlib.Path,
    step: int,
    seed: int,
    samples: "Seen",
    reals: "Reals",
    mirrored: "Seen",
    sampler: "Sampler",
) -> dict[str, float]:
    """How near samples come to training pictures; writes a sheet of the most suspicious ones."""
    from lwgan import run, sampling
    from lwgan.metrics import neighbours

    found = neighbours.memorisation(samples.features, reals.seen.features, mirrored.features)
    rows = []
    for number in np.argsort(found.ratios)[:SHEET_ROWS]:
        latents = sampler.latents(seed, 1, int(number))
        sample = sampling.to_uint8(sampler(latents, seed, 1, int(number)))
        nearest = reals.trained[found.nearest[number]]
        rows += [sample[0], *(reals.pictures.centre(index) for index in nearest)]
    sheet = sampling.grid(np.stack(rows), 1 + found.nearest.shape[1])
    name = f"{step:08d}-seed{seed}-{len(samples.features)}-{reals.features.name}"
    folder = run.new_directory(workdir / "generated" / name, ["nearest.png"], "--workdir")
    with run.writing(folder, "--workdir"):
        sampling.save_picture(folder / "nearest.png", sheet)
    print(folder / "nearest.png")
    return {name: getattr(found, name) for name in ("closer", "closer_if_new", "copies")}


def _steps(workdir: pathlib.Path) -> list[int]:
    """The checkpoints that ``--step`` asks for; of all of them those that are whole.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    from lwgan import checkpoint

    if _STEP.value == "all":
        return checkpoint.whole(workdir)
    if _STEP.value != "latest" and not _STEP.value.isdecimal():
        raise UserError(
            "--step", _STEP.value, "must be a step, latest or all", "leave it out for the latest"
        )
    step = None if _STEP.value == "latest" else int(_STEP.value)
    return [checkpoint.choose(workdir, step)]


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

    _require_choice("--metrics", _METRICS.value or [], METRICS)
    _require_choice("--features", [_FEATURES.value] if _FEATURES.value else [], FEATURES)
    if _IMAGES.value or _REFERENCE.value:
        for flag in (_WORKDIR, _NUM_IMAGES, _SEED):
            if flag.value is not None:
                raise UserError(
                    f"--{flag.name}", flag.value, "is of a run, not of --images", "leave it out"
                )
        file = pathlib.Path(_JSON.value).expanduser() if _JSON.value else None
        if file and (file.exists() or not file.parent.is_dir()):
            reason = "is there already" if file.exists() else "its folder does not exist"
            raise UserError("--json", str(file), reason, "name another")
        records = [compare_folders()]
        if file:
            from lwgan.run import write_text, writing

            with writing(file.parent, "--json"):
                write_text(file, json.dumps(records[0], indent=1) + "\n")
            print(file)
    elif _JSON.value:
        raise UserError(
            "--json", _JSON.value, "is for --images", "a run's figures are in its metrics.json"
        )
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
