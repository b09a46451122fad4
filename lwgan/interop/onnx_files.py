"""A trained generator in ONNX, for ONNX Runtime and others; noise inputs come from outside."""

import logging
import pathlib

import jax
import numpy as np

from lwgan.errors import UserError
from lwgan.interop.artifacts import Generate
from lwgan.keys import Draw, image_keys
from lwgan.models.generator import draw_noise, noise_shapes, noise_sizes
from lwgan.sampling.sampler import Draws, Sampler
from lwgan.settings.shapes import Shape, named

# Its requirements name an older orbax-checkpoint than lwgan's, and are not needed.
INSTALL = "pip install onnx onnx-ir equinox onnxruntime, and then pip install --no-deps jax2onnx"


def require_converter() -> None:
    """Refuses to write ONNX where what does it is not installed.

    Raises:
      UserError: says what to install.
    """
    try:
        import jax2onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError("--format", "onnx", f"needs jax2onnx ({error})", INSTALL) from None


def write_onnx(path: pathlib.Path, sampler: Sampler) -> None:
    """The generator with its weights, for any batch.

    Latents float32 (B, latent_dim), ``noise_8`` … float32 (B, H, W, 1) for each size, standard
    normal or zero, and with K labels their weights ``labels`` float32 (B, K) -> ``images`` float32
    (B, H, W, C), not clipped.
    """
    from jax2onnx import to_onnx

    generator = sampler.generator
    sizes, shapes = noise_sizes(generator.image_size), noise_shapes(generator.image_size)

    def call(latents: jax.Array, *others: jax.Array) -> jax.Array:
        noise, labels = others[: len(shapes)], (*others[len(shapes) :], None)[0]
        variables = {"params": sampler.params, "batch_stats": sampler.stats}
        return generator.apply(variables, latents, noise, labels, train=False)

    inputs = {"latents": ("batch", generator.latent_dim)}
    inputs |= {
        f"noise_{size}": ("batch", *shape, 1) for size, shape in zip(sizes, shapes, strict=True)
    }
    inputs |= {"labels": ("batch", len(sampler.label_names))} if sampler.label_names else {}
    # It warns of shapes inside, which nobody needs.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    names = {"input_names": list(inputs), "output_names": ["images"]}
    model = to_onnx(call, list(inputs.values()), model_name="generator", **names)
    path.write_bytes(model.SerializeToString())


def read_onnx(path: pathlib.Path) -> Generate:
    """What ``write_onnx`` wrote, with the noise that lwgan draws for a seed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    *shape, _ = session.get_outputs()[0].shape[1:]

    def call(latents: np.ndarray, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
        draws = Draws.of_seed(seed, len(latents))
        keys = image_keys(draws.seeds, Draw.SAMPLE_NOISE, draws.numbers)
        noise = draw_noise(keys, named(Shape(*shape)))
        given = [latents, *map(np.asarray, noise), *([] if labels is None else [labels])]
        names = [own.name for own in session.get_inputs()]
        return session.run(None, dict(zip(names, given, strict=True)))[0]

    return call
