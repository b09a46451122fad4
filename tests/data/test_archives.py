"""Archives as downloads leave them: cut, damaged, packed by others, or bombs."""

import io
import os
import pathlib
import random
import tarfile
import warnings
import zipfile

import numpy as np
import pytest

from lwgan.data import archives, formats
from lwgan.data.cache import load_dataset
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from tests import drawn


def settings(path):
    return drawn.settings(path=str(path))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lwgan"


def packed(folder, path, prefix="all/"):
    """The files of a folder as an archive, whose kind the name says."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, f"{prefix}{file.relative_to(folder)}")
    else:
        kind = {".tar": "", ".tgz": ":gz", ".xz": ":xz", ".bz2": ":bz2"}[path.suffix]
        with tarfile.open(path, f"w{kind}") as archive:
            for file in files:
                archive.add(file, f"{prefix}{file.relative_to(folder)}")
    return path


KINDS = ["p.zip", "p.tar", "p.tgz", "p.tar.xz", "p.tar.bz2"]


def test_the_same_images_are_the_same_set_wherever_they_lie(folder, tmp_path):
    expected = open_source(settings(folder))
    for prefix in ("", "./", "deep/er/"):
        for name in KINDS:
            source = open_source(settings(packed(folder, tmp_path / name, prefix)))
            assert source.fingerprint == expected.fingerprint, (name, prefix)
            np.testing.assert_array_equal(source.digests, expected.digests)
            assert not source.skipped
    (folder / "0.png").rename(folder / "z.png")
    assert open_source(settings(folder)).fingerprint == expected.fingerprint


def test_an_archive_may_have_any_name(folder, tmp_path):
    for name in KINDS:
        path = packed(folder, tmp_path / name).rename(tmp_path / "a.jpg")
        assert len(open_source(settings(path)).names) == 5


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_the_users_error(folder, tmp_path, name, share):
    path = packed(folder, tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"(is damaged or incomplete|or damaged;).*") as caught:
        open_source(settings(path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.part"))


def test_a_tar_with_a_damaged_header_in_the_middle_loses_nothing_silently(folder, tmp_path):
    path = packed(folder, tmp_path / "p.tar")
    with tarfile.open(path) as archive:
        third = archive.getmembers()[2].offset
    content = bytearray(path.read_bytes())
    content[third + 150] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"no more files can be found from byte {third:,} of"):
        open_source(settings(path))


def test_a_zip_without_a_directory_is_called_a_damaged_zip(folder, tmp_path):
    path = packed(folder, tmp_path / "p.zip")
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"PK\0\0", 1))
    with pytest.raises(UserError, match="is damaged or incomplete"):
        open_source(settings(path))


@pytest.mark.parametrize(("start", "kind"), [(b"7z\xbc\xaf\x27", "7z"), (b"Rar!\x1a", "rar")])
def test_other_archives_are_named(tmp_path, start, kind):
    (tmp_path / "a").write_bytes(start + bytes(600))
    with pytest.raises(UserError, match=f"is packed with {kind}; unpack it"):
        open_source(settings(tmp_path / "a"))


def test_links_in_a_tar_are_followed_within_it(folder, tmp_path):
    path = tmp_path / "p.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder / "0.png", "a/0.png")
        for name, kind, target in [
            ("b/soft.png", tarfile.SYMTYPE, "../a/0.png"),
            ("b/twice.png", tarfile.SYMTYPE, "soft.png"),
            ("b/hard.png", tarfile.LNKTYPE, "a/0.png"),
            ("c", tarfile.SYMTYPE, "a"),
            ("b/out.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("b/round.png", tarfile.SYMTYPE, "round.png"),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    config = settings(path)
    source = open_source(config)
    good = ["a/0.png", "b/hard.png", "b/soft.png", "b/twice.png", "c/0.png"]
    assert sorted(source.names) == sorted([*good, "b/out.png", "b/round.png"])
    dataset = load_dataset(source, config)
    assert list(dataset.names) == sorted(good)
    for number in range(1, 5):
        np.testing.assert_array_equal(dataset.at(number), dataset.at(0))
    assert "leads to no file of the archive" in dataset.errors["b/out.png"]


def test_a_compressed_tar_is_unpacked_once(folder, tmp_path, cache, monkeypatch):
    path = packed(folder, tmp_path / "p.tgz")
    first = open_source(settings(path))
    assert len(list(cache.glob("unpacked/*.tar"))) == 1
    monkeypatch.setattr(archives, "_unpack", None)
    again = open_source(settings(path))
    assert (again.names, again.fingerprint) == (first.names, first.fingerprint)
    np.testing.assert_array_equal(np.asarray(again.read(0)), np.asarray(first.read(0)))


def test_without_keeping_nothing_is_left(folder, tmp_path, cache):
    for path in (folder, *(packed(folder, tmp_path / name) for name in KINDS)):
        config = settings(path)
        load_dataset(open_source(config, keep=False), config, keep=False)
    assert not cache.exists()


def test_no_room_to_unpack_is_not_the_archives_fault(folder, tmp_path, monkeypatch):
    path = packed(folder, tmp_path / "p.tgz")
    usage = archives.shutil.disk_usage("/")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage._replace(free=9000))
    with pytest.raises(UserError, match=r"no room in .*unpacked to unpack it.*XDG_CACHE_HOME"):
        open_source(settings(path))
    with pytest.raises(UserError, match=r"no room in .* to unpack it.*TMPDIR"):
        open_source(settings(path), keep=False)
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.parametrize("name", ["p.zip", "p.tar"])
def test_a_member_that_is_too_large_is_left_out(folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "MOST_BYTES", 100_000)
    (folder / "bomb.png").write_bytes(bytes(100_001))
    config = settings(packed(folder, tmp_path / name))
    dataset = load_dataset(open_source(config), config)
    assert len(dataset.names) == 5
    assert "too many for an image" in dataset.errors["all/bomb.png"]
    assert formats.MOST_BYTES == 2**30


def test_a_zip_with_a_password_is_said(folder, tmp_path):
    path = packed(folder, tmp_path / "p.zip")
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)
    config = settings(path)
    with pytest.raises(UserError, match=r"5 of 5 images do not decode.*(password|encrypted)"):
        load_dataset(open_source(config), config)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_is_left_out_by_name_or_said_in_one_line(folder, tmp_path, seed):
    """Fifty damages of archives and of images in folders for each seed: 200 in all."""
    rng = random.Random(seed)
    drawn.noise(9).save(folder / "9.jpg")
    drawn.noise(9, (40, 33), "RGBA").save(folder / "9.webp")
    drawn.noise(9).save(folder / "9.tif")
    drawn.noise(9).save(folder / "9.gif")
    wholes = {name: packed(folder, tmp_path / name).read_bytes() for name in KINDS}
    for number in range(50):
        name = rng.choice([*KINDS, "folder"])
        if name == "folder":
            place = tmp_path / f"f{number}"
            place.mkdir()
            for file in folder.iterdir():
                content = file.read_bytes()
                damaged = damage(content, rng) if rng.random() < 0.3 else content
                (place / file.name).write_bytes(damaged)
        else:
            place = tmp_path / f"{number}{name}"
            place.write_bytes(damage(wholes[name], rng))
        config = settings(place)
        try:
            # Pillow's own remarks about damaged files.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source = open_source(config)
                dataset = load_dataset(source, config)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        assert len(dataset.names) + len(dataset.errors) + sum(dataset.skipped.values()) == 9


def damage(content, rng):
    """Cut, overwritten, or with flipped bits."""
    content = bytearray(content)
    kind = rng.choice(["cut", "zeros", "flip", "noise"])
    at = rng.randrange(len(content))
    if kind == "cut":
        del content[at:]
    elif kind == "flip":
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        size = min(rng.choice([1, 16, 700]), len(content) - at)
        content[at : at + size] = bytes(size) if kind == "zeros" else rng.randbytes(size)
    return bytes(content)


def earlier_fingerprint(names, content):
    """As lwgan 0.1 computed it for folders: names, sizes, first and last bytes."""
    import hashlib

    digest = hashlib.sha256()
    for name in names:
        here = content(name)
        digest.update(os.fsencode(name) + b"\0" + len(here).to_bytes(8, "big"))
        digest.update(here[:4096] + here[max(0, len(here) - 4096) :])
    return digest.hexdigest()


def test_old_runs_are_accepted_with_their_old_fingerprint(folder, tmp_path):
    """And with the images that were found then."""
    names = [f"{number}.png" for number in range(5)]
    old = earlier_fingerprint(names, lambda name: (folder / name).read_bytes())
    drawn.noise(7).save(folder / "new.jfif", "jpeg")
    source = open_source(settings(folder), known=old)
    assert (list(source.names), source.fingerprint) == (names, old)
    np.testing.assert_array_equal(np.asarray(source.read(3)), np.asarray(drawn.noise(3)))
    new = open_source(settings(folder))
    assert len(new.names) == 6 and new.fingerprint.endswith("-content")
    tar = packed(folder, tmp_path / "p.tgz")
    old = earlier_fingerprint(
        [f"all/{name}" for name in names],
        lambda name: (folder / pathlib.PurePath(name).name).read_bytes(),
    )
    assert open_source(settings(tar), known=old).fingerprint == old
    drawn.noise(8).save(folder / "0.png")
    assert open_source(settings(folder), known=old).fingerprint.endswith("-content")


def test_a_file_in_an_archive_goes_by_its_content(folder, tmp_path):
    (folder / "0.png").rename(folder / "no suffix")
    (folder / "notes.txt").write_text("nothing")
    source = open_source(settings(packed(folder, tmp_path / "p.zip")))
    assert "all/no suffix" in source.names and source.skipped == {".txt": 1}
    buffer = io.BytesIO()
    drawn.noise(0).save(buffer, "png")
    assert np.asarray(source.read(source.names.index("all/no suffix"))).shape == (33, 40, 3)


def test_a_damaged_copy_of_an_archive_is_made_anew(folder, tmp_path, cache):
    path = packed(folder, tmp_path / "p.tgz")
    first = open_source(settings(path))
    (copy,) = cache.glob("unpacked/*.tar")
    content = copy.read_bytes()
    copy.write_bytes(content[:20_000])
    again = open_source(settings(path))
    assert again.fingerprint == first.fingerprint and copy.read_bytes() == content


def test_a_link_to_a_folder_is_no_part_of_an_old_fingerprint(folder, tmp_path):
    path = tmp_path / "p.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder / "0.png", "a/0.png")
        member = tarfile.TarInfo("c")
        member.type, member.linkname = tarfile.SYMTYPE, "a"
        archive.addfile(member)
    old = earlier_fingerprint(["a/0.png"], lambda name: (folder / "0.png").read_bytes())
    assert open_source(settings(path), known=old).names == ["a/0.png"]
    assert len(open_source(settings(path)).names) == 2
