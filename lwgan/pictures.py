"""Pictures of any kind brought to training size, once, and kept: in memory, in a file, or not at all."""

import fcntl
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from lwgan.errors import UserError
from lwgan.sources import Source

PIL_MODES = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}
MAX_PIXELS = 500_000_000  # a larger picture is refused: it would fill the memory
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower

BACKGROUNDS = {"white": 255, "black": 0}

_ORIENTATION = 0x0112  # in EXIF: 1 is upright, from 5 on the picture lies on its side
_FORMAT = 1  # of the files that keep pictures; another number and they are made anew


class Info(NamedTuple):
    """What is known of a picture as it lies in its source."""

    format: str  # PNG, JPEG, …; empty if drawn
    width: int  # pixels, upright
    height: int
    alpha: bool  # some of it is transparent
    grey: bool  # without colour
    hash: int  # perceptual, 64 bits: near duplicates differ in few of them
    digest: str  # of the pixels at training size: duplicates have the same


class Pictures(NamedTuple):
    """The pictures of a data set at training size; those that do not decode are left out."""

    names: Sequence[str]
    at: Callable[
        [int], np.ndarray
    ]  # index -> uint8 (H, W, C), not yet cropped where crops are drawn
    array: np.ndarray | None  # uint8 (N, S, S, C) where all are kept and none is to be cropped
    image_size: int  # pixels
    crop_prob: float
    infos: Sequence[Info]  # empty where pictures are read at each use
    errors: dict[str, str]  # why a picture was left out, by name
    kept: str  # where, in words, and how many bytes

    def take(self, indices: np.ndarray, seed: int, positions: np.ndarray) -> np.ndarray:
        """A batch, uint8 (B, S, S, C). ``positions`` in the whole run decide the random crops."""
        if self.array is not None:
            return self.array[indices]
        return np.stack(
            [
                crop(self.at(i), self.image_size, self.crop_prob, (seed, _CROP, position))
                for i, position in zip(indices, positions, strict=True)
            ]
        )

    def centre(self, index: int) -> np.ndarray:
        """uint8 (S, S, C): the middle of a picture."""
        array = self.at(index)
        return resize(array, self.image_size, centre_box(*array.shape[:2]))


_CROP = 1  # what a NumPy generator of a seed is for; 0 is the order of an epoch

Box = tuple[int, int, int, int]  # left, top, right, bottom


def prepare(image: Image.Image, side: int, mode: str) -> np.ndarray:
    """A picture of any kind: uint8 (H, W, C), its shorter side ``side`` pixels.

    Resizing is bilinear with antialiasing, as in lightweight-gan. Turns it upright by its EXIF tag,
    takes the first frame, reduces 16 bits to 8, and lays transparent pictures over white unless
    ``mode`` is rgba, where fully transparent pixels become black.
    """
    image = upright(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if mode != "rgba":
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
    if image.mode != PIL_MODES[mode]:
        image = image.convert(PIL_MODES[mode])
    scale = side / min(image.size)
    size = tuple(max(side, round(length * scale)) for length in image.size)
    # A quick average first, to no less than twice the size, as JPEG's decoder takes it too.
    array = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    if mode == "rgba":
        array = array * (array[..., 3:] > 0)  # what lies under alpha 0 is arbitrary
    return array if array.ndim == 3 else array[..., None]


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says, with 8 bits instead of 16."""
    if image.getexif().get(_ORIENTATION, 1) != 1:  # else it would only be copied
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    return image


def to_rgb(images: np.ndarray, background: str) -> np.ndarray:
    """uint8 (…, H, W, 3) of pictures with 1, 3 or 4 channels; a name in ``BACKGROUNDS`` lies under rgba."""
    if images.shape[-1] == 4:
        alpha = images[..., 3:] / np.float32(255)
        under = BACKGROUNDS[background] * (1 - alpha)
        return np.round(images[..., :3] * alpha + under).astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def centre_box(height: int, width: int) -> Box:
    """The square in the middle."""
    side = min(height, width)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return left, top, left + side, top + side


def draw_crop(height: int, width: int, prob: float, key: Sequence[int]) -> Box:
    """A random box with probability ``prob``, else the middle; ``key`` alone decides.

    It has half to all of the picture's area and a ratio of its sides of 0.98 to 1.02, as in
    lightweight-gan.
    """
    rng = np.random.default_rng(key)
    if rng.random() < prob:
        for _ in range(10):
            area = height * width * rng.uniform(0.5, 1.0)
            ratio = math.exp(rng.uniform(math.log(0.98), math.log(1.02)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= width and h <= height:
                left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
                return left, top, left + w, top + h
    return centre_box(height, width)  # also where a picture is too long for such a crop


def resize(array: np.ndarray, size: int, box: Box) -> np.ndarray:
    """The box of uint8 (H, W, C) at (size, size, C), bilinear with antialiasing."""
    left, top, right, bottom = box
    if (right - left, bottom - top) == (size, size):
        return array[top:bottom, left:right]
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).reshape(size, size, -1)


def crop(array: np.ndarray, size: int, prob: float, key: Sequence[int]) -> np.ndarray:
    """uint8 (H, W, C) at (size, size, C): a random-resized crop as ``draw_crop`` draws it."""
    return resize(array, size, draw_crop(*array.shape[:2], prob, key))


def stored_side(data: ConfigDict) -> int:
    """Pixels of the shorter side of a picture that is kept: the smallest crop must not be enlarged."""
    return math.ceil(math.sqrt(2) * data.image_size) if data.crop_prob > 0 else data.image_size


def read(source: Source, index: int, data: ConfigDict) -> tuple[Info, np.ndarray]:
    """A picture as it is kept, uint8 (H, W, C), and what is known of it.

    Raises:
      ValueError: it does not decode, or is too large to; the message says why.
    """
    try:
        with source.read(index) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{width}×{height} px are more than {MAX_PIXELS // 10**6} megapixels"
                )
            side = stored_side(data)
            image.draft(None, (2 * side, 2 * side))  # JPEG: decode no larger than is of use
            image.load()
            format_ = image.format or ""
            if image.getexif().get(_ORIENTATION, 1) >= 5:
                width, height = height, width
            plain = image.mode in ("1", "L", "LA", "I", "I;16", "F")
            alpha = image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255
            array = prepare(image, side, data.mode)
    except Exception as error:  # Pillow raises many kinds
        raise ValueError(str(error) or type(error).__name__) from error
    if data.crop_prob == 0:
        array = resize(array, side, centre_box(*array.shape[:2]))
    tiny = resize(array, 32, (0, 0, array.shape[1], array.shape[0]))[..., :3].astype(np.int16)
    grey = plain or (data.mode != "grey" and bool((np.ptp(tiny, -1) <= 4).all()))
    digest = hashlib.blake2b(np.ascontiguousarray(array), digest_size=16).hexdigest()
    return Info(format_, width, height, alpha, grey, perceptual_hash(tiny), digest), array


def perceptual_hash(tiny: np.ndarray) -> int:
    """64 bits of a picture at 32×32, (32, 32, C), that barely change with size, compression and brightness.

    Which of the 8×8 lowest frequencies lie above their median.
    """
    waves = np.cos(np.pi * np.outer(np.arange(1, 9), np.arange(32) + 0.5) / 32)
    lowest = waves @ tiny.mean(-1) @ waves.T
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big")


def load(source: Source, data: ConfigDict) -> Pictures:
    """The source's pictures at training size, kept as ``data.cache`` says.

    ``auto`` keeps them in memory if they fit into half of what is free, else in a file if they fit into
    half of the disk's, else not at all.

    Raises:
      UserError: more than half of the pictures do not decode.
    """
    # A resized picture is rarely more than twice as long as it is wide.
    longer = 2 if data.crop_prob > 0 else 1
    needed = len(source.names) * longer * stored_side(data) ** 2 * len(PIL_MODES[data.mode])
    cache = data.cache
    if cache == "auto":
        fits = {"memory": _free_memory() / 2, "disk": _free_disk() / 2, "none": math.inf}
        cache = next(name for name, room in fits.items() if needed < room)
    if cache == "none":
        return _read_at_each_use(source, data)
    if cache == "memory":
        file = io.BytesIO()
        index = _write(source, data, file)
        pixels = np.frombuffer(file.getbuffer(), np.uint8)
        return _kept(source, data, index, pixels, "in memory")
    folder = _cache_folder(source, data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it whatever ends the process
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir()
            with (part / "pixels").open("wb") as file:
                index = _write(source, data, file)
            (part / "index.json").write_text(json.dumps(index))
            part.rename(folder)
    index = json.loads((folder / "index.json").read_text())
    pixels = np.memmap(folder / "pixels", np.uint8, "r")
    return _kept(source, data, index, pixels, f"in {folder}")


def _write(source: Source, data: ConfigDict, file: IO[bytes]) -> dict:
    """Appends every good picture to ``file``; returns what is known of them, in terms of JSON."""
    from tqdm import tqdm

    infos: dict[int, Info] = {}
    errors: dict[int, str] = {}
    nothing = np.empty((0, 0, 0), np.uint8)

    def one(index: int) -> np.ndarray:
        try:
            infos[index], array = read(source, index, data)
            return array
        except ValueError as error:
            errors[index] = str(error)
            return nothing

    count = len(source.names)
    arrays = parallel_map(one, range(count), data.num_threads)
    shapes = []
    for array in tqdm(arrays, "Reading pictures", count, disable=None, leave=False):
        if array.size:
            file.write(array.data)
            shapes.append(array.shape)
    return {
        "shapes": shapes,
        "infos": [infos[index] for index in sorted(infos)],
        "errors": [[index, errors[index]] for index in sorted(errors)],
    }


def _kept(
    source: Source, data: ConfigDict, index: dict, pixels: np.ndarray, where: str
) -> Pictures:
    errors = {source.names[number]: reason for number, reason in index["errors"]}
    if 2 * len(errors) > len(source.names):
        name, reason = next(iter(errors.items()))
        raise UserError(
            "data.path", data.path, f"{len(errors)} of {len(source.names)} pictures do not decode",
            f"the first is {name} ({reason})",
        )  # fmt: skip
    for name, reason in list(errors.items())[:20]:
        logging.warning("Left out: %s (%s)", name, reason)
    shapes = index["shapes"]
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def at(number: int) -> np.ndarray:
        shape = shapes[number]
        return pixels[ends[number] - math.prod(shape) : ends[number]].reshape(shape)

    return Pictures(
        names=[name for name in source.names if name not in errors],
        at=at,
        array=pixels.reshape(-1, *shapes[0]) if data.crop_prob == 0 else None,
        image_size=data.image_size,
        crop_prob=data.crop_prob,
        infos=[Info(*info) for info in index["infos"]],
        errors=errors,
        kept=f"{where}, {pixels.size / 2**20:,.1f} MiB",
    )


def _read_at_each_use(source: Source, data: ConfigDict) -> Pictures:
    """A picture that does not decode is replaced by the next that does."""
    errors: dict[str, str] = {}

    def at(index: int) -> np.ndarray:
        count = len(source.names)
        for number in (np.arange(count) + index) % count:
            try:
                return read(source, number, data)[1]
            except ValueError as error:
                name = source.names[number]
                if name not in errors:
                    logging.warning("Left out: %s (%s)", name, error)
                errors[name] = str(error)
        raise UserError(
            "data.path", data.path, "no picture decodes", f"the last is {name} ({errors[name]})"
        )

    kept = "nowhere: read at each use"
    return Pictures(source.names, at, None, data.image_size, data.crop_prob, (), errors, kept)


def _cache_folder(source: Source, data: ConfigDict) -> pathlib.Path:
    """Named by all that its pixels depend on."""
    parts = (_FORMAT, Image.__version__, source.fingerprint, data.mode, data.image_size)
    key = hashlib.sha256(repr((*parts, data.crop_prob > 0)).encode()).hexdigest()[:16]
    return cache_root() / key


def cache_root() -> pathlib.Path:
    """Where the user's cache of lwgan is: ``~/.cache/lwgan``, or below ``XDG_CACHE_HOME``."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(root).expanduser() / "lwgan"


def _free_disk() -> int:
    """Bytes that can be written where pictures are kept."""
    root = cache_root()
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free


def _free_memory() -> int:
    """Bytes of memory that can be had now."""
    import psutil

    return psutil.virtual_memory().available


def parallel_map(
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
