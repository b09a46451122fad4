"""What follows the save of a step: samples and evaluation.

Their failure costs nothing but themselves: it is a warning. Where the end of the process came
before theirs, the next start makes up for them.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from absl import logging
from clu import metric_writers

from lwgan.errors import Interrupted
from lwgan.metrics.evaluator import Evaluator
from lwgan.runs import processes
from lwgan.runs.checkpoint import Onlooker, Saver
from lwgan.runs.files import write_text
from lwgan.runs.tracking import tracked
from lwgan.training.actions import Action, Making, evaluate_action, sample_action
from lwgan.training.session import Session
from lwgan.training.signals import Signals
from lwgan.training.state import TrainState

# In the run, while a start makes up for something: [its step, the number of the attempt].
ATTEMPT = "attempt-{}.json"
# Ends of the process in the same thing, after which it is left out.
MOST_ATTEMPTS = 2


class Follower(NamedTuple):
    """Something that follows a save."""

    # What it makes, in a word.
    what: str
    # Steps.
    every: int
    # Whether its own steps are saved too.
    is_saved: bool
    # It ends by tracking scalars whose names begin so.
    scalars: str
    action: Making

    def is_due(self, step: int, last: int) -> bool:
        """Whether it follows this step; something always follows the last one."""
        return step % self.every == 0 or step == last

    def follow(self, step: int, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Does it; a failure is a warning, but where other processes would wait for the rest."""
        with self._failing(step, is_fatal=processes.are_several()):
            write = self.action(step, state, metrics)
            with self._failing(step):
                if processes.is_first():
                    write()

    @contextlib.contextmanager
    def _failing(self, step: int, *, is_fatal: bool = False) -> Iterator[None]:
        try:
            yield
        # Of memory, of the disk, of a codec, of a library.
        except Exception as error:
            if is_fatal:
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            logging.warning("The %s of step %d failed; going on: %s", self.what, step, reason)


def build_followers(
    session: Session, evaluator: Evaluator | None, writer: metric_writers.MetricWriter
) -> list[Follower]:
    """What follows the saves of a run."""
    config, followers = session.config, []
    if config.sample.every:
        action = sample_action(session, writer)
        followers.append(Follower("samples", config.sample.every, False, "samples/", action))
    if evaluator:
        action, scalars = evaluate_action(session, evaluator, writer), f"{config.eval.features}/"
        followers.append(Follower("figures", config.eval.every, True, scalars, action))
    return followers


def missing_at(
    followers: Collection[Follower], workdir: pathlib.Path, step: int, last: int
) -> list[Follower]:
    """What should have followed the save of a step, by the scalars that are tracked there."""
    names = tracked(workdir, step)

    def is_done(follower: Follower) -> bool:
        return any(name.startswith(follower.scalars) for name in names)

    return [f for f in followers if 0 < step and f.is_due(step, last) and not is_done(f)]


def after_saving(
    follower: Follower, saver: Saver | Onlooker, last: int, signals: Signals
) -> Action:
    """The follower, when it is due: nothing that is saved is at stake then.

    Where its own step is saved, an end may come at once.
    """

    def action(step: int, state: TrainState, metrics: Mapping[str, float]) -> None:
        if not follower.is_due(step, last):
            return
        saver.wait()
        with _ending_early(signals) if saver.step == step else contextlib.nullcontext():
            follower.follow(step, state, metrics)

    return action


def _ending_early(signals: Signals) -> contextlib.AbstractContextManager:
    """An end at once, but among several processes: the others would wait for the rest."""
    return contextlib.nullcontext() if processes.are_several() else signals.at_once()


def make_up_for(
    followers: Collection[Follower],
    session: Session,
    state: TrainState,
    metrics: Mapping[str, float],
    signals: Signals,
) -> None:
    """Does what the last process has left undone at the step that it has saved.

    What has ended the process time and again (out of memory, say) is left out.

    Raises:
      Interrupted: somebody has asked for the end.
    """
    step, last = int(state.step), session.config.train.num_steps

    def missing() -> list[str]:
        found = missing_at(followers, session.workdir, step, last)
        return [f.what for f in found if _has_a_chance(f, session.workdir, step)]

    names = processes.of_first(missing)
    for follower in followers:
        if follower.what not in names:
            continue
        attempt = _attempting(session.workdir / ATTEMPT.format(follower.what), step, signals)
        with attempt if processes.is_first() else contextlib.nullcontext():
            logging.info("Making up for the %s of step %d", follower.what, step)
            with _ending_early(signals):
                follower.follow(step, state, metrics)


def _has_a_chance(follower: Follower, workdir: pathlib.Path, step: int) -> bool:
    if _attempts(workdir / ATTEMPT.format(follower.what), step) < MOST_ATTEMPTS:
        return True
    words = "The %s of step %d have ended the process %d times: left out"
    logging.warning(words, follower.what, step, MOST_ATTEMPTS)
    return False


@contextlib.contextmanager
def _attempting(path: pathlib.Path, step: int, signals: Signals) -> Iterator[None]:
    """Notes in a file that an attempt is under way, or has ended the process."""
    with contextlib.suppress(OSError):
        write_text(path, json.dumps([step, 1 + _attempts(path, step)]))
    forget = functools.partial(_forget, path)
    signals.before_exit.append(forget)
    try:
        yield
    except Interrupted:
        forget()
        raise
    else:
        forget()
    finally:
        signals.before_exit.remove(forget)


def _forget(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _attempts(path: pathlib.Path, step: int) -> int:
    """How often a start has ended in making up for this."""
    try:
        of_step, attempts = json.loads(path.read_text())
        return int(attempts) if of_step == step else 0
    except (OSError, ValueError, TypeError):
        return 0
