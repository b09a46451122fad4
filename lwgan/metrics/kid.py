"""The kernel distance of features: KID, where they are Inception's. All float64.

Bińkowski et al. 2018 (arXiv:1801.01401): the unbiased estimate of the squared maximum mean
discrepancy (Gretton et al. 2012) with the kernel (x·y / D + 1)³. It does not depend on how many
images there are, and may come out below 0.
"""

import math

import numpy as np

# For the standard error.
GROUPS = 20
# Images of each set that are compared with each other, at most.
BLOCK = 5000


def kernel_distance(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """KID of features (N, D) and (M, D), at least 4 each, and its standard error.

    All pairs of up to 5,000 images are compared; a larger set is cut into blocks of that size, and
    the estimates averaged. The standard error is the jackknife's over 20 groups of images of a
    block.
    """
    # At random: sets in the order of their classes would have other images in each block.
    orders = (np.random.default_rng(0).permutation(len(z)) for z in (x, y))
    parts = [np.array_split(order, math.ceil(len(order) / BLOCK)) for order in orders]
    counts = [*map(len, parts)]
    pairs = [[part[turn % len(part)] for part in parts] for turn in range(max(counts))]
    estimates, errors = np.transpose([_block(x[a], y[b]) for a, b in pairs])
    # Estimates that share a block are not independent.
    return float(estimates.mean()), float(np.sqrt((errors**2).mean() / min(counts)))


def _block(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    groups = min(GROUPS, len(x) // 2, len(y) // 2)
    xs, ys = (np.array_split(z.astype(np.float64), groups) for z in (x, y))
    xx, yy, xy = _sums_among(xs), _sums_among(ys), _sums(xs, ys)
    # No image is compared with itself.
    xx[np.diag_indices(groups)] -= [_kernel(np.einsum("nd,nd->n", z, z), z).sum() for z in xs]
    yy[np.diag_indices(groups)] -= [_kernel(np.einsum("nd,nd->n", z, z), z).sum() for z in ys]

    def estimate(kept: np.ndarray) -> float:
        n, m = (sum(len(z) for z, keep in zip(zs, kept, strict=True) if keep) for zs in (xs, ys))
        among = [sums[np.ix_(kept, kept)].sum() for sums in (xx, yy, xy)]
        return among[0] / (n * (n - 1)) + among[1] / (m * (m - 1)) - 2 * among[2] / (n * m)

    without = np.array([estimate(np.arange(groups) != left) for left in range(groups)])
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    return estimate(np.ones(groups, bool)), error


def _sums(xs: list[np.ndarray], ys: list[np.ndarray]) -> np.ndarray:
    """The kernel summed over each pair of groups: (groups, groups)."""
    all_ys, starts = np.concatenate(ys), np.cumsum([0, *map(len, ys[:-1])])
    return np.array([np.add.reduceat(_kernel(x @ all_ys.T, x).sum(0), starts) for x in xs])


def _sums_among(xs: list[np.ndarray]) -> np.ndarray:
    """``_sums`` of a set with itself: half of it is enough."""
    sums = np.zeros((len(xs), len(xs)))
    for first in range(len(xs)):
        sums[first, first:] = _sums(xs[first : first + 1], xs[first:])
    return np.triu(sums) + np.triu(sums, 1).T


def _kernel(products: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(x·y / D + 1)³ of products x·y, which are overwritten."""
    products /= x.shape[1]
    products += 1
    # NumPy's power takes ten times as long.
    cubes = products * products
    cubes *= products
    return cubes
