"""What settings leave to the devices, found at a run's first start and kept in the run."""

import concurrent.futures
import contextlib
import math

import jax
import jax.stages
from absl import logging
from ml_collections import ConfigDict

from lwgan.errors import UserError, device_errors
from lwgan.runs.compiled import THREADS
from lwgan.training.checks import check_devices
from lwgan.training.compiling import begin_compiling
from lwgan.training.devices import memory_limit, precision_of
from lwgan.training.recipes import recipe_of
from lwgan.training.state import build_gan
from lwgan.training.step import make_update

_MIB = 2**20


def resolve(config: ConfigDict, begun: ConfigDict | None) -> ConfigDict:
    """The settings without ``train.precision=auto`` and a negative ``train.grad_accum``.

    What a run computes depends on both, so one that has begun, with the settings ``begun``, keeps
    its own; else they are what these devices are best at, and as few micro-batches as fit.

    Raises:
      UserError: not even one image at once fits, or the batch cannot be divided so.
    """
    config = config.copy_and_resolve_references()
    kept = begun.train if begun else config.train
    if config.train.precision == "auto":
        config.train.precision = kept.precision
        config.train.precision = precision_of(config)
    if config.train.grad_accum < 0:
        config.train.grad_accum = kept.grad_accum if kept.grad_accum > 0 else _fewest(config)
        check_devices(config, jax.device_count())
    return config


def step_errors(config: ConfigDict) -> contextlib.AbstractContextManager[None]:
    """What a step raises that does not fit, in one line: a ``UserError``."""
    do = "use more micro-batches, or model.remat=True"
    return device_errors("train.grad_accum", config.train.grad_accum, do)


def step_bytes(program: jax.stages.Compiled) -> int:
    """Bytes that a program takes on a device: state, images, results and all between."""
    stats = program.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        # Results that lie where the old state was.
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )


def _fewest(config: ConfigDict) -> int:
    share, limit = config.train.batch_size // jax.device_count(), memory_limit()
    # Of one micro-batch alone; no number needs less than its share of that.
    whole = 0.0
    for number in range(1, share + 1):
        if share % number or whole / number > limit:
            continue
        logging.info("train.grad_accum: trying %d micro-batches", number)
        needed = _needed(_with(config, number))
        whole = max(whole, needed * number if needed < math.inf else 0)
        if needed <= limit:
            logging.info(
                "train.grad_accum: %d micro-batches of %d images, for %.0f of %.0f MiB fit",
                number,
                share // number,
                needed / _MIB,
                limit / _MIB,
            )
            return number
    raise UserError(
        "train.grad_accum",
        config.train.grad_accum,
        f"a step of one image at a time needs more than the {limit / _MIB:,.0f} MiB there are",
        "use model.remat=True, or a smaller model.fmap_max or data.image_size",
    )


def _needed(config: ConfigDict) -> float:
    """Bytes of the step that takes most; infinite where the compiler finds no way."""
    gan = build_gan(config)
    programs = make_update(gan, recipe_of(config, num_images=1)).programs()
    # With the penalty, where there is one.
    name, (program, _) = next(iter(programs.items()))
    # Not waited for where somebody asks for the end.
    pool = concurrent.futures.ThreadPoolExecutor(1, THREADS)
    compiling = begin_compiling(pool, name, program, gan, config)
    pool.shutdown(wait=False)
    try:
        return step_bytes(compiling.compiled())
    except jax.errors.JaxRuntimeError as error:
        # Nor a want of room on the disk, for what a GPU has tuned.
        if "RESOURCE_EXHAUSTED" not in str(error) or "No space left" in str(error):
            raise
        return math.inf


def _with(config: ConfigDict, number: int) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.train.grad_accum = number
    return config
