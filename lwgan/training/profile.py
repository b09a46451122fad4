"""A profile of a few steps of training."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import jax
from absl import logging

from lwgan.training.gradients import Terms
from lwgan.training.state import TrainState

# Steps before the trace: meanwhile both kinds of step are compiled.
_BEFORE = 10
# Steps that are traced.
_STEPS = 5


@contextlib.contextmanager
def profiling(
    folder: pathlib.Path, first: int, last: int
) -> Iterator[Callable[[int, TrainState, Terms], None]]:
    """An action, to be called after each step, that traces a few of them and writes to ``folder``.

    Of the steps after ``first`` up to ``last`` it traces five, or what there is of the last third
    where they are few. The trace is closed when the context is left, whatever the reason. What goes
    wrong with it is a warning.
    """
    start = first + min(_BEFORE, max(1, (last - first) * 2 // 3))
    if start >= last:
        logging.warning("There will be no profile: it takes two steps, and %d is the last", last)
    with contextlib.ExitStack() as trace:

        def action(step: int, state: TrainState, metrics: Terms) -> None:
            del metrics
            if step == start < last:
                with _only_warning():
                    trace.enter_context(_tracing(folder, step + 1))
            elif step == min(start + _STEPS, last):
                jax.block_until_ready(state)
                trace.close()

        yield action


@contextlib.contextmanager
def _tracing(folder: pathlib.Path, step: int) -> Iterator[None]:
    """Traces what happens inside, from this step on.

    By way of a temporary folder: JAX cannot close a trace that it cannot write.
    """
    with tempfile.TemporaryDirectory() as scratch:
        jax.profiler.start_trace(scratch)
        try:
            yield
        finally:
            with _only_warning():
                jax.profiler.stop_trace()
                shutil.copytree(scratch, folder, dirs_exist_ok=True)
                logging.info("A profile of the steps from %d on is in %s", step, folder)


@contextlib.contextmanager
def _only_warning() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        logging.warning("The profile could not be written: %s", error)
