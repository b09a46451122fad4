"""lwgan: light generative adversarial networks for small sets of images, in JAX and Flax.

``lwgan.train(config, workdir)`` trains, as main.py does, with settings that begin as
``lwgan.default_config()``; ``lwgan.load(workdir)`` is the generator of a run.

The modules beside this one are the commands (``python -m lwgan.sample``), with ``cli`` for what
they share, and two that every room uses: ``errors`` and ``keys``. The rooms, from the ground up:

settings    what there is to choose
models      the networks
runs        what lies on disk
data        from files to batches
sampling    from latents to images, grids and videos
metrics     how good samples are
training    the step, and the loop around it
interop     other programs' files
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported when they are asked for: JAX takes a second, and TensorFlow three more.
_HOMES = {
    "default_config": "lwgan.settings.defaults",
    "load": "lwgan.sampling.trained",
    "train": "lwgan.training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lwgan' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
