"""Grids of images, and sheets of rows with titles."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont


def make_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 (N, H, W, C) -> one image (H', W', C), row by row, with 2 px of 0 round each."""
    images = np.pad(images, ((0, -len(images) % columns), (2, 0), (2, 0), (0, 0)))
    tiled = rearrange(images, "(r c) h w ch -> (r h) (c w) ch", c=columns)
    return np.pad(tiled, ((0, 2), (0, 2), (0, 0)))


def square_columns(count: int) -> int:
    """Columns of a nearly square grid of so many images."""
    return math.ceil(math.sqrt(count))


def make_sheet(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of images, uint8 (B, H, W, C), below each other with what they show: uint8 (H, W, 3).

    rgba lies over a checkerboard.
    """
    strips = []
    for title, images in rows.items():
        row = make_grid(over_checkerboard(images), len(images))
        label = Image.new("RGB", (row.shape[1], 20), (0, 0, 0))
        ImageDraw.Draw(label).text((4, 2), title, font=ImageFont.load_default(14))
        strips += [np.asarray(label), row]
    return np.concatenate(strips)


def titled(images: np.ndarray, columns: int, titles: Sequence[str]) -> np.ndarray:
    """uint8 (N, H, W, C) as a grid, or as a sheet with a title over each row if there are some."""
    if not titles:
        return make_grid(images, columns)
    rows = images.reshape(len(titles), -1, *images.shape[1:])
    return make_sheet(dict(zip(titles, rows, strict=True)))


def over_checkerboard(images: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) of images with 1, 3 or 4 channels."""
    if images.shape[-1] != 4:
        return np.broadcast_to(images, (*images.shape[:3], 3))
    squares = (np.indices(images.shape[1:3]) // 8).sum(0)
    board = np.where(squares % 2, 200.0, 150.0)[..., None]
    alpha = images[..., 3:] / 255
    return np.round(images[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)


def thumbnails(images: np.ndarray, size: int = 128) -> np.ndarray:
    """uint8 (B, H, W, C), the shorter side ``size`` or a little more: means over squares."""
    side = 1 << max(0, (min(images.shape[1:3]) // size).bit_length() - 1)
    blocks = rearrange(images, "b (h x) (w y) c -> b h w c (x y)", x=side, y=side)
    return np.round(blocks.mean(-1)).astype(np.uint8)
