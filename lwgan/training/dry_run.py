"""What a run would need: its programs compiled and a few real steps timed, and nothing written."""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lwgan.data.doctor import summary
from lwgan.models.build import Params
from lwgan.runs import checkpoint
from lwgan.runs.files import local_path
from lwgan.settings.defaults import flatten
from lwgan.training.actions import draw_grids
from lwgan.training.compiling import compiled_ahead
from lwgan.training.devices import describe_devices
from lwgan.training.gradients import Terms
from lwgan.training.micro_batches import step_bytes, step_errors
from lwgan.training.session import Session, batches_from, prepare, state_at
from lwgan.training.state import TrainState

# To time each kind of step for.
_SECONDS = 5.0
# And how many of them at most, and at least.
_MOST_STEPS = 50
_LEAST_STEPS = 4
_MIB = 2**20


class Measured(NamedTuple):
    """What a dry run has found out."""

    # Seconds before the first step: reading images, compiling.
    start: float
    # Seconds of a step of each kind, and its share of all steps.
    steps: dict[str, tuple[float, float]]
    # Seconds of drawing the grids once.
    samples: float
    num_images: int
    checkpoint_bytes: int


def estimate(
    config: ConfigDict,
    workdir: str,
    *,
    fresh: bool = False,
    accept_new_data: bool = False,
    init_from: str | None = None,
) -> Iterator[str]:
    """Yields, line after line, what ``lwgan.train`` with the same arguments would do and need.

    The run that is there is only read: its last state and the steps that it has left count.

    Raises:
      UserError: what training would raise before its first step.
    """
    began = time.perf_counter()
    session = prepare(
        config,
        local_path("--workdir", workdir),
        fresh=fresh,
        accept_new_data=accept_new_data,
        init_from=init_from,
        note=": a dry run, nothing is written",
        keep=False,
    )
    config = session.config
    yield from (f"{name} = {value!r}" for name, value in flatten(config).items())
    yield f"The dataset: {summary(session.dataset)}"
    with step_errors(config):
        yield from _measure(session, began)
    if jax.default_backend() == "cpu":
        yield f"This process, with Python and TensorFlow, had up to {_peak() / _MIB:,.0f} MiB"


def _measure(session: Session, began: float) -> Iterator[str]:
    """What the programs of a session need, compiled and timed."""
    config = session.config
    with compiled_ahead(session.update, session.gan, config) as update:
        state = state_at(session, session.step)
    checkpoint_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    counts = (_count(tree) for tree in (state.g_params, state.d_params))
    yield "Parameters: {:,} of the generator, {:,} of the discriminator".format(*counts)

    batches = batches_from(session, session.first)
    programs = update.programs()
    memory = max(step_bytes(program.compiled()) for program, _ in programs.values())
    start = time.perf_counter() - began
    yield f"Memory: {memory / _MIB:,.0f} MiB for a step on each device ({describe_devices()})"
    steps = {}
    for name, (program, share) in programs.items():
        advance = functools.partial(program, augment_prob=update.augment_prob)
        state, seconds = _time_steps(advance, state, batches)
        steps[name] = seconds, share
    compiling, samples = _time_samples(config, state) if config.sample.every else (0.0, 0.0)
    num_images = len(session.training)
    measured = Measured(start + compiling, steps, samples, num_images, checkpoint_bytes)
    yield from forecast(config, session.first, measured)


def forecast(config: ConfigDict, first: int, measured: Measured) -> list[str]:
    """What the steps after ``first`` will take, in lines."""
    last, keep = config.train.num_steps, config.checkpoint
    left = max(0, last - first)
    step = sum(seconds * share for seconds, share in measured.steps.values())
    kinds = ", ".join(f"{seconds:.3g} s {name}" for name, (seconds, _) in measured.steps.items())
    samples = len(_at(first, last, config.sample.every)) * measured.samples
    hours = (measured.start + left * step + samples) / 3600
    saved = _at(first, last, keep.every)
    kept, size = len(checkpoint.kept(saved, keep)), measured.checkpoint_bytes / _MIB
    shown, count = left * config.train.batch_size, measured.num_images
    return [
        f"A step: {step:.3g} s on average ({kinds}), "
        f"{config.train.batch_size / step:,.3g} images a second",
        f"Time: {hours:.3g} hours for {left:,} steps, with {measured.start:.0f} s to start and "
        f"{samples:.0f} s to draw samples; without evaluation, and checkpoints are written beside",
        f"Images: {shown / 1000:,.4g} thousand, "
        f"each of the {count:,} about {shown / count:,.3g} times",
        f"Checkpoints: up to {size:,.1f} MiB each; {len(saved)} to write, {kept} of them stay: "
        f"{kept * size:,.1f} MiB",
    ]


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _time_steps(
    advance: Callable[[TrainState, np.ndarray], tuple[TrainState, Terms]],
    state: TrainState,
    batches: Iterator[np.ndarray],
) -> tuple[TrainState, float]:
    """The state after a few steps of one kind, and the mean seconds of one; two warm up first."""
    for _ in range(2):
        began = time.perf_counter()
        state = jax.block_until_ready(advance(state, next(batches))[0])
        seconds = time.perf_counter() - began
    count = int(np.clip(_SECONDS / seconds, _LEAST_STEPS, _MOST_STEPS))
    began = time.perf_counter()
    for _ in range(count):
        state, _ = advance(state, next(batches))
    jax.block_until_ready(state)
    return state, (time.perf_counter() - began) / count


def _time_samples(config: ConfigDict, state: TrainState) -> tuple[float, float]:
    """Seconds of compiling, and of drawing all grids once."""
    times = [time.perf_counter()]
    for _ in range(2):
        draw_grids(config, state)
        times.append(time.perf_counter())
    first, second = np.diff(times)
    return first - second, second


def _at(first: int, last: int, every: int) -> list[int]:
    """The steps after ``first`` at which something periodic happens: multiples, and the last."""
    if every == 0 or first >= last:
        return []
    return [*range(first // every * every + every, last, every), last]


def _peak() -> int:
    """The most bytes of memory that this process has had."""
    # Not on Windows, where lwgan says so in a line of its own.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
