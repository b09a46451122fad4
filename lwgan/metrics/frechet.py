"""The Fréchet distance of features taken as Gaussians: FID, where they are Inception's.

Heusel et al. 2017 (arXiv:1706.08500); Dowson and Landau 1982 for the distance. All float64.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """What is kept of features, however many."""

    count: int
    # (D,).
    mean: np.ndarray
    # (D, D), the sum of the products of deviations.
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), unbiased."""
        return self.scatter / (self.count - 1)


def moments(features: np.ndarray) -> Moments:
    """Of features (N, D)."""
    features = features.astype(np.float64)
    mean = features.mean(0)
    deviations = features - mean
    return Moments(len(features), mean, deviations.T @ deviations)


def merge(a: Moments, b: Moments) -> Moments:
    """Of both sets together (Chan et al. 1979)."""
    count = a.count + b.count
    apart = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(apart, apart) * (a.count * b.count / count)
    return Moments(count, a.mean + apart * (b.count / count), scatter)


def stream(batches: Iterable[np.ndarray]) -> Moments:
    """Of batches (B, D), one after the other."""
    total = None
    for batch in batches:
        total = merge(total, moments(batch)) if total else moments(batch)
    return total


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean difference|² + tr(A + B - 2 (A B)^½), A and B the covariances; at least 2 samples each.

    The root's trace is the sum of the roots of the eigenvalues of Lᵀ B L, where A = L Lᵀ:
    symmetric, of no more columns than A has samples, and without eigenvalues that rounding makes
    negative or complex.
    """
    if a.count > b.count:
        a, b = b, a
    values, vectors = np.linalg.eigh(a.covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    product = np.linalg.eigvalsh(root.T @ b.covariance @ root)
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    apart = a.mean - b.mean
    return float(apart @ apart + traces - 2 * np.sqrt(np.maximum(product, 0)).sum())
