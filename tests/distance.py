"""The sliced Wasserstein distance between two sets of images, which says that faces are faces."""

import numpy as np


def sliced_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Of images in [0, 1], (N, H, W, C) and (M, H, W, C).

    256 random directions; for each, the mean absolute difference of the 512 quantiles of both sets'
    projections; then the mean over directions.
    """
    directions = np.random.default_rng(0).standard_normal((a[0].size, 256))
    directions /= np.linalg.norm(directions, axis=0)
    levels = (np.arange(512) + 0.5) / 512
    qa, qb = (np.quantile(x.reshape(len(x), -1) @ directions, levels, axis=0) for x in (a, b))
    return float(np.abs(qa - qb).mean())
