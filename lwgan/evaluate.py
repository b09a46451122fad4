"""Measures how good a run's samples are, or how alike two folders of images.

  python -m lwgan.evaluate --workdir=runs/quickstart
  python -m lwgan.evaluate --workdir=runs/quickstart --step=all --metrics=kid
  python -m lwgan.evaluate --images=A --reference=B --json=figures.json

Of a run, samples are measured beside its training images, and beside its held-out images where
there are some. The figures go to metrics.json in the run too, and to Aim. --report adds how many
samples are copies of training images, and a sheet in generated/: the most suspicious samples, each
beside the training images that it is most like. With --out, both files go there. Where they cannot
be written, a warning says so, and the figures are printed.
"""

import functools
import json
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from lwgan import cli
from lwgan.errors import UserError
from lwgan.settings.checks import require_choices

if TYPE_CHECKING:
    import numpy as np

    from lwgan.metrics.evaluator import Evaluator, Measurement
    from lwgan.metrics.records import Record
    from lwgan.runs.directory import Run
    from lwgan.sampling.sampler import Sampler

# Flags that replace settings eval.* of a run, by the setting.
OWN = {
    "metrics": "metrics",
    "num_images": "num_images",
    "features": "features",
    "weights": "features_weights",
    "resize": "resize",
    "background": "background",
}


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    of = {"flag_values": values}
    cli.define_run_flags(values)
    cli.define_checkpoint_flags(values)
    values["step"].help = "The checkpoint: its step, latest or all."
    flags.DEFINE_string("images", None, "A folder, zip or tar of images to measure.", **of)
    flags.DEFINE_string("reference", None, "The images that --images should be like.", **of)
    flags.DEFINE_string("json", None, "With --images: also write the figures to this file.", **of)
    flags.DEFINE_list(
        "metrics", None, "Such as kid,pr; the run's eval.metrics, or kid,fid,pr.", **of
    )
    num_images = "Samples; the run's eval.num_images."
    flags.DEFINE_integer("num_images", None, num_images, 8, **of)
    features = "The network of features; the run's, or inception."
    flags.DEFINE_string("features", None, features, **of)
    weights = "A file of that network's weights instead of the published one."
    flags.DEFINE_string("features_weights", None, weights, **of)
    resize = "As clean-fid or as pytorch-fid; the run's, or clean."
    flags.DEFINE_enum("resize", None, ["clean", "pytorch_fid"], resize, **of)
    background = "What lies under rgba images; the run's, or white."
    flags.DEFINE_enum("background", None, ["white", "black"], background, **of)
    flags.DEFINE_bool("report", True, "Also look for copies of training images.", **of)
    flags.DEFINE_integer(
        "seed", None, "Of latents and noise; the run's by default.", 0, 2**32 - 1, **of
    )
    flags.DEFINE_integer("batch_size", 16, "Images drawn at once.", 1, **of)


def asked_for(values: cli.Flags) -> dict[str, Any]:
    """The settings of ``eval`` that the flags replace."""
    asked = {setting: values[flag].value for setting, flag in OWN.items()}
    given = {setting: value for setting, value in asked.items() if value is not None}
    return given | ({"metrics": tuple(given["metrics"])} if "metrics" in given else {})


def evaluate_folders(values: cli.Flags) -> "Record":
    """The figures of the images in ``--images`` beside those in ``--reference``."""
    from lwgan.data.folder import open_path
    from lwgan.metrics.figures import require_enough
    from lwgan.metrics.folders import compare_folders
    from lwgan.runs.files import local_path, write_text, writing
    from lwgan.settings.defaults import default_config

    for flag in ("workdir", "out", "num_images", "seed"):
        if values[flag].value is not None:
            reason = "is of a run, not of --images"
            raise UserError(f"--{flag}", values[flag].value, reason, "leave it out")
    for flag in ("step", "weights"):
        if values[flag].using_default_value is False:
            raise UserError(f"--{flag}", values[flag].value, "is of a run", "leave it out")
    file = local_path("--json", values.json) if values.json else None
    if file and (file.exists() or not file.parent.is_dir()):
        reason = "is there already" if file.exists() else "its folder does not exist"
        raise UserError("--json", str(file), reason, "name another")
    way = default_config().eval
    way.update(asked_for(values))
    hint = "name a folder, zip or tar of images"
    sources = [
        open_path(values[flag].value or "", f"--{flag}", hint) for flag in ("images", "reference")
    ]
    for flag, source in zip(("images", "reference"), sources, strict=True):
        require_enough(f"--{flag}", len(source.names))
    record = compare_folders(*sources, way)
    if file:
        with writing(file.parent, "--json"):
            write_text(file, json.dumps(record, indent=1) + "\n")
        print(file)
    return record


def evaluate_run(values: cli.Flags) -> list["Record"]:
    """The figures of each checkpoint asked for; into metrics.json, Aim, and the sheets."""
    from lwgan.data.cache import load_dataset
    from lwgan.data.sources import open_source
    from lwgan.metrics.evaluator import build_evaluator
    from lwgan.metrics.records import FILE, figures_of, read_records
    from lwgan.runs.files import local_path, new_directory
    from lwgan.runs.tracking import add_to_aim
    from lwgan.sampling.trained import load_step
    from lwgan.training.evaluation import critic_at

    run = cli.open_run(values)
    folder = run.workdir
    if values.out:
        folder = new_directory(local_path("--out", values.out), [FILE], "--out")
    # Now, and not when there is something to be added.
    read_records(folder)
    steps = steps_asked_for(values, run)
    run.config.eval.update(asked_for(values))
    source = open_source(run.config.data, known=run.info.fingerprint)
    if run.info.fingerprint not in ("", source.fingerprint):
        logging.warning("These are not the images that the run has learnt from")
    evaluator = build_evaluator(run.config, load_dataset(source, run.config.data))
    records = []
    for step in steps:
        sampler = load_step(run, step, values.weights)
        measurement = evaluator.measure(
            sampler,
            step,
            weights=values.weights,
            seed=values.seed,
            batch_size=values.batch_size,
            critic=critic_at(run, step) if evaluator.held_out else None,
        )
        record, sheet = measurement.record, None
        if values.report:
            copies, sheet = report_copies(evaluator, sampler, measurement)
            record |= copies
        write_record(folder, record, sheet)
        add_to_aim(run, step, figures_of(record))
        records.append(record)
    return records


def write_record(folder: pathlib.Path, record: "Record", sheet: "np.ndarray | None") -> None:
    """Adds a record to those of a directory, and its sheet, in a directory of its own.

    If that is not possible, it is a warning: figures take long, and are printed anyway.
    """
    from lwgan.metrics.records import add_record
    from lwgan.metrics.report import sheet_name
    from lwgan.sampling.image_files import save_image

    try:
        folder.mkdir(parents=True, exist_ok=True)
        add_record(folder, record)
        if sheet is not None:
            path = folder / "generated" / sheet_name(record) / "nearest.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # What has the same name has been measured in the same way, and shows the same.
            if not path.exists():
                save_image(path, sheet)
            print(path)
    except (OSError, UserError) as error:
        logging.warning("The figures of step %d are not written: %s", record["step"], error)


def report_copies(
    evaluator: "Evaluator", sampler: "Sampler", measurement: "Measurement"
) -> "tuple[dict[str, float], np.ndarray]":
    """How near samples come to training images, and a sheet of the most suspicious ones."""
    from lwgan.metrics.report import sheet_of_copies

    copies = evaluator.find_copies(measurement.samples)
    sheet = sheet_of_copies(evaluator, sampler, measurement.record["seed"], copies)
    return {name: getattr(copies, name) for name in ("closer", "closer_if_new", "copies")}, sheet


def steps_asked_for(values: cli.Flags, run: "Run") -> list[int]:
    """The checkpoints that ``--step`` asks for; of all of them those that are whole.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    from lwgan.runs import manifest

    return (
        manifest.whole_steps(run.workdir)
        if values.step == "all"
        else [cli.checkpoint_step(values, run)]
    )


def measure_asked_for(values: cli.Flags) -> None:
    """Runs the command."""
    from lwgan.metrics.figures import METRICS
    from lwgan.metrics.networks.features import FEATURES
    from lwgan.metrics.report import remarks, table

    require_choices("--metrics", values.metrics or [], METRICS)
    require_choices("--features", [values.features] if values.features else [], FEATURES)
    if values.images or values.reference:
        records = [evaluate_folders(values)]
    elif values.json:
        raise UserError(
            "--json", values.json, "is for --images", "a run's figures are in its metrics.json"
        )
    elif values.workdir:
        records = evaluate_run(values)
    else:
        raise UserError(
            "--workdir",
            None,
            "must name a run directory, or --images and --reference two folders",
            "for example runs/quickstart",
        )
    print(table(records))
    print(*remarks(records[-1]), sep="\n")


main = functools.partial(cli.run, define_flags, measure_asked_for)

if __name__ == "__main__":
    main()
