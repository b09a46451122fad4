"""Measures how good a run's samples are, or how alike two folders of images.

  python -m lwgan.evaluate --workdir=runs/quickstart
  python -m lwgan.evaluate --workdir=runs/quickstart --step=all --metrics=kid
  python -m lwgan.evaluate --images=A --reference=B --json=figures.json

Of a run, samples of the EMA generator are measured beside its training images, and beside its
held-out images where there are some. The figures go to metrics.json in the run too, and to Aim.
--report adds how many samples are copies of training images, and a sheet in generated/: the most
suspicious samples, each beside the training images that it is most like.
"""

import functools
import json
import pathlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from lwgan import cli
from lwgan.errors import UserError

if TYPE_CHECKING:
    from lwgan.metrics.evaluator import Evaluator, Measurement
    from lwgan.metrics.realness import Critic
    from lwgan.metrics.records import Record
    from lwgan.runs.directory import Run
    from lwgan.sampling.sampler import Sampler

# Flags that replace the settings eval.* of a run.
OWN = ("metrics", "num_images", "features", "weights", "resize", "background")


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    of = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "The run directory.", **of)
    flags.DEFINE_string("step", "latest", "The checkpoint: its step, latest or all.", **of)
    flags.DEFINE_string("images", None, "A folder, zip or tar of images to measure.", **of)
    flags.DEFINE_string("reference", None, "The images that --images should be like.", **of)
    flags.DEFINE_string("json", None, "With --images: also write the figures to this file.", **of)
    flags.DEFINE_list(
        "metrics", None, "Such as kid,pr; the run's eval.metrics, or kid,fid,pr.", **of
    )
    num_images = "Samples, and real images at most; the run's eval.num_images."
    flags.DEFINE_integer("num_images", None, num_images, 8, **of)
    features = "The network of features; the run's, or inception."
    flags.DEFINE_string("features", None, features, **of)
    weights = "A file of the network's weights instead of the published one."
    flags.DEFINE_string("weights", None, weights, **of)
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
    given = {name: values[name].value for name in OWN if values[name].value is not None}
    return given | ({"metrics": tuple(given["metrics"])} if "metrics" in given else {})


def evaluate_folders(values: cli.Flags) -> "Record":
    """The figures of the images in ``--images`` beside those in ``--reference``."""
    from lwgan.data.folder import open_path
    from lwgan.metrics.figures import require_enough
    from lwgan.metrics.folders import compare_folders
    from lwgan.runs.files import write_text, writing
    from lwgan.settings.defaults import default_config

    for flag in ("workdir", "num_images", "seed"):
        if values[flag].value is not None:
            reason = "is of a run, not of --images"
            raise UserError(f"--{flag}", values[flag].value, reason, "leave it out")
    file = pathlib.Path(values.json).expanduser() if values.json else None
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
    from lwgan.metrics.records import add_record, figures_of
    from lwgan.runs.files import writing
    from lwgan.runs.tracking import add_to_aim
    from lwgan.sampling.trained import load_step

    run = cli.open_run(values)
    steps = steps_asked_for(values.step, run.workdir)
    run.config.eval.update(asked_for(values))
    source = open_source(run.config.data)
    if run.info.fingerprint not in ("", source.fingerprint):
        logging.warning("These are not the images that the run has learnt from")
    evaluator = build_evaluator(run.config, load_dataset(source, run.config.data))
    records = []
    for step in steps:
        sampler = load_step(run, step, "ema")
        measurement = evaluator.measure(
            sampler,
            step,
            seed=values.seed,
            batch_size=values.batch_size,
            critic=critic_at(run, step) if evaluator.held_out else None,
        )
        record = measurement.record
        if values.report:
            record |= report_copies(evaluator, sampler, measurement, run.workdir / "generated")
        with writing(run.workdir, "--workdir"):
            add_record(run.workdir, record)
        add_to_aim(run, step, figures_of(record))
        records.append(record)
    return records


def critic_at(run: "Run", step: int) -> "Critic":
    """The discriminator of a checkpoint."""
    import jax

    from lwgan.runs import checkpoint
    from lwgan.training.evaluation import critic_of
    from lwgan.training.state import build_gan, init_state

    like = jax.eval_shape(lambda: init_state(build_gan(run.config), run.config.train.seed))
    return critic_of(run.config, checkpoint.restore(run.workdir, step, like).d_params)


def report_copies(
    evaluator: "Evaluator", sampler: "Sampler", measurement: "Measurement", folder: pathlib.Path
) -> dict[str, float]:
    """How near samples come to training images; writes a sheet of the most suspicious ones."""
    from lwgan.metrics.report import sheet_of_copies
    from lwgan.runs.files import new_directory, writing
    from lwgan.sampling.image_files import save_image

    copies = evaluator.find_copies(measurement.samples)
    record = measurement.record
    sheet = sheet_of_copies(evaluator, sampler, record["seed"], copies)
    count = len(measurement.samples.features)
    name = f"{record['step']:08d}-seed{record['seed']}-{count}-{record['features']}"
    folder = new_directory(folder / name, ["nearest.png"], "--workdir")
    with writing(folder, "--workdir"):
        save_image(folder / "nearest.png", sheet)
    print(folder / "nearest.png")
    return {name: getattr(copies, name) for name in ("closer", "closer_if_new", "copies")}


def steps_asked_for(text: str, workdir: pathlib.Path) -> list[int]:
    """The checkpoints that ``--step`` asks for; of all of them those that are whole.

    Raises:
      UserError: there is no such checkpoint, or none.
    """
    from lwgan.runs import manifest

    if text == "all":
        return manifest.whole_steps(workdir)
    if text != "latest" and not text.isdecimal():
        reason = "must be a step, latest or all"
        raise UserError("--step", text, reason, "leave it out for the latest")
    return [manifest.resolve_step(workdir, None if text == "latest" else int(text))]


def require_choices(flag: str, values: Sequence[str], choices: Collection[str]) -> None:
    """Refuses values that no table has.

    Raises:
      UserError: names the first of them.
    """
    for value in values:
        if value not in choices:
            hint = f"for example {next(iter(choices))}"
            raise UserError(flag, value, f"must be of {', '.join(choices)}", hint)


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
