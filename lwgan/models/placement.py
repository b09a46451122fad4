"""Where arrays lie: whole on each device, or divided over them.

All devices are those of all processes. What is computed there is asked for by each process in the
same order, with the same arrays.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The name of the axis over devices.
AXIS = "batch"


def whole() -> NamedSharding:
    """Each device has all of it."""
    return NamedSharding(_mesh(jax.devices()), PartitionSpec())


def whole_here() -> NamedSharding:
    """Each device of this process has all of it."""
    return NamedSharding(_mesh(jax.local_devices()), PartitionSpec())


def divided() -> NamedSharding:
    """Each device has a part of the first axis."""
    return NamedSharding(_mesh(jax.devices()), PartitionSpec(AXIS))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """A tree of arrays, of which each process has the whole, on the devices."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def parts(array: np.ndarray) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])

    return jax.tree.map(parts, tree)


def fetch(array: jax.Array) -> np.ndarray:
    """The whole of an array, from all devices."""
    return process_allgather(array, tiled=True) if jax.process_count() > 1 else np.asarray(array)


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))
