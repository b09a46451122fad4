"""Figures of two sets of images, without a run."""

from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from lwgan.data.decode import to_rgb, upright
from lwgan.data.source import Source
from lwgan.data.threads import parallel_map
from lwgan.errors import UserError
from lwgan.metrics.extraction import batched, extract
from lwgan.metrics.figures import measure
from lwgan.metrics.networks.features import open_features
from lwgan.metrics.records import Record


def compare_folders(images: Source, reference: Source, way: ConfigDict) -> Record:
    """The figures of ``images`` beside ``reference``; ``way`` are settings as ``eval`` of a run.

    Every image is looked at as large as it is.

    Raises:
      UserError: an image does not decode, or the network's weights cannot be had.
    """
    features = open_features(way.features, way.weights, way.resize)
    samples, reals = (
        extract(
            features,
            _whole_images(source, features.batch_size, way.background),
            len(source.names),
            title,
        )
        for title, source in {"Images": images, "Reference": reference}.items()
    )
    return {
        "features": features.name,
        "resize": features.resize,
        "num_images": len(images.names),
        "num_reals": len(reference.names),
        **measure(samples, reals, way.metrics),
    }


def _whole_images(source: Source, size: int, background: str) -> Iterator[list[np.ndarray]]:
    """Lists of ``size`` images uint8 (H, W, 3)."""

    def read(index: int) -> np.ndarray:
        try:
            with source.read(index) as opened:
                image = upright(opened)
                mode = "RGBA" if image.has_transparency_data else "RGB"
                pixels = np.asarray(image.convert(mode))
        # Pillow raises many kinds.
        except Exception as error:
            raise UserError(
                "image", source.names[index], f"does not decode ({error})", "take it away"
            ) from None
        return to_rgb(pixels, background)

    return batched(parallel_map(read, range(len(source.names)), -1), size)
