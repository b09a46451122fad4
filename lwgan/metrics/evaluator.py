"""One evaluator: what a run's samples are measured beside, and how."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lwgan.data.dataset import Dataset
from lwgan.data.decode import to_rgb
from lwgan.data.holdout import split
from lwgan.metrics.extraction import Extracted, batched, extract, extract_dataset
from lwgan.metrics.figures import DISTANCES, FEWEST, Reals, measure, require_enough
from lwgan.metrics.neighbours import Memorisation, memorisation
from lwgan.metrics.networks.features import Features, open_features
from lwgan.metrics.realness import Critic, score_realness
from lwgan.metrics.records import Record
from lwgan.runs import processes
from lwgan.sampling.labels import labels_at
from lwgan.sampling.sampler import Sampler

# Images of each kind that the discriminator is asked about.
MOST_SCORED = 512
# Real images that samples are compared with one by one, where no more samples are asked for.
MOST_COMPARED = 10_000


class Part(NamedTuple):
    """A part of a dataset that samples are measured beside."""

    # In the dataset: int64 (N,).
    indices: np.ndarray
    reals: Reals


class Measurement(NamedTuple):
    """What an evaluator has found out about a sampler."""

    record: Record
    samples: Extracted


# Of samples and of training images, for a figure of a label alone.
FEWEST_OF_LABEL = 50


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Measures samplers beside the images of a dataset, always in the same way."""

    config: ConfigDict
    dataset: Dataset
    features: Features
    training: Part
    # None if too few images are held out.
    held_out: Part | None

    @property
    def way(self) -> Record:
        """How it measures: the names of ``records.WAY`` with their values."""
        return way_of_settings(self.config, self.dataset) | {
            "weights": self.features.fingerprint[:16]
        }

    def measure(
        self,
        sampler: Sampler,
        step: int,
        *,
        weights: str = "ema",
        seed: int | None = None,
        batch_size: int = 16,
        critic: Critic | None = None,
    ) -> Measurement:
        """The figures of a sampler's first ``eval.num_images`` images, and how they came about.

        They come beside the training images, and beside the held-out images where there are some.
        Then ``critic``, the discriminator of that step, says how real both kinds look: where
        training images score higher, it knows them by heart.

        Args:
          sampler: what is measured.
          step: the step that its weights come from.
          weights: of the EMA generator ("ema") or the live one ("raw").
          seed: of latents and noise; the run's own by default.
          batch_size: images drawn, and shown to the critic, at once.
          critic: the discriminator of that step.
        """
        eval_settings = self.config.eval
        seed = self.config.train.seed if seed is None else seed
        count, title = eval_settings.num_images, f"Samples of step {step}"
        places = self.places(count)
        labels = None if places is None else labels_at(places, sampler.label_names)
        stream = sampler.samples(seed, count, batch_size, labels=labels)
        drawn = batched(stream, self.features.batch_size)
        images = (to_rgb(np.stack(batch), eval_settings.background) for batch in drawn)
        samples = extract(self.features, images, count, title)
        figures = measure(samples, self.training.reals, eval_settings.metrics)
        figures |= self._of_labels(samples, places)
        if self.held_out:
            others = measure(samples, self.held_out.reals, eval_settings.metrics)
            figures |= {f"{name}_held_out": value for name, value in others.items()}
            if critic:
                figures["realness_trained"] = self._realness(critic, self.training, batch_size)
                figures["realness_held_out"] = self._realness(critic, self.held_out, batch_size)
        record = {"step": step, **self.way, "generator": weights, "seed": seed, **figures}
        return Measurement(record, samples)

    def places(self, count: int) -> np.ndarray | None:
        """The labels of so many samples, as frequent as those of the training images: int (count,).

        By their places, in order; None without labels.
        """
        if self.dataset.labels is None:
            return None
        theirs = np.sort(self.dataset.labels[self.training.indices])
        return theirs[np.arange(count) * len(theirs) // count]

    def _of_labels(self, samples: Extracted, places: np.ndarray | None) -> dict[str, float]:
        """KID within each label of which there are enough samples and training images."""
        if "kid" not in self.config.eval.metrics:
            return {}
        figures, theirs = {}, self.dataset.labels
        for place, name in enumerate(self.dataset.label_names):
            of_samples = samples.features[places == place]
            rows = np.flatnonzero(theirs[self.training.indices] == place)
            if min(len(of_samples), len(rows)) >= FEWEST_OF_LABEL:
                reals = self.training.reals.part(rows)
                figures[f"kid_of_{name}"] = measure(Extracted(of_samples), reals, ["kid"])["kid"]
        return figures

    @functools.cached_property
    def mirrored(self) -> Extracted:
        """The features of the mirror images of ``training``."""
        return self.training.reals.mirrored or _look(
            self.features, self.dataset, self.training.indices, self.config, mirrored=True
        )

    def find_copies(self, samples: Extracted) -> Memorisation:
        """How near samples come to training images and their mirror images."""
        images = self.training.reals.images.features
        return memorisation(samples.features, images, self.mirrored.features)

    def _realness(self, critic: Critic, part: Part, batch_size: int) -> float:
        count = min(MOST_SCORED, len(part.indices))
        evenly = np.linspace(0, len(part.indices) - 1, count).round().astype(int)
        chosen, theirs = part.indices[evenly], self.dataset.labels
        batches = batched((self.dataset.centre(index) for index in chosen), batch_size)
        names = self.dataset.label_names
        labels = None if theirs is None else labels_at(theirs[chosen], names)
        return float(score_realness(critic, map(np.stack, batches), labels).mean())


def build_evaluator(config: ConfigDict, dataset: Dataset) -> Evaluator:
    """The evaluator of a run: beside all its training images, and all that are held out.

    Raises:
      UserError: the network's weights cannot be had, or there are too few images.
    """
    training, held_out = split(dataset, config.data.holdout, config.train.seed)
    way = config.eval
    with processes.together():
        require_enough("data", len(training))
        features = open_features(way.features, way.weights, way.resize)
    weights = {"eval.weights": features.fingerprint[:16]}
    processes.require_same(weights, "give all the same file")

    with_mirrors = learns_mirrors(config) and not set(way.metrics).isdisjoint(DISTANCES)

    def part(indices: np.ndarray) -> Part:
        images, mirrored = _look(features, dataset, indices, config), None
        if with_mirrors:
            mirrored = _look(features, dataset, indices, config, mirrored=True)
        return Part(indices, Reals(images, mirrored, max(way.num_images, MOST_COMPARED)))

    held_out_part = part(held_out) if len(held_out) >= FEWEST else None
    return Evaluator(config, dataset, features, part(training), held_out_part)


def learns_mirrors(config: ConfigDict) -> bool:
    """Whether half of the reals are mirrored, and fakes are not, so that the generator learns it.

    As in lightweight-gan, both are mirrored where they are augmented: then it does not.
    """
    return config.augment.hflip and config.augment.per_example


def _look(
    features: Features,
    dataset: Dataset,
    indices: np.ndarray,
    config: ConfigDict,
    *,
    mirrored: bool = False,
) -> Extracted:
    background = config.eval.background
    return extract_dataset(
        features, dataset, indices, config.data, background=background, mirrored=mirrored
    )


def way_of_settings(config: ConfigDict, dataset: Dataset) -> Record:
    """How a run's own settings measure: ``Evaluator.way`` but for the weights of the network."""
    parts = split(dataset, config.data.holdout, config.train.seed)
    num_reals, num_held_out = map(len, parts)
    return {
        "generator": "ema",
        "data": dataset.fingerprint[:16],
        "features": config.eval.features,
        "resize": config.eval.resize,
        "background": config.eval.background,
        "num_images": config.eval.num_images,
        "mirrored": learns_mirrors(config),
        "num_reals": num_reals,
        "num_held_out": num_held_out if num_held_out >= FEWEST else 0,
        "seed": config.train.seed,
    }
