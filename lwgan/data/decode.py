"""Images of any kind brought to training size: decoded, turned upright, cropped, resized."""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from lwgan.data.source import Source

PIL_MODES = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}

# A larger image is refused: it would fill the memory.
MAX_PIXELS = 500_000_000

# Pillow's own limit is lower.
Image.MAX_IMAGE_PIXELS = None

BACKGROUNDS = {"white": 255, "black": 0}

# In EXIF: 1 is upright, from 5 on the image lies on its side.
_ORIENTATION = 0x0112


class Info(NamedTuple):
    """What is known of an image as it lies in its source."""

    # PNG, JPEG, …; empty if drawn.
    format: str
    # Pixels, upright.
    width: int
    height: int
    # Some of it is transparent.
    alpha: bool
    # Without colour.
    grey: bool
    # Perceptual, 64 bits: near duplicates differ in few of them.
    hash: int
    # Of the pixels at training size: duplicates have the same.
    digest: str


# Left, top, right, bottom.
Box = tuple[int, int, int, int]


def stored_side(data: ConfigDict) -> int:
    """Pixels of the shorter side of a kept image: the smallest crop must not be enlarged."""
    return math.ceil(math.sqrt(2) * data.image_size) if data.crop_prob > 0 else data.image_size


def read_image(source: Source, index: int, data: ConfigDict) -> tuple[Info, np.ndarray]:
    """An image as it is kept, uint8 (H, W, C), and what is known of it.

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
            # JPEG: decode no larger than is of use.
            image.draft(None, (2 * side, 2 * side))
            image.load()
            format_ = image.format or ""
            if image.getexif().get(_ORIENTATION, 1) >= 5:
                width, height = height, width
            plain = image.mode in ("1", "L", "LA", "I", "I;16", "F")
            alpha = image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255
            array = prepare(image, side, data.mode)
    # Pillow raises many kinds.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if data.crop_prob == 0:
        array = resize(array, side, centre_box(*array.shape[:2]))
    tiny = resize(array, 32, (0, 0, array.shape[1], array.shape[0]))[..., :3].astype(np.int16)
    grey = plain or (data.mode != "grey" and bool((np.ptp(tiny, -1) <= 4).all()))
    digest = hashlib.blake2b(np.ascontiguousarray(array), digest_size=16).hexdigest()
    return Info(format_, width, height, alpha, grey, perceptual_hash(tiny), digest), array


def prepare(image: Image.Image, side: int, mode: str) -> np.ndarray:
    """An image of any kind: uint8 (H, W, C), its shorter side ``side`` pixels.

    Resizing is bilinear with antialiasing, as in lightweight-gan. Turns it upright by its EXIF tag,
    takes the first frame, reduces 16 bits to 8, and lays transparent images over white unless
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
        # What lies under alpha 0 is arbitrary.
        array = array * (array[..., 3:] > 0)
    return array if array.ndim == 3 else array[..., None]


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says, with 8 bits instead of 16."""
    # An upright image would only be copied.
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    return image


def to_rgb(images: np.ndarray, background: str) -> np.ndarray:
    """uint8 (…, H, W, 3) of 1, 3 or 4 channels; under rgba lies a name in ``BACKGROUNDS``."""
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

    It has half to all of the image's area and a ratio of its sides of 0.98 to 1.02, as in
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
    # Also where an image is too long for such a crop.
    return centre_box(height, width)


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


def perceptual_hash(tiny: np.ndarray) -> int:
    """64 bits of (32, 32, C) that barely change with size, compression and brightness.

    Which of the 8×8 lowest frequencies lie above their median.
    """
    waves = np.cos(np.pi * np.outer(np.arange(1, 9), np.arange(32) + 0.5) / 32)
    lowest = waves @ tiny.mean(-1) @ waves.T
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big")
