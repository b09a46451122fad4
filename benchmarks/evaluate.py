"""Images per second through EfficientNet-Lite0, beside the same network in PyTorch, and peak
memory.

    python benchmarks/evaluate.py                    # 10,000 images of 64 px
    python benchmarks/evaluate.py --images=1000
    python benchmarks/evaluate.py --features=50000   # only the figures, of features that are drawn

Both resize images of 64 px to 224, ours as clean-fid does, and see as many at once as suits them.
They take turns: after each tenth of our images PyTorch, in a process of its own, sees a few. Then
come the figures of all the images beside as many others. PyTorch is left out where it or
efficientnet_lite_pytorch is not installed.
"""

import importlib.util
import multiprocessing
import os
import pathlib
import platform
import resource
import sys
import time

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_IMAGES = flags.DEFINE_integer("images", 10_000, "How many.", lower_bound=200)
_TORCH_IMAGES = flags.DEFINE_integer("torch_images", 64, "PyTorch's at each turn.")

_FEATURES = flags.DEFINE_integer("features", 0, "Only the figures, of so many drawn.")

TURNS = 10
SIZE = 64


def draw(seed: int, count: int) -> np.ndarray:
    """Smooth images with some noise: uint8 (count, 64, 64, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3))
    smooth = coarse.repeat(8, 1).repeat(8, 2) + rng.normal(0, 6, (count, SIZE, SIZE, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def torch_seconds(seed: int, count: int, batch: int = 8) -> float:
    """How long PyTorch takes; called in its own process."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    from lwgan.metrics.networks.features import FEATURES

    global network
    if "network" not in globals():
        file = str(FEATURES["efficientnet_lite0"]().weights())
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
        torch_seconds(seed, batch)
    images = draw(seed, count)
    start = time.perf_counter()
    with torch.no_grad():
        for first in range(0, count, batch):
            part = torch.from_numpy(images[first : first + batch]).permute(0, 3, 1, 2).float()
            part = torch.nn.functional.interpolate(
                part, (224, 224), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 255)
            network.extract_features((part - 127) / 128).mean((2, 3))
    return time.perf_counter() - start


def print_figures(samples: np.ndarray, others: np.ndarray) -> None:
    """Seconds of each figure of features (N, D), in turn, and the peak memory."""
    from lwgan.metrics.extraction import Extracted
    from lwgan.metrics.figures import METRICS, Reals, measure

    print(f"the figures of {len(samples):,} beside as many:")
    for name in METRICS:
        start = time.perf_counter()
        measure(Extracted(samples), Reals(Extracted(others)), [name])
        print(f"{name:8} {time.perf_counter() - start:8.1f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")


def main(argv: list[str]) -> None:
    """Prints the figures."""
    from lwgan.metrics.networks.features import open_features

    if _FEATURES.value:
        shape = (_FEATURES.value, 1280)
        print_figures(*(np.random.default_rng(s).normal(size=shape).astype("f") for s in (0, 1)))
        return
    with_torch = all(map(importlib.util.find_spec, ("torch", "efficientnet_lite_pytorch")))
    features = open_features("efficientnet_lite0")
    features(draw(0, features.batch_size))
    count, few = _IMAGES.value // TURNS, _TORCH_IMAGES.value
    seen, ours, theirs = [], [], []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for turn in range(TURNS):
            images = draw(turn, count)
            start = time.perf_counter()
            seen.append(features(images))
            ours.append(count / (time.perf_counter() - start))
            if with_torch:
                theirs.append(few / pool.apply(torch_seconds, (turn, few)))
            print(f"{ours[-1]:8.1f}", f"{theirs[-1]:8.1f}" if theirs else "", flush=True)
    samples = np.concatenate(seen)
    others = samples + np.random.default_rng(0).normal(0, 0.01, samples.shape).astype(np.float32)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    # On a busy machine the best turn says what the code can do, the median what one gets.
    for name, found in {"lwgan": ours, "PyTorch": theirs}.items():
        if found:
            best, median = max(found), np.median(found)
            print(
                f"{name:8} {median:8.1f} images/s, median of {TURNS} turns; {best:.1f} in the best"
            )
    print_figures(samples, others)


if __name__ == "__main__":
    app.run(main)
