"""lightweight-gan 1.2.1 beside lwgan: the same weights in both, and how to compare what they
compute.
"""

import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import pytest

from lwgan.interop.torch_weights import MODES, Imported, convert
from lwgan.models.discriminator import Discriminator
from lwgan.models.generator import Generator

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")


def _import_package() -> types.ModuleType:
    """The package's module. It insists on CUDA and on torchvision; its networks need neither."""
    stub = types.ModuleType("torchvision")
    stub.transforms = types.ModuleType("torchvision.transforms")
    stubs = {"torchvision": stub, "torchvision.transforms": stub.transforms}
    stubs = {name: module for name, module in stubs.items() if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        with mock.patch("torch.cuda.is_available", lambda: True):
            return pytest.importorskip("lightweight_gan.lightweight_gan")
    finally:
        for name in stubs:
            del sys.modules[name]


package = _import_package()


# Compiling takes most of the tests' time, and less without LLVM's optimizations.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Pair(NamedTuple):
    """The package's networks, and lwgan's with the same weights."""

    gan: Any
    imported: Imported
    generator: Generator
    discriminator: Discriminator


@functools.cache
def build(
    image_size: int,
    mode: str = "rgb",
    attn: tuple[int, ...] = (),
    fca: bool = False,
    antialias: bool = False,
    output_size: int = 1,
    fmap_max: int = 16,
    latent_dim: int = 16,
) -> Pair:
    """Narrow networks of both packages, with random values also where training starts
    from 0 or 1.
    """
    torch.manual_seed(image_size)
    blur = package.Blur if antialias else torch.nn.Identity
    cuda = mock.patch.object(torch.nn.Module, "cuda", lambda module, *args: module)
    with mock.patch.object(package, "Blur", blur), cuda:
        gan = package.LightweightGAN(
            image_size=image_size,
            latent_dim=latent_dim,
            fmap_max=fmap_max,
            transparent=mode == "rgba",
            greyscale=mode == "grey",
            disc_output_size=output_size,
            attn_res_layers=list(attn),
            freq_chan_attn=fca,
        )
    for network in (gan.G, gan.GE, gan.D):
        _shake(network)
    for network in (gan.G, gan.GE):
        _enlarge_values(network)
    imported = convert(numpy_tensors(gan))
    return Pair(gan, imported, *lwgan_networks(imported.settings))


def _shake(network: Any) -> None:
    """Moves every weight and running statistic away from where it starts."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.5)
            elif name.endswith("weight") and tensor.ndim == 4:
                tensor *= 0.8 + 0.2 * torch.randn_like(tensor)
            elif name.endswith(("weight", "bias", ".g", ".b")):
                tensor += 0.2 * torch.randn_like(tensor)


def _enlarge_values(network: Any) -> None:
    """Of linear attention: averages over all pixels, they would lie where GELU is
    nearly straight.
    """
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("to_lin_kv.net.1.weight"):
                tensor[len(tensor) // 2 :] *= 20


def numpy_tensors(module: Any) -> dict[str, np.ndarray]:
    """The tensors of a module by name, as copies."""
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def lwgan_networks(settings: Mapping[str, Mapping[str, Any]]) -> tuple[Generator, Discriminator]:
    """lwgan's networks for imported settings."""
    model = dict(settings["model"])
    channels = {mode: count for count, mode in MODES.items()}[settings["data"]["mode"]]
    generator = Generator(
        image_size=settings["data"]["image_size"],
        channels=channels,
        **{name: model[name] for name in GENERATOR_SETTINGS},
    )
    discriminator = Discriminator(
        output_size=model["disc_output_size"],
        **{name: model[name] for name in DISCRIMINATOR_SETTINGS},
    )
    return generator, discriminator


_BOTH = ("fmap_max", "fmap_inverse_coef", "attn_resolutions", "attn_heads", "attn_head_dim")
_BOTH += ("antialias", "icnr_init")
GENERATOR_SETTINGS = (*_BOTH, "latent_dim", "min_channels", "freq_chan_attn", "output")
DISCRIMINATOR_SETTINGS = (*_BOTH, "side_channels", "side_attention", "recon_size")


def gradients(gan: Any) -> Imported:
    """The gradients that torch left at the parameters, as lwgan's trees (the statistics as they
    are).
    """
    tensors = numpy_tensors(gan)
    for name, parameter in gan.named_parameters():
        if parameter.grad is None:
            tensors[name] = np.zeros_like(tensors[name])
        else:
            tensors[name] = parameter.grad.numpy().copy()
    return convert(tensors)


def nhwc(tensor: Any) -> np.ndarray:
    """torch's (B, C, H, W) as (B, H, W, C)."""
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def nchw(array: np.ndarray) -> Any:
    """(B, H, W, C) as torch's (B, C, H, W)."""
    return torch.from_numpy(np.array(np.asarray(array).transpose(0, 3, 1, 2), order="C"))


def leaves(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a tree in float64 with their paths, such as ``block_8/conv/kernel``."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf, np.float64)


def assert_same(ours: Any, theirs: Any, what: str, tolerance: float = 1e-5) -> None:
    """Equal up to ``tolerance`` times the largest absolute value of each array of the trees."""
    ours, theirs = _matched(ours, theirs)
    scales = {path: np.abs(array).max() for path, array in theirs.items()}
    errors = {path: np.abs(array - theirs[path]).max() for path, array in ours.items()}
    _assert_small(errors, scales, what, tolerance)


def assert_same_gradients(ours: Any, theirs: Any, what: str, tolerance: float = 1e-4) -> None:
    """Equal up to ``tolerance`` times the norm of each array of the trees.

    A vector (a bias, a scale, a noise gain) is measured by the norm of its whole layer: its
    gradient is a sum over all pixels which may leave little besides rounding. Where lwgan stops a
    gradient on purpose (``STOPPED``), it is exactly zero.
    """
    ours, theirs = _matched(ours, theirs)
    for path in [path for path in ours if path.endswith(STOPPED)]:
        assert not ours.pop(path).any(), f"{what}: {path} is not stopped"
        del theirs[path]

    def scale(path: str) -> float:
        if theirs[path].ndim > 1:
            return np.linalg.norm(theirs[path])
        layer = path.rpartition("/")[0] + "/"
        return np.sqrt(sum(np.sum(theirs[p] ** 2) for p in theirs if p.startswith(layer)))

    errors = {path: np.linalg.norm(array - theirs[path]) for path, array in ours.items()}
    _assert_small(errors, {path: scale(path) for path in theirs}, what, tolerance)


# What a later batch normalisation or softmax cancels.
STOPPED = ("initial/bias", "pixel_logits/bias", *(f"block_{2**r}/conv/bias" for r in range(3, 11)))


def _matched(ours: Any, theirs: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    ours, theirs = dict(leaves(ours)), dict(leaves(theirs))
    assert {path: x.shape for path, x in ours.items()} == {
        path: x.shape for path, x in theirs.items()
    }
    return ours, theirs


def _assert_small(
    errors: dict[str, float], scales: dict[str, float], what: str, tolerance: float
) -> None:
    wrong = [
        f"{path}: {error:.1e} of {scales[path]:.1e}"
        for path, error in errors.items()
        if not error <= tolerance * scales[path]
    ]
    assert not wrong, f"{what}: " + "; ".join(wrong)
