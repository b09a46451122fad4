"""Images and videos in files, written as they come."""

import numpy as np
from PIL import Image

from lwgan.sampling import image_files, sheets
from lwgan.sampling.sampler import to_uint8


def test_images_are_written_as_they_come(tmp_path, monkeypatch):
    """Each is there before the next is drawn; the grid shows the first that it has room for."""
    monkeypatch.setattr(image_files, "GRID_PIXELS", 5 * 64)
    images = np.random.default_rng(0).uniform(-0.2, 1.2, (9, 8, 8, 3)).astype(np.float32)
    names = [f"{number:05d}" for number in range(9)]

    def drawn():
        for number, image in enumerate(images):
            assert len(list(tmp_path.glob("*.png"))) == number
            yield image

    image_files.write_images(
        drawn(), tmp_path, names, extension="png", npy=True, columns=2, finish=np.asarray
    )
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == [*(f"{name}.png" for name in names), "grid.png", "samples.npy"]
    rounded = to_uint8(images)
    for name, image in zip(names, rounded, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), image)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    np.testing.assert_array_equal(grid, sheets.make_grid(rounded[:5], 2))
    array = np.load(tmp_path / "samples.npy")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, images)


def test_arrays_alone(tmp_path):
    images = np.zeros((3, 8, 8, 1), np.float32)
    image_files.write_images(
        iter(images),
        tmp_path,
        list("abc"),
        extension=None,
        npy=True,
        columns=None,
        finish=np.asarray,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.png", "samples.npy"]
