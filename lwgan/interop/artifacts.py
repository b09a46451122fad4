"""A trained generator in files for other programs: StableHLO and safetensors.

StableHLO needs no lwgan to be run.
"""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

import lwgan
from lwgan.models.build import build_generator
from lwgan.sampling.sampler import Draws, Sampler, generate
from lwgan.sampling.trained import Trained
from lwgan.settings.files import from_json, to_json

PLATFORMS = ("cpu", "cuda", "tpu")
# In parts of the images' greatest value.
TOLERANCE = 1e-5

# Of latents, the noise's seed, and labels if there are some.
Generate = Callable[..., np.ndarray]


def write_stablehlo(path: pathlib.Path, sampler: Sampler) -> None:
    """The sampler's call for ``jax.export.deserialize``, with its weights, noise drawn within.

    Latents float32 (B, latent_dim) for any B, seed uint32 () -> float32 (B, H, W, C), not clipped.
    With K labels a third argument are their weights, float32 (B, K).
    """

    def call(latents: jax.Array, seed: jax.Array, *labels: jax.Array) -> jax.Array:
        numbers = jnp.arange(latents.shape[0])
        noise = Draws(jnp.broadcast_to(seed, numbers.shape), numbers)
        weights = sampler.params, sampler.stats
        own = labels[0] if labels else None
        return generate(sampler.generator, *weights, latents, noise, labels=own)

    (batch,) = export.symbolic_shape("batch")
    latents = jax.ShapeDtypeStruct((batch, sampler.generator.latent_dim), np.float32)
    seed = jax.ShapeDtypeStruct((), np.uint32)
    arguments = [latents, seed]
    if sampler.label_names:
        arguments.append(jax.ShapeDtypeStruct((batch, len(sampler.label_names)), np.float32))
    exported = export.export(jax.jit(call), platforms=PLATFORMS)(*arguments)
    path.write_bytes(exported.serialize())


def read_stablehlo(path: pathlib.Path) -> Generate:
    """What ``write_stablehlo`` wrote."""
    exported = export.deserialize(bytearray(path.read_bytes()))

    def call(latents: np.ndarray, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
        given = () if labels is None else (labels,)
        return np.asarray(exported.call(latents, np.uint32(seed), *given))

    return call


def write_safetensors(path: pathlib.Path, trained: Trained) -> None:
    """Writes parameters and statistics by their names in Flax, with what builds the generator.

    The metadata are ``settings`` (the text of ``config.json``), ``step``, ``weights`` and ``lwgan``
    (the version).
    """
    from safetensors.numpy import save_file

    tensors = flatten_dict({"params": trained.params, "batch_stats": trained.stats}, sep="/")
    metadata = {
        "settings": to_json(trained.run.config),
        "step": str(trained.step),
        "weights": trained.weights,
        "lwgan": lwgan.__version__,
    }
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(contiguous, path, metadata)


def read_safetensors(path: pathlib.Path) -> Sampler:
    """What ``write_safetensors`` wrote: nothing else is needed."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        config = from_json(file.metadata()["settings"])
    variables = unflatten_dict(tensors, sep="/")
    generator = build_generator(config)
    weights = variables["params"], variables["batch_stats"]
    return Sampler(generator, *weights, label_names=config.data.label_names)


def difference(drawn_by: Generate, sampler: Sampler) -> float:
    """How far a generator's images are from the sampler's, in parts of their greatest value."""
    latents, seed = np.asarray(sampler.latents(seed=0, count=3)), 1
    labels = sampler.drawn_labels(Draws.of_seed(seed, 3))
    given = {} if labels is None else {"labels": labels}
    expected = sampler(latents, seed, **given)
    return float(np.abs(drawn_by(latents, seed, **given) - expected).max() / np.abs(expected).max())
