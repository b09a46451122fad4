"""The import of lightweight-gan's checkpoints, from stored lists of their tensors' names and
shapes.
"""

import jax
import numpy as np
import pytest

from lwgan.interop.torch_weights import FIXED_SETTINGS, convert
from tests.house import ROOT

DATA = ROOT / "tests" / "fixtures"


def _cosines(channels, side):
    """(1, channels, side, side), number by number."""

    def wave(frequency, i):
        scale = 1 if frequency == 0 else np.sqrt(2)
        return np.cos(np.pi * frequency * (i + 0.5) / side) / np.sqrt(side) * scale

    weights = np.zeros((1, channels, side, side), np.float32)
    group = channels // 16
    for g in range(16):
        u, v = (0, g) if g < 8 else (g - 8, 0)
        for y, x in np.ndindex(side, side):
            weights[0, g * group : (g + 1) * group, y, x] = wave(u, y) * wave(v, x)
    return weights


def _checkpoint(name):
    """Tensors of the names and shapes in a file, with random values; GE and D_aug as in the
    package.
    """
    generator = np.random.default_rng(0)

    def tensor(name, shape):
        if name.endswith(".f"):
            return np.array([1, 2, 1], np.float32)
        if name.endswith(".dct_weights"):
            return _cosines(shape[1], shape[2])
        if name.endswith(".num_batches_tracked"):
            return np.array(7)
        return generator.normal(size=shape).astype(np.float32)

    tensors = {}
    for line in (DATA / f"lightweight_gan_{name}.txt").read_text().splitlines():
        name, sizes = line.split()
        shape = () if sizes == "-" else tuple(map(int, sizes.split("x")))
        copy = f"GE.{name[2:]}" if name.startswith("G.") else f"D_aug.{name}"
        tensors |= {name: tensor(name, shape), copy: tensor(name, shape)}
    return tensors


@pytest.fixture
def small():
    return _checkpoint("32px")


@pytest.fixture
def large():
    return _checkpoint("128px")


def test_settings(small, large):
    assert convert(small).settings == {
        "data": {"image_size": 32, "mode": "rgb", "label_names": ()},
        "model": FIXED_SETTINGS
        | {
            "latent_dim": 16,
            "fmap_max": 16,
            "attn_resolutions": (16,),
            "freq_chan_attn": False,
            "antialias": False,
            "disc_output_size": 5,
        },
    }
    assert convert(large).settings == {
        "data": {"image_size": 128, "mode": "rgba", "label_names": ()},
        "model": FIXED_SETTINGS
        | {
            "latent_dim": 8,
            "fmap_max": 32,
            "attn_resolutions": (4, 32),
            "freq_chan_attn": True,
            "antialias": True,
            "disc_output_size": 1,
        },
    }


def test_every_number_arrives_once(large):
    """All random, so that equal sorted numbers mean the same numbers."""
    imported = convert(large)

    def numbers(tree):
        return np.sort(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]))

    buffers = (".f", ".dct_weights", ".num_batches_tracked")
    for network, trees in (
        ("G", (imported.g_params, imported.g_stats)),
        ("GE", (imported.ema_params, imported.ema_stats)),
        ("D", imported.d_params),
    ):
        theirs = [
            tensor
            for name, tensor in large.items()
            if name.startswith(f"{network}.") and not name.endswith(buffers)
        ]
        np.testing.assert_array_equal(numbers(trees), numbers(theirs))


def test_order_of_axes(large):
    imported = convert(large)
    theirs = large["G.layers.0.0.2.1.weight"]
    ours = imported.g_params["block_8"]["conv"]["kernel"]
    assert ours[1, 2, 3, 4] == theirs[4, 3, 1, 2]
    theirs = large["G.initial_conv.0.weight"]
    ours = imported.g_params["initial"]["kernel"]
    assert ours[3, 1, 2, 4] == theirs[3, 4, 1, 2]


def test_what_is_no_weight_may_be_absent(small):
    kept = {name: x for name, x in small.items() if not name.startswith("D_aug.")}
    kept = {name: x for name, x in kept.items() if not name.endswith(".num_batches_tracked")}
    ours, theirs = convert(kept), convert(small)
    jax.tree.map(np.testing.assert_array_equal, ours[1:], theirs[1:])


@pytest.mark.parametrize(
    "name",
    [
        "G.initial_conv.0.weight",
        "G.layers.0.0.0.net.0.bias",
        "G.layers.1.0.3.weight",
        "G.layers.2.2.fn.to_q.weight",
        "G.layers.2.2.fn.to_out.bias",
        "G.layers.1.0.4.running_var",
        "GE.layers.2.2.norm.g",
        "GE.out_conv.bias",
        "D.residual_layers.0.0.branches.1.2.weight",
        "D.to_logits.2.weight",
        "D.decoder1.layers.3.1.weight",
    ],
)
def test_missing_tensor(small, name):
    del small[name]
    with pytest.raises(ValueError, match=r"lightweight-gan 1\.2\.1"):
        convert(small)


def test_missing_tensor_is_named(small):
    del small["D.decoder1.layers.3.1.weight"]
    with pytest.raises(ValueError, match=r"missing D\.decoder1\.layers\.3\.1\.weight$"):
        convert(small)


@pytest.mark.parametrize(
    "name",
    [
        "G.something.weight",
        "GE.layers.0.0.5.bias",
        "D.layers.0.weight",
        # Only from 512 px on.
        "D.decoder2.layers.0.1.weight",
        # Without the rest of an attention.
        "D.residual_layers.0.1.fn.to_q.weight",
        "optimizer.step",
    ],
)
def test_unused_tensor(small, name):
    small[name] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"lightweight-gan 1\.2\.1"):
        convert(small)


def test_unused_tensor_is_named(small):
    small["D.something.weight"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"unknown D\.something\.weight$"):
        convert(small)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("G.layers.1.0.4.weight", (31,)),
        ("G.layers.1.0.2.1.weight", (32, 16, 3, 3)),
        ("GE.layers.0.0.2.1.weight", (16, 16, 4, 4)),
        ("D.to_logits.0.weight", (16, 8, 1, 1)),
        ("D.to_logits.0.weight", (16, 16)),
        ("G.out_conv.weight", (5, 16, 3, 3)),
    ],
)
def test_wrong_shape(small, name, shape):
    small[name] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"lightweight-gan 1\.2\.1"):
        convert(small)


@pytest.mark.parametrize(
    "name", ["G.layers.1.0.1.f", "D.to_logits.0.f", "G.layers.1.1.dct_weights"]
)
def test_fixed_filter_with_other_values(large, name):
    large[name] = large[name][..., ::-1] * 2
    with pytest.raises(ValueError, match=f"other values in {name}"):
        convert(large)


def test_no_checkpoint():
    with pytest.raises(ValueError, match="missing G"):
        convert({})
