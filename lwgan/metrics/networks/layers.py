"""What both networks share: their output, and batch normalisation folded into weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lwgan.errors import UserError
from lwgan.metrics.networks.weights import Tensors

# Of the batch normalisation in both networks.
EPSILON = 1e-3

# Our layer -> their convolution, their normalisation.
Table = dict[str, tuple[str, str | None]]


class Output(NamedTuple):
    """What a network sees in images, float32."""

    # (B, D), pooled.
    features: jax.Array
    # (B, classes).
    logits: jax.Array


def fold(
    network: nn.Module, image_size: int, table: Table, tensors: Tensors, path: str
) -> Mapping[str, Any]:
    """The parameters of ``network`` from those of PyTorch's tensors that the table names.

    Raises:
      UserError: a tensor is missing, or has another shape; ``path`` is named.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    expected = flatten_dict(jax.eval_shape(network.init, jax.random.key(0), images)["params"])
    params = {}
    try:
        for ours, (convolution, normalisation) in table.items():
            kernel, bias = _layer(tensors, convolution, normalisation)
            layer = tuple(ours.split("/"))
            if kernel.shape[:2] == (1, 1) and len(expected[*layer, "kernel"].shape) == 2:
                kernel = kernel[0, 0]
            for name, value in (("kernel", kernel), ("bias", bias)):
                if value.shape != expected[*layer, name].shape:
                    raise ValueError(f"{convolution} has another shape")
                params[*layer, name] = value.astype(np.float32)
    except KeyError as error:
        problem = f"{error.args[0]} is missing"
    except ValueError as error:
        problem = str(error)
    else:
        return unflatten_dict(params)
    raise UserError(
        "weights",
        path,
        f"not the weights of {type(network).__name__}: {problem}",
        "name the file that belongs to it, or leave it out",
    )


def _layer(
    tensors: Tensors, convolution: str, normalisation: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel, (H, W, in, out) or (in, out), and bias (out,)."""
    kernel = np.moveaxis(tensors[convolution + ".weight"].astype(np.float64), (0, 1), (-1, -2))
    if normalisation is None:
        return kernel, tensors[convolution + ".bias"]
    scale, shift, mean, variance = (
        tensors[f"{normalisation}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / np.sqrt(variance + EPSILON)
    return kernel * scale, shift - mean * scale
