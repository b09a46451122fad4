"""How different images are from each other."""

import numpy as np


def mean_distance(images: np.ndarray) -> float:
    """The mean Euclidean distance, per value, of two different images of (N, …)."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(1)
    squared = np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0)
    np.fill_diagonal(squared, 0)
    count = len(images)
    return float(np.sqrt(squared / flat.shape[1]).sum() / max(1, count * (count - 1)))
