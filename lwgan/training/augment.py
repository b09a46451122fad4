"""DiffAugment (arXiv:2006.10738) as lightweight-gan 1.2.1 has it, from dm-pix parts.

Pure and differentiable, one image (H, W, C) in [0, 1] and one key at a time. What is drawn and what
is done with it are apart, so that either can be checked alone. Values are never clipped, and what
moves in from outside is 0: black, or transparent black. A new augmentation is a pair of functions
and one line in ``AUGMENTATIONS``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import dm_pix as pix
import flax
import jax
import jax.numpy as jnp

Shape = tuple[int, int, int]


class Augmentation(NamedTuple):
    """``draw(key, shape)`` gives one image's random numbers, ``apply(image, drawn)`` uses them."""

    draw: Callable[[jax.Array, Shape], Any]
    apply: Callable[[jax.Array, Any], jax.Array]


class Color(NamedTuple):
    """Factors () of the colour change."""

    # Added, -0.5 to 0.5.
    brightness: jax.Array
    # Times the distance to the pixel's mean, 0 to 2.
    saturation: jax.Array
    # Times the distance to the image's mean, 0.5 to 1.5.
    contrast: jax.Array


def draw_color(key: jax.Array, shape: Shape) -> Color:
    """Uniform over the ranges that ``Color`` names."""
    del shape
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    return Color(brightness - 0.5, saturation * 2, contrast + 0.5)


def apply_color(image: jax.Array, drawn: Color) -> jax.Array:
    """Brightness, then saturation about each pixel's mean, then contrast about the image's mean."""
    height, width, channels = image.shape
    image = pix.adjust_brightness(image, drawn.brightness)
    # pix takes the mean over the first two axes of each channel: lay out as channels what has one
    # mean.
    pixels = image.reshape(height * width, channels).T[None]
    pixels = pix.adjust_contrast(pixels, drawn.saturation)[0].T
    whole = pixels.reshape(height, width * channels, 1)
    return pix.adjust_contrast(whole, drawn.contrast).reshape(image.shape)


def apply_visible_color(image: jax.Array, drawn: Color) -> jax.Array:
    """``apply_color`` of the colours; the fourth channel, how opaque a pixel is, stays as it is."""
    return jnp.concatenate([apply_color(image[..., :3], drawn), image[..., 3:]], axis=-1)


def draw_translation(key: jax.Array, shape: Shape) -> jax.Array:
    """Whole pixels (down, right), int32 (2,), up to an eighth of the side either way."""
    reach = jnp.array([_share(side, 0.125) for side in shape[:2]])
    return jax.random.randint(key, (2,), -reach, reach + 1)


def apply_translation(image: jax.Array, drawn: jax.Array) -> jax.Array:
    """Shows the image's window that begins at ``drawn``; zeros enter."""
    height, width, channels = image.shape
    reach = [_share(side, 0.125) for side in (height, width)]
    padded = pix.pad_to_size(image, height + 2 * reach[0], width + 2 * reach[1])
    start = (reach[0] + drawn[0], reach[1] + drawn[1], 0)
    return jax.lax.dynamic_slice(padded, start, (height, width, channels))


def draw_cutout(key: jax.Array, shape: Shape) -> jax.Array:
    """The centre (row, column) of the square, int32 (2,), from 0 to the side."""
    last = jnp.array([side - _share(side, 0.5) % 2 for side in shape[:2]])
    return jax.random.randint(key, (2,), 0, last + 1)


def apply_cutout(image: jax.Array, drawn: jax.Array) -> jax.Array:
    """Zeroes a square of half the side about ``drawn``, cut at the border."""

    def outside(side: int, centre: jax.Array) -> jax.Array:
        length = _share(side, 0.5)
        first = centre - length // 2
        position = jnp.arange(side)
        return (position < first) | (position >= first + length)

    height, width, _ = image.shape
    kept = outside(height, drawn[0])[:, None] | outside(width, drawn[1])[None, :]
    return image * kept[..., None]


def _draw_offset(vertical: bool, horizontal: bool) -> Callable[[jax.Array, Shape], jax.Array]:
    """Even whole pixels (down, right), int32 (2,), up to the side; 0 where not asked for."""

    def draw(key: jax.Array, shape: Shape) -> jax.Array:
        side = jnp.array(shape[:2])
        shift = 2 * jax.random.randint(key, (2,), 0, side + 1) - side
        return shift * jnp.array([vertical, horizontal])

    return draw


def apply_offset(image: jax.Array, drawn: jax.Array) -> jax.Array:
    """Rolls the image round its borders by ``drawn`` (down, right)."""
    return jnp.roll(image, (drawn[0], drawn[1]), axis=(0, 1))


def _share(side: int, ratio: float) -> int:
    return int(side * ratio + 0.5)


AUGMENTATIONS = {
    "color": Augmentation(draw_color, apply_visible_color),
    # Of all channels, as in lightweight-gan.
    "color_alpha": Augmentation(draw_color, apply_color),
    "cutout": Augmentation(draw_cutout, apply_cutout),
    "translation": Augmentation(draw_translation, apply_translation),
    "offset": Augmentation(_draw_offset(True, True), apply_offset),
    "offset_h": Augmentation(_draw_offset(False, True), apply_offset),
    "offset_v": Augmentation(_draw_offset(True, False), apply_offset),
}


def augment_images(
    images: jax.Array,
    keys: jax.Array,
    coin_keys: jax.Array,
    *,
    types: tuple[str, ...],
    prob: float | jax.Array,
    hflip: bool,
    flip_unaugmented: bool,
) -> jax.Array:
    """What the discriminator sees of images (B, H, W, C).

    Args:
      images: float32 (B, H, W, C) in [0, 1].
      keys: one key (B,) per image, for what the augmentations draw.
      coin_keys: one key (B,) per image, for whether to augment it and whether to flip it; images
        with the same key fare alike.
      types: names in ``AUGMENTATIONS``, applied in this order.
      prob: the probability of an image to be augmented.
      hflip: whether half of the images are flipped, left to right, before the augmentations.
      flip_unaugmented: whether an image that is not augmented may be flipped.

    Returns:
      float32 (B, H, W, C), not clipped.
    """

    def one(image: jax.Array, key: jax.Array, coin_key: jax.Array) -> jax.Array:
        coin, side = jax.random.uniform(coin_key, (2,))
        flipped = jnp.where(side < 0.5, pix.flip_left_right(image), image) if hflip else image
        augmented = flipped
        for position, name in enumerate(types):
            draw, apply = AUGMENTATIONS[name]
            drawn = draw(jax.random.fold_in(key, position), image.shape)
            augmented = apply(augmented, drawn)
        return jnp.where(coin < prob, augmented, flipped if flip_unaugmented else image)

    return jax.vmap(one)(images, keys, coin_keys)


# Karras et al. 2020 find that augmentations begin to show in the samples above it.
MOST = 0.8


@flax.struct.dataclass
class Adaptive:
    """The probability of augmentation, driven by what the discriminator says of real images."""

    # float32 (), 0 to ``MOST``.
    prob: jax.Array
    # float32 (): the mean sign of the logits of reals, over about the last four steps. It is 1
    # where all reals are told from fakes, and 0 where they could as well be fakes.
    sign: jax.Array

    @classmethod
    def start(cls, prob: float) -> "Adaptive":
        """Before the first step."""
        return cls(jnp.float32(prob), jnp.float32(0))


def adapt(adaptive: Adaptive, sign: jax.Array, target: float, pace: float) -> Adaptive:
    """Moves the probability by ``pace`` towards where the reals' mean sign is ``target``.

    ``sign`` float32 () is that of one step. Adaptive discriminator augmentation (Karras et al.
    2020, arXiv:2006.06676), in every step rather than in every fourth.
    """
    sign = adaptive.sign + (sign - adaptive.sign) / 4
    prob = jnp.clip(adaptive.prob + pace * jnp.sign(sign - target), 0, MOST)
    return Adaptive(prob, sign)


def prob_for(num_images: int) -> float:
    """lightweight-gan's probability of augmentation for a dataset of this size: 0.3 down to 0."""
    return max(0.0, min(0.5, (1e5 - num_images) * 3e-6))
