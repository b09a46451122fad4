"""Two folders, compared without a run."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.metrics.folders import _good_images
from tests import drawn
from tests.data import icc


class Whole:
    """In place of a network: sees the image as it is."""

    def at_size(self, image):
        return image.astype(np.float32)


def test_grey_images_with_a_profile_keep_their_transparency(tmp_path):
    """Whether they say it with a channel or with one transparent value."""
    image = Image.new("L", (50, 40), 100)
    image.paste(7, (0, 0, 50, 20))
    profile = icc.grey_profile(1.8)
    image.save(tmp_path / "0.png", icc_profile=profile, transparency=7)
    alpha = image.point(lambda value: 0 if value == 7 else 255)
    Image.merge("LA", (image, alpha)).save(tmp_path / "1.png", icc_profile=profile)
    source = open_source(drawn.settings(path=str(tmp_path)))
    errors = {}
    found = list(_good_images(Whole(), source, "white", errors))
    assert not errors and len(found) == 2
    linear = (100 / 255) ** 1.8
    for pixels in found:
        assert (pixels[:20] == 255).all()
        np.testing.assert_allclose(pixels[20:], 255 * (1.055 * linear ** (1 / 2.4) - 0.055), atol=2)


def test_a_disk_that_fails_leaves_nothing_out(folder):
    def fail(index):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    source = open_source(drawn.settings(path=str(folder)))._replace(read=fail)
    with pytest.raises(UserError, match=r"\.png'?: cannot be read \(Input/output error\)"):
        list(_good_images(Whole(), source, "white", {}))
