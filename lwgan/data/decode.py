"""Images of any kind brought to training size: decoded, turned upright, cropped, resized."""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from lwgan.data.limits import Budget, free_memory
from lwgan.data.source import Source
from lwgan.data.values import Profile, profile_of, to_8_bits, to_srgb
from lwgan.errors import UserError

PIL_MODES = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}

# A larger image is refused: it would fill the memory.
MAX_PIXELS = 500_000_000
# Bytes for each pixel while an image is decoded, with copies; about.
_BYTES_A_PIXEL = 8
# Of all images in flight; a larger one goes alone.
_IN_FLIGHT = 2**30

# The longer side of a kept image by its shorter side: from 2.04 on, no random crop fits.
MOST_LONG = 2.1

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
    # Stored without colour.
    grey: bool
    # A value of ``values.Profile``.
    profile: int
    # Deeper than 8 bits, and uses less than a tenth of its range.
    faint: bool
    # Floats, some beyond 0 … 1.
    clipped: bool


# Left, top, right, bottom.
Box = tuple[int, int, int, int]


def stored_side(data: ConfigDict) -> int:
    """Pixels of the shorter side of a kept image: the smallest crop must not be enlarged."""
    return math.ceil(math.sqrt(2) * data.image_size) if data.crop_prob > 0 else data.image_size


def stored_ratio(data: ConfigDict) -> float:
    """Of the longer side of a kept image to its shorter one, at most."""
    return MOST_LONG if data.crop_prob > 0 else 1.0


_MAKING = threading.Lock()


def _budget() -> Budget:
    # The cache itself lets two threads make one each.
    with _MAKING:
        return _one_budget()


@functools.cache
def _one_budget() -> Budget:
    return Budget(min(_IN_FLIGHT, free_memory() // 4))


def require_size(image: Image.Image) -> None:
    """Refuses an opened image that would fill the memory.

    Raises:
      ValueError: it has more than ``MAX_PIXELS``.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} px are more than {MAX_PIXELS // 10**6} megapixels")


@contextlib.contextmanager
def in_flight(image: Image.Image) -> Iterator[None]:
    """Waits while this opened image and others that are being decoded take too much memory."""
    with _budget().of(_BYTES_A_PIXEL * math.prod(image.size)):
        yield


def read_image(source: Source, index: int, data: ConfigDict) -> tuple[Info, np.ndarray]:
    """An image as it is kept, uint8 (H, W, C), and what is known of it.

    Waits while other images in flight take too much memory.

    Raises:
      ValueError: it does not decode, or is too large to; the message says why.
      UserError: there is not enough memory.
    """
    try:
        with source.read(index) as opened:
            require_size(opened)
            width, height = opened.size
            side, format_ = stored_side(data), opened.format or ""
            plain = opened.mode in ("1", "L", "LA", "F") or opened.mode.startswith("I")
            # JPEG: decode no larger than is of use.
            opened.draft(None, (2 * side, 2 * side))
            with in_flight(opened):
                opened.load()
                if opened.getexif().get(_ORIENTATION, 1) >= 5:
                    width, height = height, width
                image, faint, clipped = to_8_bits(opened)
                alpha = (
                    image.has_transparency_data
                    and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
                )
                profile = profile_of(image)
                array = prepare(image, side, data.mode, stored_ratio(data))
    except MemoryError:
        raise UserError(
            "data.path", source.names[index], "there is not enough memory to decode it", "free some"
        ) from None
    # Pillow raises many kinds.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    known = (format_, width, height, alpha, plain, int(profile), faint, clipped)
    return Info(*known), array


def prepare(image: Image.Image, side: int, mode: str, ratio: float = math.inf) -> np.ndarray:
    """An image of any kind: uint8 (H, W, C), its shorter side ``side`` pixels.

    Its middle, where the longer side is more than ``ratio`` times the shorter one. Resizing is
    bilinear with antialiasing, as in lightweight-gan. Turns it upright by its EXIF tag, takes the
    first frame, brings values to 8 bits and colours to sRGB, and lays transparent images over white
    unless ``mode`` is rgba, where fully transparent pixels become black.
    """
    image = upright(to_8_bits(image).image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if mode != "rgba":
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            white.alpha_composite(image)
            white.info = image.info
            image = white
    convert = profile_of(image) is Profile.CONVERTED
    if convert and image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    elif not convert and image.mode != PIL_MODES[mode]:
        image = image.convert(PIL_MODES[mode])
    size, box = _kept_part(image.size, side, ratio)
    # A quick average first, to no less than twice the size, as JPEG's decoder takes it too.
    small = image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    if convert:
        # Few pixels are left to convert.
        small.info = image.info
        small = to_srgb(small).convert(PIL_MODES[mode])
    array = np.asarray(small)
    if mode == "rgba":
        # What lies under alpha 0 is arbitrary.
        array = array * (array[..., 3:] > 0)
    return array if array.ndim == 3 else array[..., None]


def _kept_part(
    whole: tuple[int, int], side: int, ratio: float
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The size to which an image (width, height) is resized, and the box of it that is kept."""
    scale = side / min(whole)
    resized = [max(side, round(length * scale)) for length in whole]
    size = tuple(int(min(length, side * ratio)) for length in resized)
    first = [
        round((length - kept) / 2) * own / length
        for length, kept, own in zip(resized, size, whole, strict=True)
    ]
    last = [
        min(start + kept * own / length, own)
        for start, length, kept, own in zip(first, resized, size, whole, strict=True)
    ]
    return size, (*first, *last)


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says."""
    # An upright image would only be copied.
    if image.getexif().get(_ORIENTATION, 1) != 1:
        return ImageOps.exif_transpose(image)
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
