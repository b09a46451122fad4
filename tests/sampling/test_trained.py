"""A run's generator from Python: which weights, which checkpoint, and what is refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import lwgan
from lwgan.errors import UserError
from lwgan.models.build import build_generator
from lwgan.sampling.sampler import Sampler, to_uint8
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    tiny.save_run(path, (3, 12), tiny.config())
    return path


@pytest.mark.parametrize(("step", "weights"), [(None, "ema"), (3, "ema"), (12, "raw")])
def test_load_takes_step_and_weights(workdir, step, weights):
    loaded = lwgan.load(str(workdir), step, weights)
    assert (loaded.step, loaded.weights) == (step or 12, weights)
    saved = tiny.random_state(tiny.gan(), loaded.step)
    expected = {"ema": (saved.ema_params, saved.ema_stats), "raw": (saved.g_params, saved.g_stats)}
    own = Sampler(build_generator(tiny.config()), *expected[weights])
    latents = own.latents(5, 3)
    np.testing.assert_array_equal(loaded(latents, seed=1), own(latents, seed=1))


def test_it_is_shown_in_a_line(workdir):
    shown = f"Trained(run={str(workdir)!r}, step=3, weights='raw', 32 px rgb, latents of 8)"
    assert repr(lwgan.load(workdir, 3, "raw")) == shown


def test_sample_is_what_the_command_draws(workdir):
    loaded = lwgan.load(workdir)
    images = loaded.sample(seed=7, num_images=5)
    assert images.shape == (5, 32, 32, 3) and images.dtype == np.uint8
    expected = to_uint8(loaded(loaded.latents(7, 5), 7, 5))
    np.testing.assert_array_equal(images, expected)


def changed(workdir, target, name, change):
    """A copy of the run with a file rewritten."""
    shutil.copytree(workdir, target)
    (target / name).write_text(change((target / name).read_text()))
    return target


def with_value(text, *names, value):
    found = json.loads(text)
    inner = found
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    return json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 4}, r"--step = 4: has no checkpoint; choose from 3, 12\."),
        ({"weights": "both"}, "weights = 'both': must be one of ema, raw"),
    ],
)
def test_load_refuses(workdir, arguments, message):
    with pytest.raises(UserError, match=message):
        lwgan.load(workdir, **arguments)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("run.json", lambda t: with_value(t, "format", value=0), "format 0, .* install an older"),
        ("run.json", lambda t: with_value(t, "format", value=99), "format 99, .* install a newer"),
        (
            "config.json",
            lambda t: with_value(t, "model", "fmap_max", value=4),
            "checkpoint 12 is of other networks than the settings",
        ),
    ],
)
def test_changed_runs_are_refused(workdir, tmp_path, name, change, message):
    with pytest.raises(UserError, match=message):
        lwgan.load(changed(workdir, tmp_path / "run", name, change))


def test_what_lwgan_offers_is_imported_when_asked_for():
    code = (
        "import sys, lwgan\n"
        "print(*{'jax', 'flax', 'tensorflow', 'aim'} & set(sys.modules))\n"
        "lwgan.load\n"
        "print(*{'tensorflow', 'aim', 'clu'} & set(sys.modules))\n"
        "print(lwgan.train is sys.modules['lwgan.training.loop'].train)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("\n\nTrue\n", 0), ended.stderr
    assert {"default_config", "load", "train"} <= set(dir(lwgan))
    with pytest.raises(AttributeError, match="lode"):
        _ = lwgan.lode
