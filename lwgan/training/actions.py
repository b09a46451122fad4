"""What happens every so many steps of training: scalars, samples, evaluation, checkpoints."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import metric_writers, periodic_actions
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.metrics.diversity import mean_distance
from lwgan.metrics.evaluator import Evaluator
from lwgan.metrics.records import Record, add_record, figures_of
from lwgan.models.build import build_generator
from lwgan.runs import checkpoint
from lwgan.sampling import image_files
from lwgan.sampling.labels import labels_at
from lwgan.sampling.paths import between
from lwgan.sampling.sampler import Sampler, to_uint8
from lwgan.sampling.sheets import titled
from lwgan.settings.shapes import shape_of
from lwgan.training.evaluation import critic_of
from lwgan.training.gradients import Terms
from lwgan.training.session import Session
from lwgan.training.state import TrainState

# Pixels of images whose grids are smaller, in files that lose a little.
_LARGE = 512
# Of a grid with a row for each label.
_MOST_ROWS = 16

# Of a step: its number, the state after it, and the metrics.
Action = Callable[[int, TrainState, Terms], None]
# Of a step too, on all devices; what it returns writes the result.
Making = Callable[[int, TrainState, Terms], Callable[[], None]]


class NotFinite(Exception):
    """A loss or a number of the state is infinite or not a number; nothing of it is saved."""

    def __init__(self, what: str, step: int):
        super().__init__(f"{what} at step {step}")
        self.what, self.step = what, step


def require_finite(state: TrainState, metrics: Mapping[str, float]) -> None:
    """Raises NotFinite if a metric or any number of the state is infinite or not a number."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad or not _all_finite(state):
        raise NotFinite(", ".join(bad) or "the state", int(state.step))


@jax.jit
def _all_finite(state: TrainState) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]))


class Clocked:
    """Batches, and how long the devices have nothing to do because the loop waits for one."""

    def __init__(self, batches: Iterator[np.ndarray]):
        self._batches = batches
        self._waited, self._since = 0.0, time.perf_counter()
        # What the devices work on.
        self._latest: jax.Array | None = None
        # Why there are no more.
        self.failed: UserError | None = None

    def __iter__(self) -> "Clocked":
        return self

    def __next__(self) -> np.ndarray:
        idle, asked = self._are_idle(), time.perf_counter()
        try:
            images = next(self._batches)
        except UserError as error:
            # The loop ends as at the last batch, and saves.
            self.failed = error
            raise StopIteration from None
        waited = time.perf_counter() - asked
        # Where they have come to an end meanwhile, half of the time is as good a guess as any.
        self._waited += waited if idle else waited / 2 if self._are_idle() else 0
        return images

    def watching(self, update: Callable[[int, TrainState, np.ndarray], Any]) -> Callable:
        """The same update, whose results say when the devices are done."""

        def watched(step: int, state: TrainState, images: np.ndarray) -> Any:
            state, metrics = update(step, state, images)
            self._latest = next(iter(metrics.values()), None)
            return state, metrics

        return watched

    def wait_share(self) -> float:
        """The share of the time since it was last asked that went by in waiting, 0 to 1."""
        now = time.perf_counter()
        share = self._waited / (now - self._since)
        self._waited, self._since = 0.0, now
        return share

    def _are_idle(self) -> bool:
        return not isinstance(self._latest, jax.Array) or self._latest.is_ready()


def log_actions(
    config: ConfigDict, batches: Clocked, writer: metric_writers.MetricWriter
) -> list[Action]:
    """The losses, and how fast training is."""
    last, interval = config.train.num_steps, config.train.log_every
    progress = periodic_actions.ReportProgress(
        num_train_steps=last, writer=writer, every_steps=interval, every_secs=None
    )
    return [
        every(interval, last, scalar_action(batches, writer)),
        lambda step, state, metrics: progress(step),
    ]


def save_action(
    session: Session,
    writer: metric_writers.MetricWriter,
    saver: checkpoint.Saver | checkpoint.Onlooker,
) -> Action:
    """Saves a state, if it is finite; what was tracked up to it is on the disk by then."""

    def action(step: int, state: TrainState, metrics: Terms) -> None:
        require_finite(state, metrics)
        writer.flush()
        saver.save(state, metrics, session.config)

    return action


def every(steps: int, last: int, action: Action) -> Action:
    """The action at each multiple of ``steps``, and at the last step."""
    periodic = periodic_actions.PeriodicCallback(
        every_steps=steps,
        on_steps=[last],
        callback_fn=lambda step, t, state, metrics: action(step, state, metrics),
    )
    return lambda step, state, metrics: periodic(step, state=state, metrics=metrics)


def scalar_action(batches: Clocked, writer: metric_writers.MetricWriter) -> Action:
    """Writes the losses, and how long the loop waits for images."""

    def action(step: int, state: TrainState, metrics: Terms) -> None:
        numbers = {name: float(value) for name, value in metrics.items()}
        require_finite(state, numbers)
        writer.write_scalars(step, numbers)
        writer.write_scalars(step, {"data/wait_share": batches.wait_share()})

    return action


def micro_batch(config: ConfigDict) -> int:
    """The images that a device has at once in a step, so that no more are drawn at once either."""
    return max(1, config.train.batch_size // config.train.grad_accum // jax.device_count())


def grid_of(config: ConfigDict) -> tuple[int, int]:
    """Rows and columns of the grids; with labels a row for each of the first ones."""
    large = max(shape_of(config.data.image_size)) >= _LARGE
    rows, columns = config.sample.grid or ((4, 4) if large else (8, 8))
    if config.data.label_names:
        rows = min(len(config.data.label_names), rows if config.sample.grid else _MOST_ROWS)
    return rows, columns


def grid_suffix(config: ConfigDict) -> str:
    """Of the files of grids: .png, .jpg or .webp; large ones in PNG would be 50 MB each."""
    if config.sample.format != "auto":
        return f".{config.sample.format}"
    large = ".webp" if config.data.mode == "rgba" else ".jpg"
    return ".png" if max(shape_of(config.data.image_size)) < _LARGE else large


def draw_grids(config: ConfigDict, state: TrainState) -> dict[str, np.ndarray]:
    """The images of each grid, float32 (B, H, W, C), not clipped: the same latents every time.

    ``ema`` and ``raw`` are by the EMA generator and the live one, ``interp`` by the EMA generator,
    each row from one latent to another.
    """
    rows, columns = grid_of(config)
    seed, batch_size = config.train.seed, micro_batch(config)
    generator = build_generator(config)
    names = config.data.label_names
    ema = Sampler(generator, state.ema_params, state.ema_stats, label_names=names)
    live = Sampler(generator, state.g_params, state.g_stats, label_names=names)
    latents = ema.latents(seed, rows * columns)
    ends = ema.latents(seed, rows, first=rows * columns)
    path = between(latents[::columns], ends, columns)
    labels = labels_at(np.repeat(np.arange(rows), columns), names) if names else None
    return {
        "ema": ema(latents, seed, batch_size, labels=labels),
        "raw": live(latents, seed, batch_size, labels=labels),
        "interp": ema(path, seed, batch_size, labels=labels),
    }


def sample_action(session: Session, writer: metric_writers.MetricWriter) -> Making:
    """Draws the grids of a step, and how different its images are from each other."""
    config, dataset = session.config, session.dataset
    folder, suffix = session.workdir / "samples", grid_suffix(config)
    rows, columns = grid_of(config)
    count = min(len(dataset.names), rows * columns)
    some = np.stack([dataset.centre(index) for index in range(count)])
    real_distance = mean_distance(some / 255)

    def write(step: int, drawn: Mapping[str, np.ndarray]) -> None:
        titles = config.data.label_names[:rows]
        grids = {name: titled(to_uint8(each), columns, titles) for name, each in drawn.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in grids.items():
            which = "" if name == "ema" else f"-{name}"
            image_files.save_image(folder / f"{step:08d}{which}{suffix}", image)
        writer.write_images(step, {f"samples/{name}": image for name, image in grids.items()})
        writer.write_histograms(step, {"samples/values": drawn["ema"]})
        fake_distance = mean_distance(np.clip(drawn["ema"], 0, 1))
        writer.write_scalars(
            step, {"samples/distance": fake_distance, "samples/distance_of_reals": real_distance}
        )

    return lambda step, state, metrics: functools.partial(write, step, draw_grids(config, state))


def evaluate_action(
    session: Session, evaluator: Evaluator, writer: metric_writers.MetricWriter
) -> Making:
    """Measures the samples of the EMA generator of a step."""
    config = session.config
    generator, batch_size = build_generator(config), micro_batch(config)

    def write(step: int, record: Record) -> None:
        add_record(session.workdir, record)
        writer.write_scalars(step, figures_of(record))

    def measure(step: int, state: TrainState, metrics: Terms) -> Callable[[], None]:
        names = config.data.label_names
        sampler = Sampler(generator, state.ema_params, state.ema_stats, label_names=names)
        critic = critic_of(config, state.d_params)
        record, _ = evaluator.measure(sampler, step, batch_size=batch_size, critic=critic)
        return functools.partial(write, step, record)

    return measure
