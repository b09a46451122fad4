"""The generator of a run, as one of its checkpoints has it."""

import dataclasses
import os

import numpy as np

from lwgan.data.decode import unfitted
from lwgan.errors import UserError
from lwgan.models.build import build_generator, generator_shapes
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import Run, read_run
from lwgan.runs.files import local_path
from lwgan.sampling.sampler import Sampler

WEIGHTS = ("ema", "raw")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained(Sampler):
    """A sampler, and what it comes from."""

    run: Run
    step: int
    # "ema": the EMA generator; "raw": the live one.
    weights: str

    def __repr__(self) -> str:
        run = str(self.run.workdir)
        return f"Trained({run=}, step={self.step}, weights={self.weights!r}, {self.kind})"

    def unfitted(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, C) as the run's images were before they were made to fit: to be seen."""
        return unfitted(image, self.run.config.data.fit, self.run.info.aspect)


def load(workdir: str | os.PathLike, step: int | None = None, weights: str = "ema") -> Trained:
    """The EMA generator ("ema") or the live one ("raw") of a run; the newest step by default.

    ``load(workdir).sample(seed=7, num_images=16)`` is uint8 (B, H, W, C), of a run with labels also
    ``.sample(label="boats")``, and calling it with
    latents (B, latent_dim) gives float32 (B, H, W, C).

    Raises:
      UserError: there is no such run or checkpoint.
    """
    if weights not in WEIGHTS:
        raise UserError("weights", weights, f"must be one of {', '.join(WEIGHTS)}", "choose one")
    this_run = read_run(local_path("workdir", workdir))
    return load_step(this_run, manifest.resolve_step(this_run.workdir, step), weights)


def load_step(this_run: Run, step: int, weights: str) -> Trained:
    """The generator at a checkpoint that is whole.

    Raises:
      UserError: the checkpoint is of other networks than the run's settings.
    """
    generator = build_generator(this_run.config)
    like = generator_shapes(generator)
    variables = checkpoint.restore_generator(this_run.workdir, step, like, weights)
    params, stats = variables["params"], variables["batch_stats"]
    names = this_run.config.data.label_names
    return Trained(generator, params, stats, this_run, step, weights, label_names=names)
