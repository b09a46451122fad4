"""lwgan computes what lightweight-gan does, from stored outputs (``tests/make_fixtures.py``)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from lwgan.interop.torch_weights import convert
from lwgan.models.build import CHANNELS, build_discriminator, build_generator
from lwgan.models.discriminator import take_quadrant
from lwgan.training.augment import AUGMENTATIONS
from lwgan.training.losses import LOSSES, reconstruction
from tests import stored

# Compiling takes most of the time, and less without LLVM's optimizations.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def _load(name):
    with np.load(stored.FOLDER / f"{name}.npz") as saved:
        return dict(saved)


@functools.cache
def _case(name):
    """What the package computed, and the networks with the weights that it had."""
    saved, tensors = _load(name), {}
    for line in str(saved["names"]).splitlines():
        tensor, _, sizes = line.partition(" ")
        shape = tuple(map(int, filter(None, sizes.split(","))))
        if not stored.is_buffer(tensor):
            tensors[tensor] = stored.weight(stored.seed_name(tensor), shape)
        else:
            tensors[tensor] = saved.get(f"buffer/{tensor}", np.array(0))
    imported = convert(tensors)
    # The running statistics after training, in lwgan's tree.
    changed = {f"G.{name[6:]}": x for name, x in saved.items() if name.startswith("after/")}
    after = convert(tensors | changed).g_stats
    return saved, imported, after, ConfigDict(imported.settings)


def _assert_close(ours, theirs, what):
    """To 1e-5 of the largest value."""
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale, err_msg=what)


NETWORKS = sorted(path.stem for path in stored.FOLDER.glob("*.npz") if path.stem[0].isdigit())


def test_there_are_fixtures_and_they_are_small():
    sizes = [path.stat().st_size for path in stored.FOLDER.iterdir()]
    assert len(NETWORKS) == 5 and sum(sizes) < 2e6


@pytest.mark.parametrize("name", NETWORKS)
def test_generator(name):
    saved, imported, after, config = _case(name)
    generator = build_generator(config).clone(axis_name=None)
    latents, noise = stored.generator_inputs(config.data.image_size, config.model.latent_dim)

    @jit
    def run(params, stats, latents, noise):
        variables = {"params": params, "batch_stats": stats}
        evaluated = generator.apply(variables, latents, noise, train=False)
        trained, changed = generator.apply(
            variables, latents, noise, train=True, mutable=["batch_stats"]
        )
        return evaluated, trained, changed["batch_stats"]

    with jax.default_matmul_precision("highest"):
        evaluated, trained, stats = run(imported.g_params, imported.g_stats, latents, noise)
    _assert_close(stored.thin(evaluated), saved["evaluated"], "evaluation")
    _assert_close(stored.thin(trained), saved["trained"], "training")
    jax.tree.map(lambda ours, theirs: _assert_close(ours, theirs, "statistics"), stats, after)


@pytest.mark.parametrize("name", NETWORKS)
def test_discriminator(name):
    saved, imported, _, config = _case(name)
    discriminator = build_discriminator(config)
    images = stored.images(config.data.image_size, CHANNELS[config.data.mode])
    quadrant = jnp.int32(stored.QUADRANT)
    with jax.default_matmul_precision("highest"):
        output = jit(discriminator.apply)({"params": imported.d_params}, images, quadrant)
    _assert_close(output.logits, saved["logits"], "logits")
    _assert_close(output.side_logits, saved["side_logits"], "side logits")
    _assert_close(stored.thin(output.painted), saved["painted0"], "image")
    loss = reconstruction(images, output.painted)
    if "painted1" in saved:
        _assert_close(stored.thin(output.painted_quadrant), saved["painted1"], "quadrant")
        loss += reconstruction(take_quadrant(images, quadrant), output.painted_quadrant)
    _assert_close(loss, saved["reconstruction"], "loss")


@pytest.mark.parametrize(("name", "count"), [("hinge", 25), ("dual_contrastive", 1)])
def test_losses(name, count):
    saved, loss = _load("losses"), LOSSES[name]
    real, fake = map(jnp.asarray, stored.logits(count))
    _assert_close(loss.discriminator(real, fake), saved[f"{name}/discriminator"], "discriminator")
    _assert_close(loss.generator(real, fake), saved[f"{name}/generator"], "generator")


# Those of lightweight-gan.
STORED_AUGMENTATIONS = ["color", "cutout", "translation", "offset", "offset_h", "offset_v"]


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", STORED_AUGMENTATIONS)
def test_augmentations(name, channels):
    images = stored.images(16, channels, examples=6)
    drawn = jax.tree.map(jnp.asarray, stored.augmentation_draws(name, 16))
    apply = AUGMENTATIONS[{"color": "color_alpha"}.get(name, name)].apply
    ours = jax.jit(jax.vmap(apply))(images, drawn)
    np.testing.assert_allclose(ours, _load("augmentations")[f"{name}/{channels}"], atol=1e-6)
