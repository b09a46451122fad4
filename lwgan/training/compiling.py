"""The step's programs, compiled on threads while everything else gets ready."""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.stages
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from lwgan.runs import processes
from lwgan.runs.compiled import THREADS
from lwgan.training.devices import describe_devices
from lwgan.training.gradients import Terms
from lwgan.training.recipes import images_shape
from lwgan.training.state import Gan, TrainState, state_shapes
from lwgan.training.step import Program, Update

# Seconds between lines of the log.
_PAUSE = 30


@dataclasses.dataclass(frozen=True)
class Compiling:
    """A program that is being compiled; whoever needs it waits."""

    # In words.
    name: str
    began: float
    future: "concurrent.futures.Future[jax.stages.Compiled]"

    def __call__(
        self, state: TrainState, images: np.ndarray, augment_prob: np.float32
    ) -> tuple[TrainState, Terms]:
        return self.compiled()(state, images, augment_prob)

    def compiled(self) -> jax.stages.Compiled:
        """The program, waited for; the log says for how long now and then."""
        waited = False
        # Every step asks.
        while not self.future.done():
            if not concurrent.futures.wait([self.future], _PAUSE).done:
                seconds = time.monotonic() - self.began
                logging.info("Compiling the %s step: %.0f s so far", self.name, seconds)
                waited = True
        if waited:
            logging.info("Compiled the %s step", self.name)
        return self.future.result()


def lower(program: Program, gan: Gan, config: ConfigDict) -> jax.stages.Lowered:
    """A program of the step as XLA gets it."""
    given = state_shapes(gan), images_shape(config)
    if processes.are_several():
        # Of which pmap takes no shapes.
        given = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), given)
    return program.lower(*given, np.float32(0))


def begin_compiling(
    pool: concurrent.futures.Executor, name: str, program: Program, gan: Gan, config: ConfigDict
) -> Compiling:
    """A program of the step, which a thread of the pool compiles."""
    future = pool.submit(lambda: lower(program, gan, config).compile())
    return Compiling(name, time.monotonic(), future)


@contextlib.contextmanager
def compiled_ahead(update: Update, gan: Gan, config: ConfigDict) -> Iterator[Update]:
    """The update, whose programs are compiled on threads; leaving the block waits for them.

    Those that are kept in the user's cache take a few seconds to be traced and read.
    """
    began = time.monotonic()
    # It tries out ways to compute each convolution.
    patience = "; on a GPU, minutes at the first start" if jax.default_backend() == "gpu" else ""
    logging.info("Compiling for %s%s", describe_devices(), patience)
    pool = concurrent.futures.ThreadPoolExecutor(2, THREADS)
    programs = {
        name: begin_compiling(pool, name, program, gan, config)
        for name, (program, _) in update.programs().items()
    }
    pool.shutdown(wait=False)
    yield dataclasses.replace(update, **programs)
    for program in programs.values():
        program.compiled()
    logging.info("Ready after %.0f s", time.monotonic() - began)
