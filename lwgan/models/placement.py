"""Where arrays lie: whole on each device of this process, or divided over them."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The name of the axis over devices.
AXIS = "batch"


def num_devices() -> int:
    """Of this process."""
    return jax.local_device_count()


def whole() -> NamedSharding:
    """Each device has all of it."""
    return NamedSharding(_mesh(), PartitionSpec())


def divided() -> NamedSharding:
    """Each device has a part of the first axis."""
    return NamedSharding(_mesh(), PartitionSpec(AXIS))


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
