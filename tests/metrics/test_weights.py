"""PyTorch's files and safetensors, read without PyTorch; and what is refused."""

import io
import json
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from lwgan.errors import UserError
from lwgan.metrics.networks.features import FEATURES
from lwgan.metrics.networks.weights import read_tensors

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"


def plain(value):
    """Opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(key, count, offset, shape, strides, kind=b"FloatStorage"):
    """Opcodes that push a tensor as torch.save writes it; memo-free."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu")
    storage += plain(count) + b"tQ"
    rest = plain(offset) + ints(shape) + ints(strides) + b"\x89" + ORDERED + b")R"
    return REBUILD + b"(" + storage + rest + b"tR"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def ints(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def state_dict(entries):
    """A pickle of an ordered dict of names and opcodes, with the metadata that PyTorch adds."""
    items = b"".join(text(name) + opcodes for name, opcodes in entries.items())
    metadata = b"}" + text("_metadata") + b"}sb"
    return b"\x80\x02" + ORDERED + b")R(" + items + b"u" + metadata + b"."


def write_zip(path, entries, storages, byteorder=b"little"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("any/data.pkl", state_dict(entries))
        archive.writestr("any/byteorder", byteorder)
        for key, array in storages.items():
            archive.writestr(f"any/data/{key}", array.tobytes())
    return path


def write_legacy(path, entries, storages):
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    parts += [state_dict(entries), pickle.dumps(list(storages), 2)]
    for array in storages.values():
        parts += [struct.pack("<q", array.size), array.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


NUMBERS = np.arange(24, dtype=np.float32)
COUNTS = np.array([7], np.int64)
ENTRIES = {
    "whole": tensor("0", 24, 0, (2, 3, 4), (12, 4, 1)),
    "transposed": tensor("0", 24, 0, (4, 3), (1, 4)),
    "part": tensor("0", 24, 20, (4,), (1,)),
    "scalar": tensor("1", 1, 0, (), (), b"LongStorage"),
    "version": plain(3),
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_tensors_of_both_formats(tmp_path, write):
    found = read_tensors(write(tmp_path / "file.pth", ENTRIES, {"0": NUMBERS, "1": COUNTS}))
    assert list(found) == ["whole", "transposed", "part", "scalar"]
    np.testing.assert_array_equal(found["whole"], NUMBERS.reshape(2, 3, 4))
    np.testing.assert_array_equal(found["transposed"], NUMBERS[:12].reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], NUMBERS[20:])
    assert found["scalar"] == 7 and found["scalar"].shape == ()
    assert [array.dtype.name for array in found.values()] == ["float32"] * 3 + ["int64"]


def test_safetensors(tmp_path):
    path = tmp_path / "file.safetensors"
    half = np.array([1.5, -2], np.float16)
    header = {
        "__metadata__": {"from": "somewhere"},
        "a": {"dtype": "F32", "shape": [4, 6], "data_offsets": [0, 96]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [96, 100]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + NUMBERS.tobytes() + half.tobytes())
    found = read_tensors(path)
    np.testing.assert_array_equal(found["a"], NUMBERS.reshape(4, 6))
    np.testing.assert_array_equal(found["b"], half)


class Harmful:
    """Its pickle writes a file when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return pathlib.Path.write_text, (self.target, "harm")


def test_nothing_that_a_file_asks_for_is_run(tmp_path):
    target = tmp_path / "harm"
    harmful = pickle.dumps(Harmful(target), 4)
    pickle.loads(harmful)
    # It would work.
    target.unlink()
    bare, zipped, second = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    bare.write_bytes(harmful)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("x/data.pkl", harmful)
    second.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + harmful)
    for path in (bare, zipped, second):
        with pytest.raises(UserError, match=r"asks for pathlib") as error:
            read_tensors(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not target.exists()


@pytest.mark.parametrize(
    "asked",
    [b"cbuiltins\neval\n", b"cnumpy\nload\n", b"ctorch\nload\n", b"ctorch._utils\n_rebuild\n"],
)
def test_only_tensors_and_containers_are_known(tmp_path, asked):
    path = write_zip(tmp_path / "file.pth", {"a": asked}, {})
    with pytest.raises(UserError, match="asks for"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (25,), (1,)), (4, (21,), (1,)), (0, (2, 2), (23, 1)), (-1, (2,), (1,)), (3, (3,), (-1,))],
)
def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path, offset, shape, strides):
    entries = {"a": tensor("0", 24, offset, shape, strides)}
    with pytest.raises(UserError, match="reaches beyond"):
        read_tensors(write_zip(tmp_path / "file.pth", entries, {"0": NUMBERS}))


def test_damaged_files_are_one_line(tmp_path):
    whole = write_legacy(tmp_path / "whole.pth", ENTRIES, {"0": NUMBERS, "1": COUNTS}).read_bytes()
    buffer = io.BytesIO()
    write_zip(buffer, ENTRIES, {"0": NUMBERS, "1": COUNTS})
    zipped = buffer.getvalue()
    contents = [b"", b"hello", b"\x80\x02.", whole[:40], whole[:-4], zipped[:-30], zipped[:200]]
    contents += [struct.pack("<Q", 10) + b"{not json!"]
    for content in contents:
        path = tmp_path / "damaged"
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read_tensors(path)
        assert "\n" not in str(error.value)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match=r"No such file|Is a directory"):
            read_tensors(path)


def test_big_endian_and_empty_files_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.pth", ENTRIES, {"0": NUMBERS, "1": COUNTS}, b"big")
    with pytest.raises(UserError, match="big-endian"):
        read_tensors(path)
    with pytest.raises(UserError, match="no tensors"):
        read_tensors(write_zip(tmp_path / "b.pth", {"version": plain(1)}, {}))


def test_the_shipped_weights():
    found = read_tensors(FEATURES["efficientnet_lite0"]().weights())
    assert len(found) == 296
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)
    parameters = [name for name in found if not name.split(".")[-1].startswith(("running", "num"))]
    assert sum(found[name].size for name in parameters) == 4_652_008
