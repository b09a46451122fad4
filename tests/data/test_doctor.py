"""What a dataset is like, in words."""

import shutil

from PIL import Image

from lwgan.data.cache import load_dataset
from lwgan.data.doctor import summary
from lwgan.data.sources import open_source
from tests import drawn


def load(**settings):
    config = drawn.settings(**settings)
    return load_dataset(open_source(config), config)


def test_summary_finds_duplicates(tmp_path):
    """A face, its copy, and the same at another size, compressed; others look different."""
    config = drawn.settings(source="openmoji")
    source = open_source(config)
    for number in range(0, 100, 10):
        white = Image.new("RGBA", (128, 128), (255, 255, 255, 255))
        white.alpha_composite(source.read(number))
        white.convert("RGB").save(tmp_path / f"{number:02d}.png")
    shutil.copy(tmp_path / "00.png", tmp_path / "copy.png")
    with Image.open(tmp_path / "10.png") as image:
        image.resize((90, 90)).save(tmp_path / "small.jpg", quality=60)
    text = summary(load(path=str(tmp_path)))
    assert "formats: JPEG 1, PNG 11" in text
    assert "shorter side: 90 to 128 px, median 128; 0 below 32 px" in text
    assert "duplicates: 1 exact; 1 pairs look alike: 10.png and small.jpg" in text


def test_summary_of_sizes(tmp_path):
    for number, size in enumerate([(20, 20), (40, 80), (80, 40)]):
        drawn.noise(number, size).save(tmp_path / f"{number}.png")
    text = summary(load(path=str(tmp_path)))
    assert "1 below 32 px, enlarged" in text
    assert "width / height: 0.50 to 2.00, median 1.00; the middle square cuts away 33%" in text
    assert "kept in memory, 0.0 MiB" in text
