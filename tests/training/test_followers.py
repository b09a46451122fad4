"""What follows a save: its failures cost nothing else, and what is missing is made up for."""

import json
import os
import signal
import threading

import jax
import numpy as np
import pytest

from lwgan.errors import Interrupted, UserError
from lwgan.metrics import evaluator
from lwgan.metrics.evaluator import Evaluator
from lwgan.runs import manifest
from lwgan.runs.checkpoint import Saver
from lwgan.training import actions, followers, session
from lwgan.training.followers import ATTEMPT
from lwgan.training.loop import train
from lwgan.training.signals import Signals
from tests import kill_training, tiny
from tests.metrics.test_evaluator import Means


@pytest.fixture(autouse=True)
def means(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluator, "open_features", lambda name, weights, resize: Means())


def settings(**overrides):
    """Steps 2 and 4 draw samples, are measured, and are saved."""
    busy = dict(
        eval__every=2,
        eval__num_images=9,
        eval__features="efficientnet_lite0",
        checkpoint__every=2,
        sample__every=2,
        train__log_every=1,
    )
    return tiny.config(**(busy | overrides))


def names_at(workdir, step):
    return {name for line in kill_training.series(workdir) if line["step"] == step for name in line}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A run that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("quiet") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(evaluator, "open_features", lambda name, weights, resize: Means())
        train(settings(), workdir)
    return workdir


def test_the_checkpoint_comes_first(tmp_path, monkeypatch):
    """It is whole, on the disk, before anything else of the step begins."""
    seen = []

    def watched(function, what):
        def call(*arguments, **options):
            saved = manifest.saved_steps(tmp_path / "run")
            seen.append((what, saved, [manifest.damage(tmp_path / "run", s) for s in saved]))
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(actions, "draw_grids", watched(actions.draw_grids, "samples"))
    monkeypatch.setattr(Evaluator, "measure", watched(Evaluator.measure, "figures"))
    # Samples at 2 and 4, evaluation at 3 and 4, which saves as well.
    train(settings(checkpoint__every=4, eval__every=3), tmp_path / "run")
    assert seen == [
        ("samples", [], []),
        ("figures", [3], [""]),
        ("samples", [3, 4], ["", ""]),
        ("figures", [3, 4], ["", ""]),
    ]


def test_failures_are_warnings_at_every_start(tmp_path, monkeypatch, caplog):
    """As out of memory at the first grid is, and at the same step after every restart."""

    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(actions, "draw_grids", fail)
    monkeypatch.setattr(Evaluator, "measure", fail)
    for last in (2, 3):
        assert train(settings(train__num_steps=last), tmp_path / "run").step == last
    for what in ("samples", "figures"):
        # At step 2, at the start that wants to make up for it, and at step 3, the last one.
        for step, times in ((2, 2), (3, 1)):
            line = f"The {what} of step {step} failed; going on: MemoryError"
            assert caplog.text.count(line) == times
    assert manifest.saved_steps(tmp_path / "run") == [2, 3]
    assert not list((tmp_path / "run").glob(ATTEMPT.format("*")))


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("a\nb"), UserError("", 1, "", "")],
)
def test_failures_of_any_kind_are_a_line(caplog, error):
    def fail(*arguments):
        raise error

    followers.Follower("samples", 2, False, "samples/", fail).follow(2, None, {})
    assert caplog.messages == [
        f"The samples of step 2 failed; going on: {' '.join(str(error).split())}"
    ]


def test_an_interruption_is_no_failure():
    def fail(*arguments):
        raise Interrupted

    with pytest.raises(Interrupted):
        followers.Follower("samples", 2, False, "samples/", fail).follow(2, None, {})


def test_several_processes_end_where_one_cannot_compute(monkeypatch, caplog):
    """For the others would wait; what process 0 cannot write is a warning there too."""
    monkeypatch.setattr(followers.processes, "are_several", lambda: True)
    monkeypatch.setattr(followers.processes, "is_first", lambda: True)

    def fail(*arguments):
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        followers.Follower("samples", 2, False, "samples/", fail).follow(2, None, {})
    assert not caplog.messages
    followers.Follower("samples", 2, False, "samples/", lambda *a: fail).follow(2, None, {})
    assert len(caplog.messages) == 1 and "going on" in caplog.text


@pytest.mark.parametrize(("error", "counts"), [(MemoryError, True), (Interrupted, False)])
def test_an_attempt_that_ends_the_process_counts(tmp_path, error, counts):
    path = tmp_path / "attempt"
    for number in (1, 2):
        with pytest.raises(error), followers._attempting(path, 2, Signals()):
            assert followers._attempts(path, 2) == (number if counts else 1)
            raise error
    assert followers._attempts(path, 2) == (2 if counts else 0)
    with followers._attempting(path, 2, Signals()):
        pass
    assert followers._attempts(path, 2) == 0


def interrupted_in(monkeypatch, home, name):
    """SIGTERM when this is called."""
    function = getattr(home, name)

    def call(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    monkeypatch.setattr(home, name, call)


@pytest.mark.parametrize(
    ("home", "name", "done"),
    [(actions, "draw_grids", set()), (Evaluator, "measure", {"samples/distance"})],
)
def test_a_signal_ends_at_once_and_the_next_start_makes_up_for_it(
    tmp_path, monkeypatch, quiet, home, name, done
):
    with monkeypatch.context() as patch:
        interrupted_in(patch, home, name)
        with pytest.raises(Interrupted, match=r"^saved at step 2; the same command continues$"):
            train(settings(), tmp_path / "run")
    followed = {n for n in names_at(tmp_path / "run", 2) if n.startswith(("samples/", "eff"))}
    assert followed == done | ({"samples/distance_of_reals"} if done else set())
    train(settings(), tmp_path / "run")
    kill_training.compare(quiet, tmp_path / "run")


def test_what_ends_the_process_time_and_again_is_left_out(tmp_path, monkeypatch, caplog):
    train(settings(train__num_steps=2), tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    for attempts, missing in ((1, False), (2, True)):
        (tmp_path / "run" / ATTEMPT.format("samples")).write_text(json.dumps([2, attempts]))
        train(settings(train__num_steps=2), tmp_path / "run")
        assert ("The samples of step 2 have ended the process 2 times" in caplog.text) == missing
        assert ("samples/distance" in names_at(tmp_path / "run", 2)) != missing
        (tmp_path / "run" / "metrics.jsonl").unlink()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", 0),
        ("[]", 0),
        ("{}", 0),
        ('[2, "x"]', 0),
        ("[2]", 0),
        ("[9, 7]", 0),
        ("[2, 1]", 1),
    ],
)
def test_a_damaged_count_of_attempts_is_none(tmp_path, content, expected):
    (tmp_path / "file").write_text(content)
    assert followers._attempts(tmp_path / "file", 2) == expected


def test_usr1_saves_and_goes_on(tmp_path, monkeypatch):
    tiny.before_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    config = tiny.config(checkpoint__every=50, sample__every=0)
    assert train(config, tmp_path / "run").step == 4
    assert manifest.saved_steps(tmp_path / "run") == [3, 4]


@pytest.mark.parametrize("when", ["load_dataset", "build_gan", "make_update"])
def test_a_signal_before_the_first_step_has_nothing_to_save(tmp_path, monkeypatch, when):
    """While images are read, for example; also where the run has a checkpoint already."""
    config = tiny.config(train__num_steps=1, sample__every=0)
    with monkeypatch.context() as patch:
        interrupted_in(patch, session, when)
        with pytest.raises(Interrupted, match=r"^nothing to save yet; the same command continues$"):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    config.train.num_steps = 2
    interrupted_in(monkeypatch, session, when)
    with pytest.raises(Interrupted, match=r"^saved at step 1; the same command continues$"):
        train(config, tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [1]


def test_training_works_in_a_thread(tmp_path):
    """Of a server, or a cell in the background: without handlers of signals."""
    states, before = [], signal.getsignal(signal.SIGTERM)
    config = tiny.config(train__num_steps=1, sample__every=0)
    thread = threading.Thread(target=lambda: states.append(train(config, tmp_path / "run")))
    thread.start()
    thread.join()
    assert [int(state.step) for state in states] == [1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_in_a_notebook_saves(tmp_path, monkeypatch):
    """There, the handler is Python's own; the cell ends by an exception, and the kernel lives."""
    tiny.before_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match="saved at step 3"):
            train(tiny.config(sample__every=0), tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_settings_that_change_are_shown(tmp_path, capsys):
    """An override that is left out goes back, for one."""
    train(tiny.config(train__num_steps=1, sample__every=0, loss__gp_every=2), tmp_path / "run")
    capsys.readouterr()
    train(tiny.config(train__num_steps=2, sample__every=0), tmp_path / "run")
    assert capsys.readouterr().out.splitlines() == [
        f"Continuing the run in {tmp_path / 'run'} at step 1",
        "Settings that differ from those of the last start:",
        "  loss.gp_every    2 -> 4",
        "  train.num_steps  1 -> 2",
    ]


def test_grids_are_drawn_in_pieces_no_larger_than_a_micro_batch(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        actions.Sampler,
        "__call__",
        lambda self, latents, seed, batch_size, labels: sizes.append(batch_size) or np.zeros(1),
    )
    config = tiny.config(train__batch_size=24, train__grad_accum=6)
    state = jax.eval_shape(lambda: session.init_state(session.build_gan(config), 0))
    actions.draw_grids(config, state)
    assert set(sizes) == {24 // 6 // jax.device_count()}


def test_old_checkpoints_that_stay_are_tried_again(tmp_path, monkeypatch, caplog):
    """As on a network drive, where a file that somebody reads cannot be removed."""
    remove = Saver._remove_leftovers.__globals__["remove"]
    stuck = {"1.deleted.1"}

    def busy(path):
        if path.name not in stuck:
            remove(path)

    monkeypatch.setitem(Saver._remove_leftovers.__globals__, "remove", busy)
    plan = dict(checkpoint__every=1, checkpoint__keep_last=1, sample__every=0)
    train(tiny.config(train__num_steps=3, **plan), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["1.deleted.1", "3"]
    stuck.clear()
    train(tiny.config(train__num_steps=3, **plan), tmp_path / "run")
    assert sorted(path.name for path in folder.iterdir()) == ["3"]
