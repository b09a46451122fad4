"""Images per second of each way to read them, beside lightweight-gan's DataLoader and a plain
gather.

    python benchmarks/data.py                       # 64, 256 and 1024 px, crops off and on
    python benchmarks/data.py --sizes=64 --images=500
    python benchmarks/data.py --files=100000        # starts with a large set instead

Draws a folder of JPEG images first (720 to 1440 px wide). "Cold" is the first pass, which decodes;
"cached" are batches of 16 from memory or a file, with a step that does nothing. lightweight-gan's
DataLoader is left out where it, torch or torchvision is not installed.

With --files, a folder of so many tiny JPEG images is made, and ``lwgan.preview --check`` looks at
it twice, kept as it comes and without keeping any: seconds, and the most memory of the process.
"""

import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

import numpy as np
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_SIZES = flags.DEFINE_list("sizes", ["64", "256", "1024"], "Pixels.")
_IMAGES = flags.DEFINE_integer("images", 300, "Images in the folder.", lower_bound=16)
_SECONDS = flags.DEFINE_float("seconds", 3, "Time for each figure.", lower_bound=0.1)

_FILES = flags.DEFINE_integer("files", 0, "Tiny files, for starts with a large set.", lower_bound=0)

BATCH = 16
CROP_PROB = 0.5


def draw_folder(folder: pathlib.Path) -> None:
    """Images as cameras make them: smooth, with some noise, JPEG of quality 90."""
    rng = np.random.default_rng(0)
    for number in range(_IMAGES.value):
        width = int(rng.integers(720, 1440))
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, width * 3 // 4), Image.Resampling.BICUBIC), int)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:04d}.jpg", quality=90)


def images_per_second(batches: Iterable[object], size: int) -> float:
    """Over some seconds, after the first two batches."""
    batches = iter(batches)
    for _ in range(2):
        next(batches)
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS.value:
        next(batches)
        count += size
    return count / seconds


def of_lwgan(folder: pathlib.Path, size: int, crop_prob: float) -> dict[str, float]:
    """Images/s by what is measured."""
    import tensorflow  # noqa: F401, its import is no part of what is measured

    from configs import default
    from lwgan.data.batches import Layout, read_batches
    from lwgan.data.cache import load_dataset
    from lwgan.data.dataset import Dataset
    from lwgan.data.sources import open_source

    config = default.get_config().data
    config.update(path=str(folder), image_size=size, crop_prob=crop_prob)
    layout = Layout(batches=1, batch_size=BATCH, grad_accum=1, devices=1)

    def streamed(kept: Dataset) -> float:
        return images_per_second(
            read_batches(
                kept, np.arange(len(kept.names)), layout, seed=0, start_step=0, num_threads=-1
            ),
            BATCH,
        )

    found = {}
    for cache in ("memory", "disk"):
        config.cache = cache
        start = time.perf_counter()
        kept = load_dataset(open_source(config), config)
        if cache == "memory":
            found["cold"] = len(kept.names) / (time.perf_counter() - start)
        found[f"cached, {cache}"] = streamed(kept)
    if kept.gather is not None:
        array, rng = kept.gather(np.arange(len(kept.names))), np.random.default_rng(0)
        gathers = (array[rng.integers(0, len(array), BATCH)] for _ in itertools.count())
        found["plain gather"] = images_per_second(gathers, BATCH)
    return found


def of_the_package(folder: pathlib.Path, size: int, crop_prob: float) -> dict[str, float]:
    """The same of lightweight-gan's dataset and DataLoader."""
    try:
        import torch
        import torchvision  # noqa: F401
    except ImportError:
        return {}
    # It insists on CUDA, which this does not need.
    torch.cuda.is_available = lambda: True
    try:
        from lightweight_gan.lightweight_gan import ImageDataset, cycle
    except ImportError:
        return {}
    finally:
        torch.cuda.is_available = lambda: False
    dataset = ImageDataset(str(folder), size, aug_prob=crop_prob)
    loader = torch.utils.data.DataLoader(
        dataset, num_workers=os.cpu_count(), batch_size=BATCH, shuffle=True, drop_last=True
    )
    return {"lightweight-gan": images_per_second(cycle(loader), BATCH)}


def draw_tiny_files(folder: pathlib.Path, count: int) -> None:
    """JPEG images of a few hundred bytes, all different, 1,000 in a folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (2, 2, 3), np.uint8))
        coarse.resize((32, 32)).save(place / f"{number:07d}.jpg", quality=60)


def print_starts(folder: pathlib.Path) -> None:
    """A table of first and second starts, each a process of its own."""
    print("| start | seconds | MiB |\n|---|---|---|")
    for cache, turn in itertools.product(("auto", "none"), ("first", "second")):
        # Of each its own, so that the first start is one.
        os.environ["XDG_CACHE_HOME"] = str(folder.parent / f"cache-{cache}")
        command = [sys.executable, "-m", "lwgan.preview", "--config=configs/folder.py", "--check"]
        command += [f"--config.data.path={folder}", "--config.data.image_size=32"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, f"--config.data.cache={cache}"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{command} ended with {process.returncode}")
        print(f"| {cache}, {turn} | {seconds:.1f} | {usage.ru_maxrss / 1024:,.0f} |", flush=True)


def main(argv: list[str]) -> None:
    """Prints a table."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(pathlib.Path(folder, "cache"))
        photos = pathlib.Path(folder, "photos")
        photos.mkdir()
        if _FILES.value:
            draw_tiny_files(photos, _FILES.value)
            return print_starts(photos)
        draw_folder(photos)
        columns = ["cold", "cached, memory", "cached, disk", "plain gather", "lightweight-gan"]
        print(f"| images/s | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for size, crop_prob in itertools.product(map(int, _SIZES.value), (0.0, CROP_PROB)):
            found = of_lwgan(photos, size, crop_prob) | of_the_package(photos, size, crop_prob)
            row = (f"{found[name]:,.0f}" if name in found else "–" for name in columns)
            crops = f"crops {'on' if crop_prob else 'off'}"
            print(f"| {size} px, {crops} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
