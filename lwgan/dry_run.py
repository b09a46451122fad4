"""What a run would need: its programs compiled and a few real steps timed, and nothing written."""

import pathlib
import resource
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lwgan import checkpoint, data, settings, state
from lwgan.pictures import load, summary
from lwgan.state import TrainState
from lwgan.step import Program, make_update
from lwgan.training import draw_samples, layout, local_devices, plan, recipe, state_at

_SECONDS = 5.0  # to time each kind of step for
_MOST_STEPS = 50  # and how many of them at most, and at least
_LEAST_STEPS = 4
_MIB = 2**20


class Times(NamedTuple):
    """Seconds."""

    compiling: float  # of all programs, once
    steps: dict[str, tuple[float, float]]  # one step of each kind, and its share of all steps
    samples: float  # drawing the grids once

    @property
    def step(self) -> float:
        """A step on average."""
        return sum(seconds * share for seconds, share in self.steps.values())


def dry_run(
    config: ConfigDict,
    workdir: str,
    *,
    fresh: bool = False,
    accept_new_data: bool = False,
    init_from: str | None = None,
) -> Iterator[str]:
    """Says, line after line, what ``lwgan.train`` with the same arguments would do and need.

    The run that is there is only read: its last state and the steps that it has left count. (Pictures
    that ``data.cache`` keeps on disk are kept there, for the run.)

    Raises:
      UserError: what training would raise before its first step.
    """
    path = pathlib.Path(workdir).expanduser()
    planned = plan(config, path, fresh=fresh, accept_new_data=accept_new_data, init_from=init_from)
    yield from (f"{name} = {value!r}" for name, value in settings.flatten(config).items())
    yield f"{planned.verb} the run in {path} at step {planned.first}: a dry run, nothing is written"
    pictures = load(planned.source, config.data)
    yield f"The data set: {summary(pictures)}"
    gan = state.build(config)
    current = state_at(gan, config, path, planned.step, planned.origin)
    counts = (_count(tree) for tree in (current.g_params, current.d_params))
    yield "Parameters: {:,} of the generator, {:,} of the discriminator".format(*counts)
    checkpoint_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(current))

    update = make_update(gan, recipe(config, len(pictures.names)))
    batches = data.batches(
        pictures,
        layout(config),
        seed=config.train.seed,
        start_step=planned.first,
        num_threads=config.data.num_threads,
        devices=local_devices(),
    )
    began = time.perf_counter()
    images, programs = next(batches), update.programs()
    memory = max(_memory(program, current, images) for program, _ in programs.values())
    compiling = time.perf_counter() - began
    yield f"Memory: {memory / _MIB:,.0f} MiB for a step on each of {_devices()}"

    steps = {}
    for name, (program, share) in programs.items():
        current, seconds = _time_steps(program, current, batches)
        steps[name] = seconds, share
    began = time.perf_counter()
    samples = 0.0
    if config.sample.every:
        draw_samples(config, current)
        first = time.perf_counter() - began
        draw_samples(config, current)
        samples = time.perf_counter() - began - first
        compiling += first - samples
    times = Times(compiling, steps, samples)
    yield _say_step(config, times)
    yield _say_hours(config, planned.first, times)
    yield _say_pictures(config, planned.first, len(pictures.names))
    yield _say_checkpoints(config, planned.first, checkpoint_bytes)
    if jax.default_backend() == "cpu":
        yield f"This process, with Python and TensorFlow, had up to {_peak() / _MIB:,.0f} MiB"


def _count(params: state.Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _memory(program: Program, current: TrainState, images: np.ndarray) -> int:
    """Bytes that the program takes on a device: state, pictures, results and all between."""
    stats = program.lower(current, images).compile().memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes  # results that lie where the old state was
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )


def _devices() -> str:
    """The devices in words, with what each has."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    room = f", which has {limit / _MIB:,.0f} MiB for JAX" if limit else ""
    return f"{jax.device_count()} devices ({device.device_kind}){room}"


def _time_steps(
    program: Program, current: TrainState, batches: Iterator[np.ndarray]
) -> tuple[TrainState, float]:
    """The state after a few steps of one kind, and the mean seconds of one; the first two warm up."""
    for _ in range(2):
        began = time.perf_counter()
        current = jax.block_until_ready(program(current, next(batches))[0])
        seconds = time.perf_counter() - began
    count = int(np.clip(_SECONDS / seconds, _LEAST_STEPS, _MOST_STEPS))
    began = time.perf_counter()
    for _ in range(count):
        current, _ = program(current, next(batches))
    jax.block_until_ready(current)
    return current, (time.perf_counter() - began) / count


def _at(first: int, last: int, every: int) -> list[int]:
    """The steps after ``first`` at which something periodic happens: its multiples, and the last."""
    if every == 0 or first >= last:
        return []
    return [*range(first // every * every + every, last, every), last]


def _say_step(config: ConfigDict, times: Times) -> str:
    each = ", ".join(f"{seconds:.3g} s {name}" for name, (seconds, _) in times.steps.items())
    rate = config.train.batch_size / times.step
    return f"A step: {times.step:.3g} s on average ({each}), {rate:,.3g} pictures a second"


def _say_hours(config: ConfigDict, first: int, times: Times) -> str:
    last = config.train.num_steps
    left = max(0, last - first)
    samples = len(_at(first, last, config.sample.every)) * times.samples
    seconds = times.compiling + left * times.step + samples
    return (
        f"Time: {seconds / 3600:.3g} hours for {left:,} steps, of which compiling takes "
        f"{times.compiling:.0f} s and drawing samples {samples:.0f} s; without writing checkpoints, "
        "which happens in the background"
    )


def _say_pictures(config: ConfigDict, first: int, count: int) -> str:
    left = max(0, config.train.num_steps - first) * config.train.batch_size
    return f"Pictures: {left / 1000:,.4g} thousand, each of the {count:,} about {left / count:,.3g} times"


def _say_checkpoints(config: ConfigDict, first: int, size: int) -> str:
    keep = config.checkpoint
    saved = _at(first, config.train.num_steps, keep.every)
    kept = len(checkpoint.kept(saved, keep))
    return (
        f"Checkpoints: up to {size / _MIB:,.1f} MiB each; {len(saved)} to write, of which {kept} "
        f"stay: {kept * size / _MIB:,.1f} MiB"
    )


def _peak() -> int:
    """The most bytes of memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
