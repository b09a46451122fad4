"""Reads the networks of a lightweight-gan 1.2.1 checkpoint into lwgan's.

The checkpoint's ``GAN`` entry holds the generator ``G``, its average ``GE``, the discriminator
``D``, and the discriminator once more under ``D_aug.D``. Its tensors' names and shapes say all that
is to know about the architecture. They do not say which loss the networks were trained with, and
the two losses give the logits opposite signs.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from lwgan.models.build import (
    CHANNELS,
    build_discriminator,
    build_generator,
    discriminator_shapes,
    generator_shapes,
)
from lwgan.models.generator import EXCITATIONS
from lwgan.models.layers import frequency_weights

Tensors = Mapping[str, np.ndarray]
Tree = dict[str, Any]

MODES = {channels: mode for mode, channels in CHANNELS.items()}

# The settings that no tensor tells, because lightweight-gan 1.2.1 fixes them.
FIXED_SETTINGS = {
    "fmap_inverse_coef": 12,
    "disc_fmap_inverse_coef": -1,
    "min_channels": 3,
    "attn_heads": 8,
    "attn_head_dim": 64,
    "icnr_init": False,
    "output": "linear",
    "side_channels": 64,
    "side_attention": True,
    "recon_size": 128,
    "remat": False,
}


class Imported(NamedTuple):
    """The networks of a checkpoint: settings, and Flax trees of float32 arrays."""

    # Groups `data` and `model`.
    settings: dict[str, dict[str, Any]]
    g_params: Tree
    g_stats: Tree
    ema_params: Tree
    ema_stats: Tree
    d_params: Tree


def convert(tensors: Tensors) -> Imported:
    """The networks and their settings from the tensors of a checkpoint's ``GAN`` entry, by name.

    Raises ``ValueError`` where the tensors are not those of lightweight-gan 1.2.1: one is missing,
    has an unexpected name or shape, or a filter that should be fixed has other values.
    """
    unknown = [name for name in tensors if _network(name) not in ("G", "GE", "D", "D_aug")]
    if unknown:
        raise _not_ours(f"unknown {_some(unknown)}")
    settings = infer_settings(tensors)
    expected_g, expected_d = _expected(settings)
    g_table = generator_table(settings["data"]["image_size"])
    d_table = discriminator_table(settings["data"]["image_size"])
    g = _place(tensors, "G", g_table, expected_g)
    ema = _place(tensors, "GE", g_table, expected_g)
    d = _place(tensors, "D", d_table, expected_d)
    return Imported(
        settings, g["params"], g["batch_stats"], ema["params"], ema["batch_stats"], d["params"]
    )


def infer_settings(tensors: Tensors) -> dict[str, dict[str, Any]]:
    """The ``data`` and ``model`` settings of the networks, from the tensors' names and shapes.

    ``fmap_max`` is the width of the generator's first layer: the true one below 1024, and 1024 for
    every larger one, which gives the same networks. Images of less than 128 px have no skip-layer
    excitation, so that ``freq_chan_attn`` makes no difference and is False.

    Raises ``ValueError`` where a tensor that tells a setting is missing or makes no sense.
    """
    layers = _count(tensors, "G.layers.{}.0.3.weight")
    image_size = 2 ** (layers + 2)
    channels = _shape(tensors, "G.out_conv.weight")[0]
    if channels not in MODES:
        raise _not_ours(f"images of {channels} channels")
    # Where the two networks may have attention: the pixels at the input of each layer.
    g_sizes = {2 ** (i + 2): f"G.layers.{i}.2.fn.to_q.weight" for i in range(layers)}
    d_sizes = {
        size: f"D.residual_layers.{i}.1.fn.to_q.weight"
        for i, size in enumerate(_residual_sizes(image_size))
    }
    attended = {
        size for sizes in (g_sizes, d_sizes) for size, name in sizes.items() if name in tensors
    }
    data = {"image_size": image_size, "mode": MODES[channels], "label_names": ()}
    model = {
        **FIXED_SETTINGS,
        "latent_dim": _shape(tensors, "G.initial_conv.0.weight")[0],
        "fmap_max": _shape(tensors, "G.layers.0.0.2.1.weight")[0] // 2,
        "attn_resolutions": tuple(sorted(attended)),
        "freq_chan_attn": any(name.endswith(".dct_weights") for name in tensors),
        "antialias": "G.layers.0.0.1.f" in tensors,
        "disc_output_size": 5 if "D.to_logits.0.weight" in tensors else 1,
    }
    return {"data": data, "model": model}


class Place(NamedTuple):
    """Where a tensor goes: the path of a Flax array in its collection, and the order of axes."""

    path: str
    axes: tuple[int, ...] | None = None


Table = dict[str, Place]


def generator_table(image_size: int) -> Table:
    """Where each tensor of a generator goes, by its name; also for options that it may not have."""
    table = {
        "initial_conv.0.weight": Place("params/initial/kernel", (0, 2, 3, 1)),
        "initial_conv.0.bias": Place("params/initial/bias"),
        **_batch_norm("initial_conv.1", "initial/norm"),
        **_conv("out_conv", "out"),
    }
    for i in range(int(math.log2(image_size)) - 2):
        size = 2 ** (i + 3)
        block, layer = f"block_{size}", f"layers.{i}"
        table |= {
            **_conv(f"{layer}.0.0.net.0", f"{block}/upsample/conv"),
            **_conv(f"{layer}.0.2.1", f"{block}/conv"),
            f"{layer}.0.3.weight": Place(f"params/{block}/noise_gain"),
            **_batch_norm(f"{layer}.0.4", f"{block}/norm"),
            **_attention(f"{layer}.2", f"attention_{size // 2}"),
        }
        if size in EXCITATIONS:
            excitation = f"excitation_{EXCITATIONS[size]}"
            table |= {
                **_conv(f"{layer}.1.to_k", f"{excitation}/pixel_logits"),
                **_conv(f"{layer}.1.net.0", f"{excitation}/squeeze"),
                **_conv(f"{layer}.1.net.2", f"{excitation}/excite"),
            }
    return table


def discriminator_table(image_size: int) -> Table:
    """Where each tensor of a discriminator goes, by name; of options that it lacks, too."""
    table = {
        # 5×5 logits.
        **_conv("to_logits.0", "logits_hidden"),
        **_conv("to_logits.2", "logits"),
        # One logit.
        **_conv("to_logits.1", "logits_hidden"),
        **_conv("to_logits.3", "logits"),
        **_conv("to_shape_disc_out.0", "side_conv"),
        **_attention("to_shape_disc_out.1.fn", "side_attention_32"),
        **_downsample("to_shape_disc_out.2", "side_block"),
        **_attention("to_shape_disc_out.3.fn", "side_attention_16"),
        **_conv("to_shape_disc_out.5", "side_logits"),
        **_decoder("decoder1", "decoder"),
        **_decoder("decoder2", "quadrant_decoder"),
    }
    for i in range(int(math.log2(image_size)) - 8):
        table |= _conv(f"non_residual_layers.{i}.1", f"strided_{image_size // 2 ** (i + 1)}")
    for i, size in enumerate(_residual_sizes(image_size)):
        table |= {
            **_attention(f"residual_layers.{i}.1", f"attention_{size}"),
            **_downsample(f"residual_layers.{i}.0", f"block_{size // 2}"),
        }
    return table


def _residual_sizes(image_size: int) -> list[int]:
    """The sizes in pixels at the inputs of the discriminator's residual layers."""
    return [2**r for r in range(min(8, int(math.log2(image_size))), 3, -1)]


def _conv(theirs: str, ours: str) -> Table:
    return {
        # OIHW to HWIO.
        f"{theirs}.weight": Place(f"params/{ours}/kernel", (2, 3, 1, 0)),
        f"{theirs}.bias": Place(f"params/{ours}/bias"),
    }


def _batch_norm(theirs: str, ours: str) -> Table:
    return {
        f"{theirs}.weight": Place(f"params/{ours}/scale"),
        f"{theirs}.bias": Place(f"params/{ours}/bias"),
        f"{theirs}.running_mean": Place(f"batch_stats/{ours}/mean"),
        f"{theirs}.running_var": Place(f"batch_stats/{ours}/var"),
    }


def _attention(theirs: str, ours: str) -> Table:
    return {
        f"{theirs}.norm.g": Place(f"params/{ours}/norm/scale", (0, 2, 3, 1)),
        f"{theirs}.norm.b": Place(f"params/{ours}/norm/bias", (0, 2, 3, 1)),
        **_conv(f"{theirs}.fn.to_lin_q", f"{ours}/linear_q"),
        **_conv(f"{theirs}.fn.to_lin_kv.net.0", f"{ours}/linear_depthwise"),
        **_conv(f"{theirs}.fn.to_lin_kv.net.1", f"{ours}/linear_kv"),
        **_conv(f"{theirs}.fn.to_q", f"{ours}/local_q"),
        **_conv(f"{theirs}.fn.to_kv", f"{ours}/local_kv"),
        **_conv(f"{theirs}.fn.to_out", f"{ours}/out"),
    }


def _downsample(theirs: str, ours: str) -> Table:
    return {
        **_conv(f"{theirs}.branches.0.1.1", f"{ours}/conv1"),
        **_conv(f"{theirs}.branches.0.3", f"{ours}/conv2"),
        **_conv(f"{theirs}.branches.1.2", f"{ours}/pooled"),
    }


def _decoder(theirs: str, ours: str) -> Table:
    table = {}
    for i, size in enumerate((16, 32, 64, 128)):
        table |= _conv(f"{theirs}.layers.{i}.0.net.0", f"{ours}/upsample_{size}/conv")
        table |= _conv(f"{theirs}.layers.{i}.1", f"{ours}/conv_{size}")
    return table


def _is_blur(tensor: np.ndarray) -> bool:
    return np.array_equal(tensor, [1, 2, 1])


def _is_cosines(tensor: np.ndarray) -> bool:
    if tensor.ndim != 4 or tensor.shape[0] != 1 or tensor.shape[2] != tensor.shape[3]:
        return False
    expected = np.asarray(frequency_weights(*tensor.shape[2:], tensor.shape[1]))
    return np.allclose(tensor[0].transpose(1, 2, 0), expected, rtol=0, atol=1e-6)


# What is no weight, by the last part of its name, and how to tell that it is as expected.
BUFFERS: dict[str, Callable[[np.ndarray], bool]] = {
    "f": _is_blur,
    "dct_weights": _is_cosines,
    "num_batches_tracked": lambda tensor: True,
}


def _place(tensors: Tensors, network: str, table: Table, expected: Tree) -> Tree:
    """The tensors of ``network`` as the tree of Flax collections that ``expected`` has."""
    placed = {}
    unknown = []
    for name, tensor in tensors.items():
        if _network(name) != network:
            continue
        is_expected = BUFFERS.get(name.rpartition(".")[2])
        if is_expected is not None:
            if not is_expected(tensor):
                raise _not_ours(f"other values in {name}")
        elif (place := table.get(name.removeprefix(f"{network}."))) is None:
            unknown.append(name)
        elif place.path in placed:
            raise _not_ours(f"{name} besides another tensor for {place.path}")
        else:
            array = np.asarray(tensor, np.float32)
            placed[place.path] = _transpose(name, array, place.axes)
    if unknown:
        raise _not_ours(f"unknown {_some(unknown)}")

    names = {place.path: name for name, place in table.items()}
    expected = flatten_dict(expected, sep="/")
    if missing := expected.keys() - placed.keys():
        raise _not_ours(f"missing {_some(f'{network}.{names[path]}' for path in missing)}")
    if unused := placed.keys() - expected.keys():
        raise _not_ours(f"unexpected {_some(f'{network}.{names[path]}' for path in unused)}")
    for path, array in placed.items():
        if array.shape != expected[path].shape:
            raise _not_ours(
                f"{network}.{names[path]} (lwgan's {path}) of shape {array.shape} in lwgan's order "
                f"of axes instead of {expected[path].shape}"
            )
    return unflatten_dict(placed, sep="/")


def _transpose(name: str, array: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    if axes is None:
        return array
    if array.ndim != len(axes):
        raise _not_ours(f"{name} of shape {array.shape}")
    return np.ascontiguousarray(array.transpose(axes))


def _expected(settings: dict[str, dict[str, Any]]) -> tuple[Tree, Tree]:
    """The shapes of the generator's and the discriminator's collections under these settings."""
    config = ConfigDict(settings)
    generator, discriminator = build_generator(config), build_discriminator(config)
    d_shapes = discriminator_shapes(discriminator, generator.image_size, generator.channels)
    return generator_shapes(generator), {"params": d_shapes}


def _network(name: str) -> str:
    """The network that a tensor belongs to: the first part of its name."""
    return name.partition(".")[0]


def _count(tensors: Tensors, name: str) -> int:
    """How many of ``name`` there are, counted from 0; raises ``ValueError`` where fewer than 3."""
    count = 0
    while name.format(count) in tensors:
        count += 1
    if count < 3:
        raise _not_ours(f"missing {name.format(count)}")
    return count


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise _not_ours(f"missing {name}")
    return tensors[name].shape


def _some(names: Iterable[str]) -> str:
    """Three names at most, and how many more."""
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _not_ours(what: str) -> ValueError:
    return ValueError(f"not a checkpoint of lightweight-gan 1.2.1: {what}")
