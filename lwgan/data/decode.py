"""Images of any kind brought to training size: decoded, turned upright, cropped, resized."""

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from lwgan.data.limits import Budget, free_memory
from lwgan.data.source import Source
from lwgan.data.values import (
    Profile,
    is_deep,
    orientation_of,
    profile_of,
    to_8_bits,
    to_srgb,
    uses_little,
)
from lwgan.errors import UserError
from lwgan.settings.shapes import Shape, shape_of

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


def how_kept(data: ConfigDict) -> tuple[bool | str, ...]:
    """What kept images depend on beside their size and mode."""
    return (data.crop_prob > 0, *([data.fit] if data.fit != "crop" else []))


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


def stored_shape(data: ConfigDict) -> Shape:
    """What a kept image covers: the smallest crop must not be enlarged."""
    shape = shape_of(data.image_size)
    if data.crop_prob > 0:
        return Shape(*(math.ceil(math.sqrt(2) * side) for side in shape))
    return shape


def stored_excess(data: ConfigDict) -> float:
    """How many times as long as that shape one side of a kept image may be."""
    return MOST_LONG if data.crop_prob > 0 and data.fit == "crop" else 1.0


_MAKING = threading.Lock()


def _budget() -> Budget:
    # The cache itself lets two threads make one each.
    with _MAKING:
        return _one_budget()


@functools.cache
def _one_budget() -> Budget:
    return Budget(min(_IN_FLIGHT, free_memory() // 4))


@contextlib.contextmanager
def decoded(image: Image.Image, shape: Shape | None = None) -> Iterator[None]:
    """Decodes an opened image; of a JPEG, where there is a ``shape``, no more than is of use to it.

    Waits while images in flight take too much memory; this one is in flight until the block ends.

    Raises:
      ValueError: it has more than ``MAX_PIXELS``.
    """
    whole = width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} px are more than {MAX_PIXELS // 10**6} megapixels")
    # Asked for its orientation, a PNG would be decoded here and now.
    if shape and image.format in ("JPEG", "MPO"):
        sides = shape if _lies(image) else reversed(shape)
        image.draft(None, tuple(2 * side for side in sides))
    # Of a progressive one, libjpeg holds all that there is.
    size = whole if image.info.get("progressive") else image.size
    with _budget().of(_BYTES_A_PIXEL * math.prod(size)):
        image.load()
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
            width, height = opened.size
            shape, format_ = stored_shape(data), opened.format or ""
            deep = is_deep(opened)
            plain = opened.mode in ("1", "L", "LA", "F") or opened.mode.startswith("I")
            with decoded(opened, shape):
                # A TIFF is upright by now, its size from the beginning.
                if _lies(opened):
                    width, height = height, width
                image, faint, clipped = to_8_bits(opened)
                faint = faint or (deep and uses_little(image))
                alpha = (
                    image.has_transparency_data
                    and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
                )
                profile = profile_of(image)
                array = prepare(image, shape, data.mode, stored_excess(data), data.fit)
    except MemoryError:
        raise UserError(
            "data.path", source.names[index], "there is not enough memory to decode it", "free some"
        ) from None
    # Pillow raises many kinds.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    known = (format_, width, height, alpha, plain, int(profile), faint, clipped)
    return Info(*known), array


def prepare(
    image: Image.Image, shape: Shape, mode: str, excess: float = math.inf, fit: str = "crop"
) -> np.ndarray:
    """An image of any kind, just large enough to cover ``shape``: uint8 (H, W, C).

    Its middle, where a side is more than ``excess`` times as long as the shape's; with another
    ``fit``, a name in ``FITS``, exactly the shape. Resizing is bilinear with antialiasing, as in
    lightweight-gan. Turns it upright by its EXIF tag, takes the first frame, brings values to 8
    bits and colours to sRGB, and lays transparent images over white unless ``mode`` is rgba, where
    fully transparent pixels become black.
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
    size, box = FITS[fit](image.size, (shape.width, shape.height), excess)
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
    array = array if array.ndim == 3 else array[..., None]
    return _padded(array, shape, mode) if fit == "pad" else array


# Width and height.
_Size = tuple[int, int]
_Part = tuple[_Size, tuple[float, float, float, float]]


def _covering(whole: _Size, sides: _Size, excess: float) -> _Part:
    """The size to which an image is resized to cover ``sides``, and the box of it that is kept."""
    scale = max(side / length for side, length in zip(sides, whole, strict=True))
    resized = [max(side, round(length * scale)) for side, length in zip(sides, whole, strict=True)]
    size = tuple(
        int(min(length, side * excess)) for side, length in zip(sides, resized, strict=True)
    )
    first = [
        round((length - kept) / 2) * own / length
        for length, kept, own in zip(resized, size, whole, strict=True)
    ]
    last = [
        min(start + kept * own / length, own)
        for start, length, kept, own in zip(first, resized, size, whole, strict=True)
    ]
    return size, (*first, *last)


def _within(whole: _Size, sides: _Size, excess: float) -> _Part:
    """The size to which an image is resized to lie within ``sides``; all of it is kept."""
    del excess
    scale = min(side / length for side, length in zip(sides, whole, strict=True))
    return tuple(max(1, round(length * scale)) for length in whole), (0, 0, *whole)


def _stretched(whole: _Size, sides: _Size, excess: float) -> _Part:
    del excess
    return sides, (0, 0, *whole)


# How images of another shape come to that of ``data.image_size``.
FITS: dict[str, Callable[[_Size, _Size, float], _Part]] = {
    "crop": _covering,
    "pad": _within,
    "stretch": _stretched,
}


def _padded(array: np.ndarray, shape: Shape, mode: str) -> np.ndarray:
    """Amid white, or amid nothing where there is alpha."""
    missing = [side - own for side, own in zip(shape, array.shape[:2], strict=True)]
    widths = [(total // 2, total - total // 2) for total in missing]
    return np.pad(array, (*widths, (0, 0)), constant_values=0 if mode == "rgba" else 255)


def unfitted(image: np.ndarray, fit: str, aspect: float | None) -> np.ndarray:
    """uint8 (H, W, C) as images were before they were made to fit: ``aspect``, width by height.

    What was padded loses its border; what was stretched is enlarged one way. Where ``aspect`` is
    not known, nothing is done.
    """
    if aspect is None:
        return image
    height, width = image.shape[:2]
    if fit == "pad":
        left, top, right, bottom = centre_box(height, width, aspect)
        return image[top:bottom, left:right]
    if fit == "stretch":
        whole = Shape(max(height, round(width / aspect)), max(width, round(height * aspect)))
        return resize(image, whole, (0, 0, width, height))
    return image


# What undoes each orientation of EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says; ``ImageOps.exif_transpose`` fails where others are damaged."""
    turn = _TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def _lies(image: Image.Image) -> bool:
    """Whether it has to be turned by a quarter."""
    return orientation_of(image) >= 5


def to_rgb(images: np.ndarray, background: str) -> np.ndarray:
    """uint8 (…, H, W, 3) of 1, 3 or 4 channels; under rgba lies a name in ``BACKGROUNDS``."""
    if images.shape[-1] == 4:
        alpha = images[..., 3:] / np.float32(255)
        under = BACKGROUNDS[background] * (1 - alpha)
        return np.round(images[..., :3] * alpha + under).astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def centre_box(height: int, width: int, aspect: float = 1.0) -> Box:
    """The largest box in the middle that is ``aspect`` times as wide as high."""
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = round((width - w) / 2), round((height - h) / 2)
    return left, top, left + w, top + h


def draw_crop(height: int, width: int, prob: float, key: Sequence[int], aspect: float = 1.0) -> Box:
    """A random box with probability ``prob``, else the middle; ``key`` alone decides.

    It has half to all of the image's area and a ratio of its sides of 0.98 to 1.02 times
    ``aspect``, as in lightweight-gan.
    """
    rng = np.random.default_rng(key)
    if rng.random() < prob:
        for _ in range(10):
            area = height * width * rng.uniform(0.5, 1.0)
            ratio = aspect * math.exp(rng.uniform(math.log(0.98), math.log(1.02)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= width and h <= height:
                left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
                return left, top, left + w, top + h
    # Also where an image is too long for such a crop.
    return centre_box(height, width, aspect)


def resize(array: np.ndarray, shape: Shape, box: Box) -> np.ndarray:
    """The box of uint8 (H, W, C) at the shape, bilinear with antialiasing."""
    left, top, right, bottom = box
    if (bottom - top, right - left) == shape:
        return array[top:bottom, left:right]
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    resized = image.resize((shape.width, shape.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).reshape(*shape, -1)


def middle(array: np.ndarray, shape: Shape, at: Shape | None = None) -> np.ndarray:
    """The middle of uint8 (H, W, C) that the shape leaves; at this shape, or ``at`` another."""
    return resize(array, at or shape, centre_box(*array.shape[:2], shape.aspect))


def crop(array: np.ndarray, shape: Shape, prob: float, key: Sequence[int]) -> np.ndarray:
    """uint8 (H, W, C) at the shape: a random-resized crop as ``draw_crop`` draws it."""
    return resize(array, shape, draw_crop(*array.shape[:2], prob, key, shape.aspect))
