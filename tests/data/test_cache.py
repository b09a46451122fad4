"""What is decoded once and kept: in memory, in a file, or not at all."""

import builtins
import errno
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lwgan.data import cache as cache_module
from lwgan.data import decode
from lwgan.data import folder as folder_module
from lwgan.data.cache import _folder as _cache_folder
from lwgan.data.cache import load_dataset
from lwgan.data.doctor import summary
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from tests import drawn


def load(**settings):
    config = drawn.settings(**settings)
    return load_dataset(open_source(config), config)


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_images_that_do_not_decode_are_left_out(folder, monkeypatch, tmp_path, cache, crop_prob):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = load(path=str(folder), crop_prob=crop_prob)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:500])
    (folder / "3.png").write_bytes(b"")
    (folder / "lost.png").symlink_to("nowhere.png")
    kept = load(path=str(folder), cache=cache, crop_prob=crop_prob)
    assert kept.names == ["0.png", "2.png", "4.png"] and len(kept.infos) == 3
    assert kept.errors.keys() == {"1.png", "3.png", "lost.png"}
    for number, before in enumerate((0, 2, 4)):
        np.testing.assert_array_equal(kept.at(number), whole.at(before))
    assert "3 of 6 files left out" in summary(kept)


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
def test_the_same_images_wherever_they_are_kept(folder, monkeypatch, tmp_path, crop_prob):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(b"no image")
    first, *others = (
        load(path=str(folder), crop_prob=crop_prob, cache=cache)
        for cache in ("memory", "disk", "none", "disk", "none", "memory")
    )
    for kept in others:
        assert (kept.names, kept.errors) == (first.names, first.errors)
        np.testing.assert_array_equal(kept.infos, first.infos)
        for number in range(3):
            np.testing.assert_array_equal(kept.at(number), first.at(number))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_set_that_is_mostly_broken_is_refused(folder, monkeypatch, tmp_path, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("1.png", "3.png", "4.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"3 of 5 images do not decode; the first is 1\.png"):
        load(path=str(folder), cache=cache)


def test_an_image_is_cropped_anew_at_each_position(folder):
    kept = load(path=str(folder), crop_prob=1.0)
    crops = kept.take(np.array([3, 3]), 0, np.array([3, 8]))
    assert (crops[0] != crops[1]).any()
    np.testing.assert_array_equal(kept.take(np.array([3]), 0, np.array([8])), crops[1:])
    assert (kept.take(np.array([3]), 1, np.array([8])) != crops[1:]).any()


@pytest.mark.parametrize(
    ("cache", "crop_prob", "memory", "disk", "where"),
    [
        # The five images need 15,360 bytes.
        ("auto", 0.0, 31_000, 0, "in memory"),
        ("auto", 0.0, 30_000, 15_400, "in /"),
        ("auto", 0.0, 30_000, 15_300, "nowhere"),
        ("auto", 0.5, 31_000, 0, "nowhere"),
        ("memory", 0.0, 0, 0, "in memory"),
        ("disk", 0.0, 10**9, 0, "in /"),
        ("none", 0.0, 10**9, 0, "nowhere"),
    ],
)
def test_cache_keeps_what_fits(
    folder, tmp_path, monkeypatch, cache, crop_prob, memory, disk, where
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_module, "free_memory", lambda: memory)
    monkeypatch.setattr(cache_module.kept, "room", lambda: disk)
    kept = load(path=str(folder), cache=cache, crop_prob=crop_prob)
    assert kept.kept.startswith(where)
    shutil.rmtree(folder)
    if where == "nowhere":
        with pytest.raises(UserError):
            kept.at(0)
    else:
        assert kept.at(0).shape == ((46, 56, 3) if crop_prob else (32, 32, 3))


@pytest.mark.parametrize("crop_prob", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey"])
def test_a_disk_cache_holds_the_same_and_is_used_again(
    folder, tmp_path, monkeypatch, mode, crop_prob
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    choice = dict(path=str(folder), mode=mode, crop_prob=crop_prob)
    memory, disk = load(**choice), load(**choice, cache="disk")
    # Nothing is decoded again.
    monkeypatch.setattr(cache_module, "read_image", None)
    again = load(**choice, cache="disk")
    for kept in (disk, again):
        assert kept.names == memory.names
        np.testing.assert_array_equal(kept.infos, memory.infos)
        positions = np.arange(10)
        np.testing.assert_array_equal(
            kept.take(positions % 5, 0, positions), memory.take(positions % 5, 0, positions)
        )
    assert len(list((tmp_path / "cache" / "lwgan").glob("*/pixels"))) == 1


def test_what_a_killed_process_left_of_a_disk_cache_is_made_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = drawn.settings(path=str(folder), cache="disk")
    cache = _cache_folder(open_source(config), config)
    cache.with_suffix(".part").mkdir(parents=True)
    (cache.with_suffix(".part") / "pixels").write_bytes(b"half")
    np.testing.assert_array_equal(
        drawn.pixels(load(**config)), drawn.pixels(load(path=str(folder)))
    )
    assert not list(cache.parent.glob("*.part")) and (cache / "pixels").exists()


def test_a_disk_cache_is_of_its_images_and_settings(folder):
    def key(**changes):
        config = drawn.settings(path=str(folder), **changes)
        return _cache_folder(open_source(config), config)

    keys = [key(), key(mode="grey"), key(image_size=64), key(crop_prob=0.1)]
    drawn.noise(7).save(folder / "0.png")
    assert len({*keys, key()}) == 5
    assert key(crop_prob=0.1) == key(crop_prob=0.9)


def test_two_processes_build_one_disk_cache(folder, tmp_path):
    code = (
        "from tests import drawn; from lwgan.data.cache import load_dataset\n"
        "from lwgan.data.sources import open_source\n"
        f"config = drawn.settings(path={str(folder)!r}, cache='disk')\n"
        "kept = load_dataset(open_source(config), config)\n"
        "print(int(drawn.pixels(kept).sum()))"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    totals = [int(process.communicate(timeout=300)[0]) for process in processes]
    assert totals == [int(drawn.pixels(load(path=str(folder))).sum())] * 2


def test_images_are_kept_large_enough_for_the_smallest_crop(folder):
    kept = load(path=str(folder), crop_prob=1.0)
    height, width, _ = kept.at(0).shape
    boxes = [decode.draw_crop(height, width, 1.0, (0, i)) for i in range(300)]
    assert min(min(right - left, bottom - top) for left, top, right, bottom in boxes) >= 32


def test_the_middle_of_a_kept_image(folder):
    slope = np.linspace(0, 255, 300).astype(np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(slope, (200, 300))] * 3, -1)).save(folder / "0.png")
    plain, cropped = load(path=str(folder)), load(path=str(folder), crop_prob=0.5)
    np.testing.assert_array_equal(plain.centre(0), plain.at(0))
    np.testing.assert_allclose(cropped.centre(0).astype(int), plain.centre(0), atol=3)


def no_home(monkeypatch, tmp_path, kind):
    """A home that is not there, or nobody's, or closed: what other users of a container have."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if kind == "unknown":
        expanduser = pathlib.Path.expanduser

        def unknown(path):
            if str(path).startswith("~"):
                raise RuntimeError("Could not determine home directory.")
            return expanduser(path)

        monkeypatch.setattr(pathlib.Path, "expanduser", unknown)
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))


@pytest.mark.parametrize("kind", ["unknown", "impossible"])
def test_a_home_is_asked_for_only_where_images_go_to_disk(folder, monkeypatch, tmp_path, kind):
    no_home(monkeypatch, tmp_path, kind)
    assert load(path=str(folder), cache="auto").kept.startswith("in memory")
    monkeypatch.setattr(cache_module, "free_memory", lambda: 0)
    assert load(path=str(folder), cache="auto").kept.startswith("nowhere")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        load(path=str(folder), cache="disk")


def test_a_cache_that_cannot_be_written_is_the_users_error_or_a_warning(
    folder, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def full(*arguments):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(cache_module, "_write", full)
    message = (
        r"^data\.cache = 'disk': images cannot be kept in .*cache/lwgan \(Disk quota exceeded\)"
    )
    with pytest.raises(UserError, match=message):
        load(path=str(folder), cache="disk")
    assert not list((tmp_path / "cache" / "lwgan").glob("*part"))
    monkeypatch.setattr(cache_module, "free_memory", lambda: 0)
    assert load(path=str(folder), cache="auto").kept.startswith("nowhere")
    assert "Disk quota exceeded" in caplog.text


def failing(monkeypatch, times, number=errno.ESTALE):
    """``Path.open`` of images that fails so many times; a list that says how often it was asked."""
    asked, whole = [], pathlib.Path.open

    def opened(path, *arguments, **named):
        if path.suffix == ".png":
            asked.append(path)
            if len(asked) <= times:
                raise OSError(number, os.strerror(number))
        return whole(path, *arguments, **named)

    monkeypatch.setattr(pathlib.Path, "open", opened)
    return asked


def test_a_disk_that_fails_is_asked_again(folder, monkeypatch, caplog):
    """Where images are read at each use."""
    pauses = []
    monkeypatch.setattr(cache_module.ENDING, "wait", pauses.append)
    dataset = load(path=str(folder), cache="none")
    expected = dataset.at(1)
    asked = failing(monkeypatch, times=4)
    np.testing.assert_array_equal(dataset.at(1), expected)
    assert len(asked) == 5 and pauses == [1, 5, 25, 125]
    reason = f"[Errno {errno.ESTALE}] {os.strerror(errno.ESTALE)}"
    assert f"1.png cannot be read ({reason}); trying again" in caplog.text
    failing(monkeypatch, times=10)
    with pytest.raises(UserError, match=r"1\.png'?: cannot be read any more .*mend that"):
        dataset.at(1)


def test_who_is_to_end_waits_for_no_disk(folder, monkeypatch):
    monkeypatch.setattr(cache_module.ENDING, "is_set", lambda: True)
    dataset = load(path=str(folder), cache="none")
    failing(monkeypatch, times=10)
    with pytest.raises(UserError, match="cannot be read any more"):
        dataset.at(1)


def test_a_disk_that_fails_on_a_folder_is_one_line(folder, monkeypatch):
    (folder / "more").mkdir()
    whole = folder_module._entries

    class Failing:
        name = "more"

        def stat(self):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(
        folder_module,
        "_entries",
        lambda *arguments, **named: [
            Failing() if entry.name == "more" else entry for entry in whole(*arguments, **named)
        ],
    )
    with pytest.raises(UserError, match="cannot be read"):
        load(path=str(folder))


def test_an_image_that_is_no_more_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(cache_module.ENDING, "wait", None)
    dataset = load(path=str(folder), cache="none")
    (folder / "1.png").unlink()
    with pytest.raises(UserError, match=r"does not decode any more .*--accept_new_data"):
        dataset.at(1)


@pytest.mark.parametrize("name", ["1.png", "1"])
def test_a_disk_that_fails_at_the_start_is_one_line(folder, monkeypatch, tmp_path, name):
    """Or another set than is there would be noted; nothing of it is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / "1.png").rename(folder / name)
    whole = builtins.open

    def opened(path, *arguments, **named):
        if str(path) == str(folder / name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        with pytest.raises(UserError, match=rf"/{name}'?: cannot be read \(Input/output error\)"):
            load(path=str(folder))
    assert name in load(path=str(folder)).names
