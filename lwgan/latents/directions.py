"""Directions of latents in which images change most, found without labels."""

import dataclasses
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lwgan.errors import UserError
from lwgan.models.build import Params
from lwgan.models.generator import Generator, noise_shapes
from lwgan.runs.files import replacing, write_text
from lwgan.sampling.sampler import Draws, Sampler

VECTORS, NAMES = "directions.npy", "names.txt"
# Latents that principal components are taken of.
_SAMPLES = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """Vectors of length 1, float32 (N, latent_dim), and what they are called."""

    vectors: np.ndarray
    names: tuple[str, ...]


def find_directions(sampler: Sampler, count: int) -> Directions:
    """The first ``count`` of each method, which their names begin with.

    Raises:
      UserError: a latent has fewer numbers.
    """
    dim = min(sampler.generator.latent_dim, _SAMPLES)
    if count > dim:
        raise UserError(
            "num_directions", count, f"must be at most {dim}", "a latent has so many numbers"
        )
    vectors = [factorised(sampler, count), principal(sampler, count)]
    names = [f"{method} {n}" for method in ("factor", "component") for n in range(1, count + 1)]
    return Directions(np.concatenate(vectors), tuple(names))


def factorised(sampler: Sampler, count: int) -> np.ndarray:
    """The directions that the first layer stretches most, unit vectors (count, latent_dim).

    Closed-form factorisation (SeFa, Shen and Zhou 2021, arXiv:2007.06600) of the layer with the
    batch normalisation behind it: together they are linear.
    """
    latents = np.eye(sampler.generator.latent_dim + 1, sampler.generator.latent_dim)
    # Of the mean of all labels.
    count_labels = len(sampler.label_names)
    labels = np.full((len(latents), count_labels), 1 / count_labels) if count_labels else None
    *rows, at_zero = _first_layer(sampler, latents, labels)[0]
    return _upright(np.linalg.svd(rows - at_zero, full_matrices=False)[0].T[:count])


def principal(sampler: Sampler, count: int) -> np.ndarray:
    """The directions along which the first features vary most, unit vectors (count, latent_dim).

    Of their principal components, the latents that regress on each (GANSpace, Härkönen et al. 2020,
    arXiv:2004.02546).
    """
    latents = np.asarray(sampler.latents(seed=0, count=_SAMPLES), np.float64)
    labels = sampler.drawn_labels(Draws.of_seed(0, _SAMPLES))
    features = _first_layer(sampler, latents, labels)[1]
    features -= features.mean(0)
    # The products of samples: eigenvalues ascend.
    places = np.linalg.eigh(features @ features.T)[1][:, : -count - 1 : -1]
    along = places.T @ latents
    return _upright(along / np.linalg.norm(along, axis=1, keepdims=True))


def write_directions(folder: pathlib.Path, found: Directions) -> None:
    """Writes the vectors, and the names, which the user may change, a line each."""
    write_text(folder / NAMES, "".join(f"{name}\n" for name in found.names))
    with replacing(folder / VECTORS) as part, part.open("wb") as file:
        np.save(file, found.vectors)


def read_directions(folder: pathlib.Path, latent_dim: int) -> Directions:
    """What ``write_directions`` wrote.

    Raises:
      UserError: a file is missing, damaged, or of other latents; or the names are not as many.
    """
    try:
        vectors = np.array(np.lib.format.open_memmap(folder / VECTORS, mode="r"))
        lines = (folder / NAMES).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError("directions", str(folder), f"cannot be read ({error})", _AGAIN) from None
    names = tuple(line for line in lines if line.strip())
    good = vectors.dtype == np.float32 and np.isfinite(vectors).all()
    if vectors.shape != (len(names), latent_dim) or not good:
        reason = f"{len(names)} names for {vectors.dtype} {vectors.shape}"
        raise UserError("directions", str(folder), reason, _AGAIN)
    return Directions(vectors, names)


_AGAIN = "mend it, or find them again with python -m lwgan.directions"


def _upright(vectors: np.ndarray) -> np.ndarray:
    """float32, with the sign that makes each one's greatest number positive."""
    greatest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], axis=1)
    return (vectors * np.sign(greatest)).astype(np.float32)


def _first_layer(
    sampler: Sampler, latents: np.ndarray, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Of the first layer, what is normalised, and the features, float64 (B, …) flattened."""
    weights = sampler.params, sampler.stats
    both = _apply_first_layer(sampler.generator, *weights, latents.astype(np.float32), labels)
    normalised, features = (np.asarray(each, np.float64).reshape(len(latents), -1) for each in both)
    return normalised, features


@functools.partial(jax.jit, static_argnums=0)
def _apply_first_layer(
    generator: Generator,
    params: Params,
    stats: Params,
    latents: jax.Array,
    labels: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    def is_first(module: nn.Module, _: str) -> bool:
        return module.path[:1] == ("initial",)

    # What follows is not kept, so that XLA leaves it out.
    noise = tuple(jnp.zeros((len(latents), *own, 1)) for own in noise_shapes(generator.image_size))
    with jax.default_matmul_precision("highest"):
        _, kept = generator.apply(
            {"params": params, "batch_stats": stats},
            latents,
            noise,
            labels,
            train=False,
            capture_intermediates=is_first,
            mutable=["intermediates"],
        )
    first = kept["intermediates"]["initial"]
    return first["norm"]["__call__"][0], first["__call__"][0]
