"""Reads tensors of PyTorch's files and of safetensors, and runs nothing that they hold."""

import collections
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import safetensors.numpy

from lwgan.errors import UserError

Tensors = Mapping[str, np.ndarray]

# Type names of PyTorch's storages, and of safetensors, little-endian.
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}

# The first pickle of a file from before PyTorch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_tensors(path: pathlib.Path) -> Tensors:
    """The tensors of a file by name: PyTorch's state dict (also from before 1.6) or safetensors.

    Raises:
      UserError: it cannot be read, or holds anything but tensors in plain containers.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            if zipped:
                return _named(_read_zip(file))
            if start[8:] == b"{":
                return _named(safetensors.numpy.load(file.read()))
            return _named(_read_legacy(file))
    except OSError as error:
        reason = error.strerror or str(error)
    # A damaged file fails in every way.
    except Exception as error:
        reason = (
            f"is no file of tensors, or holds more than tensors ({error or type(error).__name__})"
        )
    raise UserError(
        "weights", str(path), reason, "name a PyTorch state dict (.pth) or a .safetensors file"
    )


class _Storage(NamedTuple):
    key: str
    dtype: str
    # Of elements.
    count: int


class _Tensor(NamedTuple):
    """A view of a storage; the numbers come later in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    # In elements, as the offset.
    strides: tuple[int, ...]

    def of(self, values: bytes) -> np.ndarray:
        flat = np.frombuffer(values, self.storage.dtype, self.storage.count)
        whole = (self.offset, *self.shape, *self.strides)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(whole) < 0 or (math.prod(self.shape) and last >= len(flat)):
            raise ValueError("a tensor reaches beyond its numbers")
        strides = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides).copy()


class _Unpickler(pickle.Unpickler):
    """Knows tensors, storages and ordered dicts; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        def rebuild(storage, offset, shape, strides, *unused):
            return _Tensor(storage, offset, tuple(shape), tuple(strides))

        def rebuild_parameter(tensor, *unused):
            return tensor

        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        } | {("torch", storage): storage for storage in _STORAGES}
        if (module, name) not in known:
            raise ValueError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, count = pid[:5]
        if kind != "storage":
            raise ValueError(f"it asks for a {kind}")
        return _Storage(key, _STORAGES[storage], count)


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = index.removesuffix("data.pkl")
        if folder + "byteorder" in archive.namelist():
            if archive.read(folder + "byteorder") != b"little":
                raise ValueError("its numbers are big-endian")
        content = _Unpickler(io.BytesIO(archive.read(index))).load()
        return _fill(content, lambda storage: archive.read(f"{folder}data/{storage.key}"))


def _read_legacy(file: IO[bytes]) -> dict[str, np.ndarray]:
    """A magic number, a version, sizes of types, tensors, keys of storages; then the storages."""
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("it begins otherwise")
    for _ in range(2):
        _Unpickler(file).load()
    content = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    storages = {tensor.storage.key: tensor.storage for tensor in _tensors(content).values()}
    values = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if count != storages[key].count:
            raise ValueError("a storage has another size than its tensors say")
        values[key] = file.read(count * np.dtype(storages[key].dtype).itemsize)
    return _fill(content, lambda storage: values[storage.key])


def _tensors(content: Any) -> dict[str, _Tensor]:
    """The entries of a state dict that are tensors."""
    if not isinstance(content, dict):
        raise ValueError("it holds no state dict")
    return {name: value for name, value in content.items() if isinstance(value, _Tensor)}


def _fill(content: Any, values: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    return {name: tensor.of(values(tensor.storage)) for name, tensor in _tensors(content).items()}


def _named(tensors: dict[str, np.ndarray]) -> Tensors:
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise ValueError("it has no tensors with names")
    return tensors
