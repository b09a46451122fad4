"""The shape of images, as ``data.image_size`` names it: 256, or height x width such as 256x384."""

import re
from typing import NamedTuple

from lwgan.settings.rules import Rule, power_of_two

# The types of ``data.image_size``.
KINDS = (int, str)

LONGEST = 1024
_SHORTEST, _MOST_LONG = 32, 8
square = power_of_two(_SHORTEST, LONGEST)


class Shape(NamedTuple):
    """Of images, in pixels.

    Both sides are multiples of one power of two, and the shorter one is 4 to 7 of it: the smallest
    features have that shape, and each layer doubles it.
    """

    height: int
    width: int

    @property
    def size(self) -> int:
        """The side of the square images whose networks have as many layers."""
        return 2 ** (min(self).bit_length() - 1)

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.width / self.height

    def at(self, size: int) -> tuple[int, int]:
        """Rows and columns of the features that are a square of ``size`` for square images."""
        return self.height * size // self.size, self.width * size // self.size


def shape_of(image_size: int | str) -> Shape:
    """The shape that a valid ``data.image_size`` names."""
    if isinstance(image_size, int):
        return Shape(image_size, image_size)
    height, width = image_size.split("x")
    return Shape(int(height), int(width))


def named(shape: Shape) -> int | str:
    """The ``data.image_size`` of a shape."""
    side = shape.height
    return side if square.holds(side) and shape == (side, side) else f"{side}x{shape.width}"


def _is_shape(value: int | str) -> bool:
    if isinstance(value, int):
        return square.holds(value)
    if not re.fullmatch(r"\d{2,4}x\d{2,4}", value):
        return False
    shape = shape_of(value)
    step = shape.size // 4
    within = _SHORTEST <= min(shape) and max(shape) <= min(LONGEST, _MOST_LONG * min(shape))
    whole = shape.height % step == shape.width % step == 0
    # One shape has one name: what it is has to stay within a run.
    return within and whole and named(shape) == value


IMAGE_SIZE = Rule(
    _is_shape,
    f"{square.words}, or height x width such as 256x384 ({_SHORTEST} to {LONGEST}, up to "
    f"{_MOST_LONG}:1, multiples of a power of two of which the shorter side has 4 to 7)",
)
