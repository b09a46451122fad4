"""What happens every so many steps of training: scalars, samples, evaluation, checkpoints."""

import time
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from clu import metric_writers, periodic_actions
from ml_collections import ConfigDict

from lwgan import checkpoint, quality, sampling, state
from lwgan.errors import UserError
from lwgan.pictures import Pictures
from lwgan.run import Run
from lwgan.state import TrainState
from lwgan.step import Terms

Action = Callable[[int, TrainState, Terms], None]


class NotFinite(Exception):
    """A loss or a number of the state has become infinite or not a number; nothing of it is saved."""

    def __init__(self, what: str, step: int):
        super().__init__(f"{what} at step {step}")
        self.what, self.step = what, step


def require_finite(current: TrainState, metrics: Mapping[str, float]) -> None:
    """Raises NotFinite if a metric or any number of the state is infinite or not a number."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad or not _all_finite(current):
        raise NotFinite(", ".join(bad) or "the state", int(current.step))


@jax.jit
def _all_finite(current: TrainState) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(current)]))


class Clocked:
    """Batches, and how long the loop waits for them."""

    def __init__(self, batches: Iterator[np.ndarray]):
        self._batches = batches
        self._waited, self._since = 0.0, time.perf_counter()

    def __iter__(self) -> "Clocked":
        return self

    def __next__(self) -> np.ndarray:
        asked = time.perf_counter()
        images = next(self._batches)
        self._waited += time.perf_counter() - asked
        return images

    def wait_share(self) -> float:
        """The share of the time since it was last asked that went by in waiting, 0 to 1."""
        now = time.perf_counter()
        share = self._waited / (now - self._since)
        self._waited, self._since = 0.0, now
        return share


def actions(
    config: ConfigDict,
    this_run: Run,
    pictures: Pictures,
    reals: quality.Reals | None,
    batches: Clocked,
    writer: metric_writers.MetricWriter,
    saver: checkpoint.Saver,
    *,
    profile: bool,
) -> list[Action]:
    """What happens every so many steps, and at the last one."""
    last = config.train.num_steps

    def periodic(every: int, callback: Action) -> Action:
        clu_action = periodic_actions.PeriodicCallback(
            every_steps=every,
            on_steps=[last],
            callback_fn=lambda step, t, current, metrics: callback(step, current, metrics),
        )
        return lambda step, current, metrics: clu_action(step, current=current, metrics=metrics)

    def write_scalars(step: int, current: TrainState, metrics: Terms) -> None:
        numbers = {name: float(value) for name, value in metrics.items()}
        require_finite(current, numbers)
        writer.write_scalars(step, numbers)
        writer.write_scalars(step, {"data/wait_share": batches.wait_share()})

    def save(step: int, current: TrainState, metrics: Terms) -> None:
        require_finite(current, metrics)
        saver.save(current, metrics, config)

    progress = periodic_actions.ReportProgress(
        num_train_steps=last, writer=writer, every_steps=config.train.log_every, every_secs=None
    )
    found = [
        periodic(config.train.log_every, write_scalars),
        lambda step, current, metrics: progress(step),
    ]
    if config.sample.every:
        found.append(
            periodic(config.sample.every, sample_action(config, this_run, pictures, writer))
        )
    if reals:
        evaluate = evaluate_action(config, this_run, reals, writer)
        found += [periodic(config.eval.every, callback) for callback in (evaluate, save)]
    found.append(periodic(config.checkpoint.every, save))
    if profile:
        hook = periodic_actions.Profile(
            logdir=this_run.workdir / "profile",
            first_profile=10,
            profile_duration_ms=None,
            every_secs=None,
        )
        found.append(lambda step, current, metrics: hook(step))
    return found


def draw_samples(config: ConfigDict, current: TrainState) -> dict[str, np.ndarray]:
    """The pictures of each grid, float32 (B, H, W, C), not clipped: the same latents every time.

    ``ema`` and ``raw`` are by the averaged and the live generator, ``interp`` by the averaged one, each
    row from one latent to another.
    """
    rows, columns = config.sample.grid
    seed, batch_size = config.train.seed, config.train.batch_size
    generator = state.build_generator(config)
    averaged = sampling.Sampler(generator, current.ema_params, current.ema_stats)
    live = sampling.Sampler(generator, current.g_params, current.g_stats)
    latents = averaged.latents(seed, rows * columns)
    ends = averaged.latents(seed, rows, first=rows * columns)
    path = sampling.between(latents[::columns], ends, columns)
    return {
        "ema": averaged(latents, seed, batch_size),
        "raw": live(latents, seed, batch_size),
        "interp": averaged(path, seed, batch_size),
    }


def sample_action(
    config: ConfigDict,
    this_run: Run,
    pictures: Pictures,
    writer: metric_writers.MetricWriter,
) -> Action:
    """Draws the grids of a step, and how different its pictures are from each other."""
    folder = this_run.workdir / "samples"
    rows, columns = config.sample.grid
    count = min(len(pictures.names), rows * columns)
    some = np.stack([pictures.centre(index) for index in range(count)])
    real_distance = sampling.mean_distance(some / 255)

    def action(step: int, current: TrainState, metrics: Terms) -> None:
        drawn = draw_samples(config, current)
        grids = {name: sampling.grid(sampling.to_uint8(p), columns) for name, p in drawn.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, image in grids.items():
                suffix = "" if name == "ema" else f"-{name}"
                sampling.save_picture(folder / f"{step:08d}{suffix}.png", image)
        except OSError as error:
            logging.warning("The samples of step %d could not be written: %s", step, error)
        writer.write_images(step, {f"samples/{name}": image for name, image in grids.items()})
        writer.write_histograms(step, {"samples/values": drawn["ema"]})
        fake_distance = sampling.mean_distance(np.clip(drawn["ema"], 0, 1))
        writer.write_scalars(
            step, {"samples/distance": fake_distance, "samples/distance_of_reals": real_distance}
        )

    return action


def evaluate_action(
    config: ConfigDict,
    this_run: Run,
    reals: quality.Reals,
    writer: metric_writers.MetricWriter,
) -> Action:
    """Measures the averaged generator's samples of a step."""
    generator, discriminator = state.build_generator(config), state.build_discriminator(config)
    seed, batch_size = config.train.seed, config.train.batch_size

    def action(step: int, current: TrainState, metrics: Terms) -> None:
        require_finite(current, metrics)
        sampler = sampling.Sampler(generator, current.ema_params, current.ema_stats)
        title = f"Samples of step {step}"
        seen = quality.see_samples(config, sampler, reals.features, seed, batch_size, title)
        found = quality.record(config, reals, seen, step, seed, discriminator, current.d_params)
        try:
            quality.merge(this_run.workdir, [found])
        except (OSError, UserError) as error:
            logging.warning("The figures of step %d could not be written: %s", step, error)
        writer.write_scalars(step, quality.figures(found))

    return action
