"""How much images change along the directions of lwgan.directions, beside random ones.

    python benchmarks/directions.py --workdir=runs/quickstart

Prints the root mean square change of images of 16 latents, without noise, when they are moved by
--length either way.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lwgan
from lwgan.latents.directions import find_directions

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.", required=True)
_LENGTH = flags.DEFINE_float("length", 2.0, "How far.")


def main(argv: list[str]) -> None:
    """Moves along each direction in turn."""
    del argv
    trained = lwgan.load(_WORKDIR.value)
    found = find_directions(trained, 10)
    drawn = np.random.default_rng(0).normal(size=(20, found.vectors.shape[1]))
    drawn = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    latents = np.asarray(trained.latents(seed=1, count=16))
    middle = trained(latents, seed=None).clip(0, 1)

    def change(vector: np.ndarray) -> float:
        ends = [latents + sign * np.float32(_LENGTH.value) * vector for sign in (-1, 1)]
        images = [trained(end, seed=None).clip(0, 1) for end in ends]
        return np.mean([np.sqrt(np.square(image - middle).mean()) for image in images])

    kinds = {"factor": found.vectors[:10], "component": found.vectors[10:], "random": drawn}
    for name, vectors in kinds.items():
        changes = np.array([change(vector) for vector in vectors])
        print(f"{name:9} mean {changes.mean():.3f}: {' '.join(f'{each:.3f}' for each in changes)}")


if __name__ == "__main__":
    app.run(main)
