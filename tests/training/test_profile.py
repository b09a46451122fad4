"""A profile of a few steps: wherever training goes on from, and however it ends."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from lwgan.training.profile import profiling


@pytest.fixture(autouse=True)
def no_trace_stays_open(tmp_path):
    yield
    jax.profiler.start_trace(tmp_path / "second")
    jax.profiler.stop_trace()
    assert list((tmp_path / "second").rglob("*.xplane.pb"))


def run(folder, first, last, ends=None, events=None):
    """Steps of a training that ends at ``ends``, or at ``last``; their numbers go to ``events``."""
    state = {"weights": jnp.zeros(3)}
    with profiling(folder, first, last) as action:
        for step in range(first + 1, (ends or last) + 1):
            state = {"weights": state["weights"] + 1}
            if events is not None:
                events.append(step)
            action(step, state, {})
    return int(state["weights"][0])


@pytest.fixture
def events(monkeypatch):
    """What is called of JAX, among the steps."""
    noted = []

    def note(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda given: (noted.append(name), function(given)))

    note(jax, "block_until_ready")
    note(jax.profiler, "start_trace")
    stop = jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (noted.append("stop_trace"), stop()))
    return noted


@pytest.mark.parametrize(
    ("first", "last", "ends", "start", "stop"),
    [
        (0, 40, None, 10, 15),
        (500, 900, 530, 510, 515),
        # It ends early.
        (500, 900, 512, 510, 512),
        # Few steps.
        (0, 12, None, 8, 12),
        (0, 3, None, 2, 3),
        (7, 9, None, 8, 9),
    ],
)
def test_a_few_steps_are_traced(tmp_path, events, caplog, first, last, ends, start, stop):
    caplog.set_level("INFO", logger="absl")
    where = tmp_path / "run" / "profile"
    assert run(where, first, last, ends, events) == (ends or last) - first
    # Where training ends early, nobody waits for its last step.
    waits = ["block_until_ready"] if stop in (start + 5, last) else []
    expected = [*range(first + 1, start + 1), "start_trace", *range(start + 1, stop + 1)]
    expected += [*waits, "stop_trace", *range(stop + 1, (ends or last) + 1)]
    assert events == expected
    assert len(list(where.rglob("*.xplane.pb"))) == 1
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"A profile of the steps from {start + 1} on is in {where}"]


@pytest.mark.parametrize("ends", [5, 10, 12, 13, 30])
def test_an_error_in_training_closes_the_trace_and_passes(tmp_path, ends):
    with (
        pytest.raises(ZeroDivisionError),
        profiling(tmp_path / "profile", 0, 40) as action,
    ):
        for step in range(1, ends):
            action(step, {"weights": jnp.zeros(3)}, {})
        raise ZeroDivisionError
    assert bool(list(tmp_path.rglob("profile/**/*.xplane.pb"))) == (ends > 10)


@pytest.mark.parametrize("steps", [0, 1])
def test_less_than_two_steps_have_no_profile(tmp_path, caplog, steps):
    assert run(tmp_path / "profile", 7, 7 + steps) == steps
    assert f"There will be no profile: it takes two steps, and {7 + steps} is" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "profile", 0, 20) == 20
    assert caplog.text.count("The profile could not be written: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_trace_of_somebody_else_goes_on(tmp_path, caplog):
    jax.profiler.start_trace(tmp_path / "other")
    with contextlib.ExitStack() as stack:
        stack.callback(jax.profiler.stop_trace)
        assert run(tmp_path / "profile", 0, 20) == 20
    assert caplog.text.count("The profile could not be written: ") == 1
    assert list(tmp_path.rglob("other/**/*.xplane.pb"))
    assert not (tmp_path / "profile").exists()
