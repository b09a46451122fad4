"""The user's cache: damaged, listed, cleared, bounded."""

import os

import numpy as np
import pytest

from lwgan.data import cache as cache_module
from lwgan.data import kept
from lwgan.data.batches import Layout, read_batches
from lwgan.data.cache import load_dataset
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from tests import drawn


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lwgan"


def load(folder, **changes):
    config = drawn.settings(path=str(folder), **{"cache": "disk", **changes})
    return load_dataset(open_source(config), config)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def cut(path, share, more=b""):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)] + more)


DAMAGES = {
    "zeros": lambda place: (place / "pixels").write_bytes(bytes(5 * 32 * 32 * 3)),
    "half": lambda place: cut(place / "pixels", 0.5),
    "longer": lambda place: cut(place / "pixels", 1, b"x"),
    "one bit": lambda place: flip(place / "pixels", 4000),
    "no pixels": lambda place: (place / "pixels").unlink(),
    "empty index": lambda place: (place / "known.npz").write_bytes(b""),
    "half an index": lambda place: cut(place / "known.npz", 0.5),
    "a bit of the index": lambda place: flip(place / "known.npz", 500),
    "no index": lambda place: (place / "known.npz").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_what_is_damaged_is_made_anew(folder, root, cache, damage):
    """Batches are bit for bit as without a cache."""
    expected = drawn.pixels(load(folder, cache="none"))
    load(folder)
    (pixels,) = root.glob("*/pixels")
    DAMAGES[damage](pixels.parent)
    layout = Layout(batches=1, batch_size=20, grad_accum=1, devices=1)
    for _ in range(2):
        dataset = load(folder, cache=cache)
        how = dict(seed=0, start_step=0, num_threads=2)
        batches = read_batches(dataset, np.arange(5), layout, **how)
        images = {image.tobytes() for image in next(batches).reshape(20, 32, 32, 3)}
        assert images == {image.tobytes() for image in expected}


def test_a_mended_image_is_mended_in_the_file(folder, root, caplog):
    load(folder)
    (pixels,) = root.glob("*/pixels")
    whole = pixels.read_bytes()
    flip(pixels, 4000)
    drawn.pixels(load(folder))
    assert "copy of 1.png is damaged" in caplog.text
    assert pixels.read_bytes() == whole


def test_what_takes_long_in_memory_is_kept_on_disk_too(folder, root, monkeypatch):
    assert load(folder, cache="auto").kept.startswith("in memory")
    assert not list(root.glob("*/pixels"))
    monkeypatch.setattr(cache_module, "_LONG", 0)
    first = load(folder, cache="auto")
    monkeypatch.setattr(cache_module, "decode_all", None)
    for mode in ("auto", "memory", "disk", "none"):
        np.testing.assert_array_equal(load(folder, cache=mode).infos, first.infos)


def test_a_second_start_reads_no_file(folder, monkeypatch):
    for number in range(5):
        os.utime(folder / f"{number}.png", (1e9, 1e9))
    config = drawn.settings(path=str(folder))
    # Changes of a moment ago are not to be trusted; these are older, to this clock.
    from lwgan.data import folder as folder_module

    monkeypatch.setattr(folder_module, "_FRESH_NS", 0)
    first = open_source(config)
    monkeypatch.setattr(folder_module, "_look", None)
    assert open_source(config).fingerprint == first.fingerprint
    monkeypatch.undo()
    drawn.noise(8).save(folder / "3.png")
    assert open_source(config).fingerprint != first.fingerprint


def test_listing_and_clearing(folder, root):
    load(folder)
    load(folder, mode="grey")
    load(folder, cache="none")
    text = kept.listing()
    assert f"5 images of {folder}, 32 px, rgb" in text and "grey" in text
    assert text.count("MiB") == 1 + len(list(kept.entries()))
    (root / "weights.pth").write_bytes(b"not to be had again")
    kept.clear()
    assert not list(kept.entries()) and (root / "weights.pth").exists()


def test_the_oldest_make_room(folder, root, monkeypatch):
    for age, size in enumerate((32, 64, 128)):
        load(folder, image_size=size)
        (newest,) = (path.parent for path in root.glob("*/pixels") if age == oldest(path))
        os.utime(newest, (1e9 - age, 1e9 - age))
    sizes = {entry.path: entry.bytes for entry in kept.entries()}
    monkeypatch.setattr(kept, "room", lambda: sum(sizes.values()))
    kept.make_room(1000)
    left = {path.parent for path in root.glob("*/pixels")}
    assert len(left) == 2 and all((path.stat().st_mtime > 1e9 - 2) for path in left)


def oldest(path):
    """Which of the three sizes a file is of."""
    return {15360: 0, 61440: 1, 245760: 2}[path.stat().st_size]


def test_a_cache_that_may_not_be_written_to_is_read(folder, root, monkeypatch):
    load(folder)
    monkeypatch.setattr(cache_module, "_write", None)
    config = drawn.settings(path=str(folder), cache="disk")
    assert load_dataset(open_source(config), config, keep=False).kept.startswith("in /")


def test_a_cache_that_is_a_file_is_the_users_error(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"data\.cache = 'disk': images cannot be kept in"):
        load(folder)
    assert load(folder, cache="auto").kept.startswith("in memory")


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_what_the_disk_fails_to_read_is_not_remembered(folder, root, cache):
    config = drawn.settings(path=str(folder), cache=cache)
    source = open_source(config)

    def failing(index):
        if index == 2:
            raise OSError(5, "Input/output error")
        return source.read(index)

    with pytest.raises(UserError, match=r"data\.path = '2\.png': cannot be read \(Input/output"):
        load_dataset(source._replace(read=failing), config)
    assert len(load_dataset(source, config).names) == 5


def test_a_digest_that_could_not_be_read_is_read_again(folder, monkeypatch):
    from lwgan.data import folder as folder_module

    monkeypatch.setattr(folder_module, "_FRESH_NS", 0)
    config = drawn.settings(path=str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_look", lambda root, name: (bytes(16), True))
        assert not open_source(config).digests.any()
    assert open_source(config).digests.any(1).all()


def test_another_opener_looks_again(folder, monkeypatch):
    from lwgan.data import folder as folder_module
    from lwgan.data import known as known_module

    monkeypatch.setattr(folder_module, "_FRESH_NS", 0)
    (folder / "a.xyz").write_text("an image to a later version")
    config = drawn.settings(path=str(folder))
    source = open_source(config)
    key = known_module.key_of(source, config)
    for module in (folder_module, known_module):
        monkeypatch.setattr(module, "openers", lambda: "99")
    assert known_module.key_of(source, config) != key
    monkeypatch.setattr(folder_module, "is_image_file", lambda file, name: True)
    assert len(open_source(config).names) == 6


def test_what_others_write_or_use_is_left_alone(folder, root, monkeypatch):
    load(folder)
    (part,) = (path.parent for path in root.glob("*/pixels"))
    unfinished = part.rename(part.with_name(f"{part.name}.{os.getpid()}.part"))
    load(folder, mode="grey")
    kept.make_room(10**18)
    kept.make_room(kept.room())
    assert len([entry for entry in kept.entries() if entry.path.is_dir()]) == 1
    kept.clear()
    assert unfinished.exists()


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
def test_images_with_the_same_middle_look_alike_with_crops_too(tmp_path, crop_prob):
    """Else images that are held out would be trained with when crops are turned on."""
    middle = drawn.noise(0, (7, 7)).resize((90, 90), drawn.Image.Resampling.BICUBIC)
    for number in range(2):
        wide = drawn.noise(number, (180, 90))
        wide.paste(middle, (45, 0))
        wide.save(tmp_path / f"{number}.png")
    first, second = load(tmp_path, cache="memory", crop_prob=crop_prob).infos["hash"]
    assert np.bitwise_count(first ^ second) <= 3


def test_nothing_decodes_and_the_disk_is_asked_for(tmp_path):
    (tmp_path / "pics").mkdir()
    for number in range(2):
        (tmp_path / "pics" / f"{number}.jpg").write_text("no image")
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 2 images do not decode"):
            load(tmp_path / "pics")
