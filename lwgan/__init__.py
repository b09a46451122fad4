"""lwgan: light generative adversarial networks for small sets of pictures, in JAX and Flax.

``lwgan.train(config, workdir)`` trains, as main.py does; ``lwgan.load(workdir)`` is a run's generator.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported when they are asked for: JAX takes a second, and TensorFlow three more.
_HOMES = {"load": "lwgan.trained", "train": "lwgan.training"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lwgan' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
