"""The training images that are most like one."""

import dataclasses

import numpy as np

from lwgan.data.cache import load_dataset
from lwgan.data.dataset import Dataset
from lwgan.data.decode import to_rgb
from lwgan.data.holdout import split
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.metrics.extraction import extract_dataset
from lwgan.metrics.networks.features import Features, open_features
from lwgan.runs.directory import Run

# Its weights come with pip.
_FEATURES = "efficientnet_lite0"
_NEAREST = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Reals:
    """The training images of a run, with their features float32 (N, D)."""

    dataset: Dataset
    network: Features
    indices: np.ndarray
    features: np.ndarray

    def nearest(self, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The names and images of those nearest to one, uint8 (H, W, C) each, nearest first."""
        own = self.network(to_rgb(image[None], "white"))
        order = np.argsort(np.square(self.features - own).sum(1))[:_NEAREST]
        return [(self.dataset.names[i], self.dataset.centre(i)) for i in self.indices[order]]


def open_reals(run: Run) -> Reals:
    """Reads the dataset of a run, and computes the features once.

    Raises:
      UserError: the dataset is not there, or is another.
    """
    data = run.config.data
    source = open_source(data, known=run.info.fingerprint)
    # It is not known of runs that were imported.
    if run.info.fingerprint not in ("", source.fingerprint):
        reason = "these are not the images that the run has learnt from"
        raise UserError("data.path", data.path, reason, "bring them back")
    dataset, network = load_dataset(source, data), open_features(_FEATURES)
    indices = split(dataset, data.holdout, run.config.train.seed)[0]
    known = extract_dataset(network, dataset, indices, data, background="white")
    return Reals(dataset, network, indices, known.features)
