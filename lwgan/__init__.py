"""lwgan: light generative adversarial networks for small sets of pictures, in JAX and Flax.

``lwgan.load(workdir)`` is the generator of a run.
"""

from typing import Any

__version__ = "0.1.0"

_LAZY = {"load": "lwgan.trained"}  # what is imported when it is asked for: JAX takes a second


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'lwgan' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
