"""The sheet of a training batch and its augmentations, and the command that draws it."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from lwgan import preview
from lwgan.data.batches import Layout, read_batches
from lwgan.data.cache import load_dataset
from lwgan.data.source import content_order
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.sampling import sheets
from lwgan.training.augment import AUGMENTATIONS
from tests import drawn
from tests.calling import call
from tests.house import ROOT


def config(mode="rgb", **changes):
    found = quickstart.get_config()
    found.data.update(image_size=32, mode=mode, **changes)
    return found


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_sheet_shows_every_augmentation(mode):
    images = preview.training_batch(config(mode), 5)
    found = preview.augmented_rows(images, config(mode))
    assert list(found)[:-1] == ["training batch", *AUGMENTATIONS]
    assert list(found)[-1] == "all of this run: flip + translation + cutout"
    np.testing.assert_array_equal(found["training batch"], images)
    for title, row in found.items():
        assert row.shape == images.shape and row.dtype == np.uint8
        assert title == "training batch" or (row != images).any((1, 2, 3)).sum() >= 3, title
    sheet = sheets.make_sheet(found)
    assert sheet.shape == (len(found) * (20 + 36), 5 * 34 + 2, 3) and sheet.dtype == np.uint8
    for number, row in enumerate(found.values()):
        top = number * 56 + 22
        np.testing.assert_array_equal(
            sheet[top : top + 32, 36:68], sheets.over_checkerboard(row)[1]
        )


def test_a_row_is_what_the_augmentation_does():
    """A translation moves each image as its own draw says."""
    images = preview.training_batch(config(), 4)
    found = preview.augmented_rows(images, config())["translation"]
    for image, moved in zip(images, found, strict=True):
        candidates = [
            AUGMENTATIONS["translation"].apply(jnp.asarray(image, float), jnp.array([y, x]))
            for y in range(-4, 5)
            for x in range(-4, 5)
        ]
        assert any((np.asarray(candidate) == moved).all() for candidate in candidates)


def test_training_batch_is_the_first_of_the_run():
    settings = config(crop_prob=0.5)
    kept = load_dataset(open_source(settings.data), settings.data)
    layout = Layout(batches=1, batch_size=6, grad_accum=1, devices=1)
    first = next(
        read_batches(
            kept, content_order(kept.contents), layout, seed=0, start_step=0, num_threads=1
        )
    )
    np.testing.assert_array_equal(preview.training_batch(settings, 6), first.reshape(6, 32, 32, 3))


def test_over_checkerboard():
    images = np.zeros((1, 16, 16, 4), np.uint8)
    images[..., 0], images[:, :, 8:, 3] = 100, 255
    board = sheets.over_checkerboard(images)[0]
    assert (board[:8, :8] == 150).all() and (board[8:, :8] == 200).all()
    assert (board[:, 8:] == [100, 0, 0]).all()
    assert sheets.over_checkerboard(images[..., :1]).shape == (1, 16, 16, 3)


def test_one_image(tmp_path):
    drawn.noise(0, (60, 40)).save(tmp_path / "a.png")
    images = preview.one_image(str(tmp_path / "a.png"), config(), 3)
    assert images.shape == (3, 32, 32, 3) and (images == images[0]).all()
    cropped = preview.one_image(str(tmp_path / "a.png"), config(crop_prob=1.0), 3)
    assert (cropped[0] != cropped[1]).any()
    for name in ("b.png", "c.png"):
        (tmp_path / "c.png").write_text("no image")
        with pytest.raises(UserError, match=rf"--image = .*{name}.*does not decode"):
            preview.one_image(str(tmp_path / name), config(), 3)


def test_the_command(folder, tmp_path, caplog):
    def command(*arguments):
        config = f"--config={ROOT / 'configs' / 'folder.py'}"
        return call("lwgan.preview", config, "--config.data.image_size=32", *arguments)

    out = tmp_path / "sheet.png"
    (folder / "broken.png").write_text("no image")
    done = command(f"--config.data.path={folder}", f"--out={out}", "--num_images=4")
    assert done.returncode == 0, done.stderr
    assert "5 images; 1 of 6 files left out" in done.stdout
    assert "broken.png" in caplog.text
    with Image.open(out) as image:
        assert image.size == (4 * 34 + 2, (len(AUGMENTATIONS) + 2) * 56)
    out.unlink()
    done = command(f"--config.data.path={folder}", f"--out={out}", "--check")
    assert done.returncode == 0 and "duplicates: 0 exact" in done.stdout
    assert not out.exists()
    done = command(f"--image={folder / '0.png'}", f"--out={tmp_path / 'no' / 'sheet.png'}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_sheet_does_not_become_an_image_of_the_dataset(folder, tmp_path):
    config = "--config=configs/folder.py"
    data = (config, f"--config.data.path={folder}", "--config.data.image_size=32")
    refused = call("lwgan.preview", *data, f"--out={folder / 'sheet.png'}")
    assert refused.returncode == 2
    assert "would become one of them; name a place outside of data.path" in refused.stderr
    assert len(list(folder.iterdir())) == 5
    assert call("lwgan.preview", *data, f"--out={tmp_path / 'sheet.png'}").returncode == 0


def test_the_cache_is_listed_and_cleared(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = ("--config=configs/folder.py", f"--config.data.path={folder}", "--check")
    call("lwgan.preview", *data, "--config.data.image_size=32", "--config.data.cache=disk")
    listed = call("lwgan.preview", "--cache").stdout
    assert f"5 images of {folder}, 32 px, rgb" in listed
    assert "removed from" in call("lwgan.preview", "--cache_clear").stdout
    assert call("lwgan.preview", "--cache").stdout.split()[:2] == ["0.0", "MiB"]
