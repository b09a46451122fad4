"""The devices that there are: what they compute best in, and how much fits on them."""

import jax
from ml_collections import ConfigDict

from lwgan.data.limits import free_memory
from lwgan.errors import UserError
from lwgan.runs import processes

_MIB = 2**20
# Of the memory that is there, what a program may take: allocators need some room.
_USABLE = 0.9


def describe_devices() -> str:
    """The devices in words, with what each has."""
    kinds = dict.fromkeys(device.device_kind for device in jax.local_devices())
    limits = [_said_limit(device) or 0 for device in jax.local_devices()]
    room = f", which has {min(limits) / _MIB:,.0f} MiB for JAX" if min(limits) else ""
    return f"{jax.device_count()} × {' or '.join(kinds)}{room}"


def memory_limit() -> int:
    """Bytes that a program may take on each device of this process.

    Raises:
      UserError: the devices do not say.
    """
    device = jax.local_devices()[0]
    # Cards of a machine may differ.
    limits = [_said_limit(each) for each in jax.local_devices()]
    limit = None if None in limits else min(limits)
    if limit is None and device.platform != "cpu":
        raise UserError(
            "train.grad_accum",
            -1,
            "the device does not say how much memory it has",
            "use 1 or more",
        )
    sharing = processes.beside() * jax.local_device_count()
    return int(_USABLE * (limit or free_memory() / sharing))


def _said_limit(device: jax.Device) -> int | None:
    """Bytes that JAX may have of a device, if that says so."""
    return (device.memory_stats() or {}).get("bytes_limit")


def precision_of(config: ConfigDict) -> str:
    """``train.precision``, or what auto stands for on these devices.

    That is bfloat16 on TPUs, and on GPUs that compute in it (NVIDIA's from compute capability 8.0,
    AMD's that JAX supports); float32 on other GPUs, which have no tf32 either, and on CPUs.
    """
    if config.train.precision != "auto":
        return config.train.precision
    device = jax.local_devices()[0]
    if device.platform == "tpu":
        return "bfloat16"
    if device.platform != "gpu":
        return "float32"
    capability = str(getattr(device, "compute_capability", ""))
    major = capability.partition(".")[0]
    able = int(major) >= 8 if major.isdecimal() else capability.startswith("gfx")
    return "bfloat16" if able else "float32"
