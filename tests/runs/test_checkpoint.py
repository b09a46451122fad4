"""Checkpoints: what comes back is what was saved, and which ones stay."""

import json
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import default
from lwgan.errors import UserError
from lwgan.runs import checkpoint, manifest
from lwgan.training.state import build_gan, init_state, on_devices


def small(**model):
    config = default.get_config()
    config.data.image_size = 32
    config.model.update(latent_dim=8, fmap_max=8, recon_size=16, attn_resolutions=())
    config.model.update(model)
    return config


def shapes(config):
    return jax.eval_shape(lambda: init_state(build_gan(config), 0))


def filled(like, step, seed=0):
    """A state of random arrays, with some numbers that a careless round trip would change."""
    rng = np.random.default_rng(seed)

    def drawn(leaf):
        array = rng.normal(size=leaf.shape).astype(leaf.dtype)
        array.reshape(-1)[:1] = 1e-42 if leaf.dtype == np.float32 else 3
        return array

    return jax.tree.map(drawn, like).replace(step=np.int32(step))


def assert_identical(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def keep(last=3, every=0):
    return ConfigDict({"keep_last": last, "keep_every": every})


@pytest.fixture(scope="module")
def like():
    return shapes(small())


@pytest.fixture(scope="module")
def saved(like, tmp_path_factory):
    """A run with checkpoints at 4 and 7: (directory, states by step)."""
    workdir = tmp_path_factory.mktemp("saved")
    states = {step: filled(like, step, step) for step in (4, 7)}
    with checkpoint.Saver(workdir, keep()) as saver:
        saver.save(states[4], {}, small())
        donated = on_devices(states[7])
        saver.save(donated, {}, small())
        # As the step's donation does.
        jax.tree.map(lambda leaf: leaf.delete(), donated)
    return workdir, states


@pytest.mark.parametrize("step", [4, 7])
def test_state_comes_back_bit_for_bit(saved, like, step):
    workdir, states = saved
    restored = checkpoint.restore(workdir, step, like)
    assert_identical(restored, states[step])
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(restored))


def test_generators_come_back_alone(saved, like):
    workdir, states = saved
    shapes = {"params": like.g_params, "batch_stats": like.g_stats}
    ema = checkpoint.restore_generator(workdir, 7, shapes, "ema")
    assert_identical(ema, {"params": states[7].ema_params, "batch_stats": states[7].ema_stats})
    live = checkpoint.restore_generator(workdir, 7, shapes, "raw")
    assert_identical(live, {"params": states[7].g_params, "batch_stats": states[7].g_stats})


def test_checkpoint_has_items_for_their_readers(saved):
    folder = saved[0] / "checkpoints" / "7"
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"sampler", "training", "meta"}
    meta = json.loads((folder / "meta" / "metadata").read_text())
    assert meta["step"] == 7
    assert meta["settings"]["model"]["fmap_max"] == 8


def test_choose(saved):
    workdir, _ = saved
    assert manifest.saved_steps(workdir) == [4, 7]
    assert manifest.resolve_step(workdir, None) == 7
    assert manifest.resolve_step(workdir, 4) == 4
    with pytest.raises(UserError, match=r"^--step = 5: has no checkpoint; choose from 4, 7\.$"):
        manifest.resolve_step(workdir, 5)


@pytest.mark.parametrize("make", [lambda w: None, lambda w: (w / "checkpoints").mkdir()])
def test_run_without_a_checkpoint(tmp_path, make):
    make(tmp_path)
    before = list(tmp_path.iterdir())
    assert manifest.saved_steps(tmp_path) == []
    with pytest.raises(UserError, match=r"^--workdir = .*: this run has no checkpoint yet"):
        manifest.resolve_step(tmp_path, None)
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"latent_dim": 9},
            r"checkpoint 7 is of other networks .*\(4, 4, 8, 16\).*\(4, 4, 9, 16\)",
        ),
        ({"fmap_max": 4}, r"checkpoint 7 is of other networks .*is \(.* there, and \("),
        ({"attn_resolutions": (8,)}, "attention_8"),
    ],
)
@pytest.mark.parametrize("weights", ["ema", "raw", "all"])
def test_other_networks_are_not_restored(saved, model, message, weights):
    other = shapes(small(**model))
    with pytest.raises(UserError, match=message):
        if weights == "all":
            checkpoint.restore(saved[0], 7, other)
        else:
            own = {"params": other.g_params, "batch_stats": other.g_stats}
            checkpoint.restore_generator(saved[0], 7, own, weights)


def test_a_generator_that_lacks_what_was_saved_is_refused(saved, like):
    """Reading a part would not notice."""
    for collection in ("params", "batch_stats"):
        own = {"params": dict(like.g_params), "batch_stats": dict(like.g_stats)}
        del own[collection]["block_8"]
        for weights in ("ema", "raw"):
            with pytest.raises(UserError, match=r"block_8/.* there, and None by the settings"):
                checkpoint.restore_generator(saved[0], 7, own, weights)


@pytest.mark.parametrize(
    ("last", "every", "left"), [(2, 0, [7, 8]), (1, 4, [0, 4, 8]), (3, 5, [0, 5, 6, 7, 8])]
)
def test_old_checkpoints_go(tmp_path, like, last, every, left):
    with checkpoint.Saver(tmp_path, keep(last, every)) as saver:
        for step in (0, 4, 5, 6, 7, 8):
            saver.save(filled(like, step), {}, small())
    assert manifest.saved_steps(tmp_path) == left


def test_saving_a_step_again_changes_nothing(tmp_path, like):
    first = filled(like, 3)
    for _ in range(2):
        with checkpoint.Saver(tmp_path, keep()) as saver:
            saver.save(first, {}, small())
            saver.save(filled(like, 3, seed=1), {}, small())
    assert manifest.saved_steps(tmp_path) == [3]
    assert_identical(checkpoint.restore(tmp_path, 3, like), first)


def test_half_written_checkpoint_is_none_and_goes(tmp_path, like):
    half = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
    (half / "meta").mkdir(parents=True)
    assert manifest.saved_steps(tmp_path) == []
    with checkpoint.Saver(tmp_path, keep()) as saver:
        saver.save(filled(like, 10), {}, small())
    assert [p.name for p in half.parent.iterdir()] == ["10"]


def test_run_may_be_named_by_a_relative_path(tmp_path, monkeypatch, like):
    monkeypatch.chdir(tmp_path)
    workdir = pathlib.Path("run")
    with checkpoint.Saver(workdir, keep()) as saver:
        saver.save(filled(like, 1), {}, small())
    assert manifest.resolve_step(workdir, None) == 1
    assert_identical(checkpoint.restore(workdir, 1, like), filled(like, 1))


def test_state_on_devices_is_whole_on_each(like):
    first = filled(like, 1)
    placed = on_devices(first)
    assert_identical(placed, first)
    for leaf in jax.tree.leaves(placed):
        assert len(leaf.devices()) == jax.local_device_count()
