"""What the numbers in an image mean: more than 8 bits, floats, and colours of other profiles."""

import contextlib
import enum
import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

# In a TIFF.
_BITS, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
# In EXIF.
_ORIENTATION = 274
# An image that uses less than this share of its range looks black, or like one colour.
_LITTLE = 0.1


class Profile(enum.IntEnum):
    """What was done with an embedded colour profile."""

    # None, or sRGB itself.
    NONE = 0
    CONVERTED = 1
    # It cannot be read, or is of other channels: numbers are taken for sRGB.
    LEFT = 2


class Scaled(NamedTuple):
    """An image of 8 bits, and what came of a deeper one."""

    image: Image.Image
    # It uses less than a tenth of the range of its type.
    faint: bool
    # Some floats are not in 0 … 1.
    clipped: bool


def to_8_bits(image: Image.Image) -> Scaled:
    """A decoded image with 8 bits for each channel.

    Integers are scaled by the range of their type, from 0 (below it is black), floats by 0 … 1.
    Images of several channels have 8 bits already: Pillow gives no others.
    """
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)
        low, high = float(values.min()), float(values.max())
        eight = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
        return Scaled(_grey(eight, image), high - low < _LITTLE, low < 0 or high > 1)
    if not image.mode.startswith("I"):
        return Scaled(image, False, False)
    bits, values = _bits(image), np.asarray(image)
    if bits == 32:
        values = values.view(np.uint32)
    values = np.maximum(values, 0)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 2**bits - 1 - values
    spread = int(values.max()) - int(values.min())
    eight = (values >> (bits - 8)).astype(np.uint8)
    return Scaled(_grey(eight, image), spread < _LITTLE * 2**bits, False)


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image of several channels has 16 bits for each, of which Pillow reads 8."""
    # Not those of 16 bits for a whole pixel.
    return ";16" in str(getattr(image, "tile", "")).replace("BGR;16", "")


def uses_little(image: Image.Image) -> bool:
    """Whether the colours of an image of 8 bits use less than a tenth of their range."""
    extrema = dict(zip(image.getbands(), np.reshape(image.getextrema(), (-1, 2)), strict=True))
    extrema.pop("A", None)
    return np.ptp(list(extrema.values())) < _LITTLE * 2**8


def _bits(image: Image.Image) -> int:
    """How many bits the values of a whole-number image have; one less where there is a sign."""
    tags = getattr(image, "tag_v2", {})
    if _BITS not in tags:
        # Pillow brings PNG, PGM and JPEG 2000 to the range of 16 bits.
        return 16
    signed = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] != _UNSIGNED
    return tags[_BITS][0] - signed


def _grey(array: np.ndarray, image: Image.Image) -> Image.Image:
    """These values in place of an image's own; its transparent value would be one of the old."""
    grey = Image.fromarray(array)
    # Nor are damaged EXIF data read once more.
    grey.info = {k: value for k, value in image.info.items() if k not in ("transparency", "exif")}
    grey.getexif()[_ORIENTATION] = orientation_of(image)
    return grey


def orientation_of(image: Image.Image) -> int:
    """How the image lies, by EXIF: 1 is upright, from 5 to 8 on its side.

    What cannot be read is no reason to do without the image: it is taken for upright.
    """
    # A damaged one fails in several ways.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation in range(1, 9):
            return int(orientation)
    return 1


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | Profile:
    """From a profile's colours to sRGB; what there is to say instead if there is none."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        description = (opened.profile.profile_description or "").lower()
        if "srgb" in description and "linear" not in description:
            return Profile.NONE
        own = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[opened.profile.xcolor_space]
        # Grey images become RGB when something else is done with them.
        if own != mode and {own, mode} != {"RGB", "L"}:
            return Profile.LEFT
        return ImageCms.ImageCmsTransform(
            opened,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            own,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            # Threads share it.
            flags=ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    # A damaged one fails in several ways.
    except Exception:
        return Profile.LEFT


def profile_of(image: Image.Image) -> Profile:
    """What ``to_srgb`` does with an image, of any mode."""
    profile = image.info.get("icc_profile")
    if not profile:
        return Profile.NONE
    found = _transform(profile, _colours(image.mode))
    return found if isinstance(found, Profile) else Profile.CONVERTED


def _colours(mode: str) -> str:
    if mode in ("1", "L", "LA") or mode.startswith(("I", "F")):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def to_srgb(image: Image.Image) -> Image.Image:
    """An image (RGB, RGBA, CMYK or L) whose ``profile_of`` is CONVERTED, as sRGB: RGB or RGBA."""
    transform = _transform(image.info["icc_profile"], _colours(image.mode))
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    converted = transform.apply(image.convert(transform.input_mode))
    if alpha:
        converted.putalpha(alpha)
    return converted
