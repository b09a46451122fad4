"""Figures of two sets of images, without a run."""

from collections.abc import Iterator

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from lwgan.data.decode import decoded, to_rgb, upright
from lwgan.data.known import require_disk
from lwgan.data.source import Source
from lwgan.data.threads import parallel_map
from lwgan.data.values import Profile, profile_of, to_8_bits, to_srgb
from lwgan.errors import UserError
from lwgan.metrics.extraction import Extracted, batched, extract
from lwgan.metrics.figures import Reals, measure, require_enough
from lwgan.metrics.networks.features import Features, open_features
from lwgan.metrics.records import Record

# Of those that do not decode, so many are named.
_NAMED = 20


def compare_folders(images: Source, reference: Source, way: ConfigDict) -> Record:
    """The figures of ``images`` beside ``reference``; ``way`` are settings as ``eval`` of a run.

    Every image is looked at as large as it is. Those that do not decode are left out and named.

    Raises:
      UserError: more than half of a set, or all but a few, do not decode, or the network's weights
        cannot be had.
    """
    features = open_features(way.features, way.weights, way.resize)
    samples, reals = (
        _extract(features, source, title, way.background)
        for title, source in {"Images": images, "Reference": reference}.items()
    )
    return {
        "features": features.name,
        "resize": features.resize,
        "num_images": len(samples.features),
        "num_reals": len(reals.features),
        **measure(samples, Reals(reals), way.metrics),
    }


def _extract(features: Features, source: Source, title: str, background: str) -> Extracted:
    """The features of a set; says what was left out."""
    errors: dict[int, str] = {}
    good = _good_images(features, source, background, errors)
    count, flag = len(source.names), f"--{title.lower()}"
    batches = batched(good, features.batch_size)
    try:
        extracted = extract(features, batches, count, title)
    except ValueError:
        # Nothing to put together.
        if len(errors) < count:
            raise
        extracted = None
    for index in sorted(errors)[:_NAMED]:
        logging.warning("Left out: %s (%s)", source.names[index], errors[index])
    if errors:
        logging.warning("%s: %d of %d files left out", flag, len(errors), count)
    if 2 * len(errors) > count:
        first = min(errors)
        raise UserError(
            flag,
            source.names[first],
            f"{len(errors)} of {count} images do not decode; the first is this ({errors[first]})",
            "name a folder of images",
        )
    require_enough(flag, count - len(errors))
    return extracted


def _good_images(
    features: Features, source: Source, background: str, errors: dict[int, str]
) -> Iterator[np.ndarray]:
    """Those that decode, as the network sees them; why others do not goes to ``errors``."""
    nothing = np.empty((0, 0, 3), np.float32)

    def read(index: int) -> np.ndarray:
        try:
            with source.read(index) as opened:
                with decoded(opened):
                    image = upright(to_8_bits(opened).image)
                    mode = "RGBA" if image.has_transparency_data else "RGB"
                    if profile_of(image) is Profile.CONVERTED:
                        # With a transparent value, grey becomes RGBA first: it is in no channel.
                        keeps = mode == "RGB" and image.mode in ("CMYK", "L")
                        image = to_srgb(image if keeps else image.convert(mode))
                    pixels = to_rgb(np.asarray(image.convert(mode)), background)
                    return features.at_size(pixels)
        except MemoryError:
            raise UserError(
                "image", source.names[index], "there is not enough memory for it", "take it away"
            ) from None
        # Pillow raises many kinds.
        except Exception as error:
            require_disk(error, "image", source.names[index])
            errors[index] = str(error) or type(error).__name__
            return nothing

    images = parallel_map(read, range(len(source.names)), -1, np.float32)
    return (image for image in images if image.size)
