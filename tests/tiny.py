"""Small networks and settings for the tests: compiling is what costs."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from configs import default
from lwgan.data.batches import Labelled
from lwgan.models.placement import AXIS
from lwgan.runs import checkpoint
from lwgan.runs.directory import record_start, resolve_run
from lwgan.settings.shapes import shape_of
from lwgan.training import session
from lwgan.training.recipes import Recipe
from lwgan.training.state import Gan, TrainState, build_gan, init_state

RECIPE = Recipe(
    seed=0,
    batch_size=8,
    precision="float32",
    loss="hinge",
    gp_weight=10.0,
    gp_every=4,
    aux_weight=1.0,
    augment_types=("color", "cutout", "translation"),
    augment_prob=0.5,
    augment_target=0.0,
    augment_adapt_over=1000.0,
    augment_per_example=True,
    hflip=True,
    num_steps=1000,
    warmup=0,
    decay=0.0,
    ema_schedule="ramp",
    ema_half_life=1000.0,
    unroll=True,
)


def xla_flags(devices: int) -> str:
    """This process's, for one of so many virtual devices: of XLA's flags, the last one holds."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"


def config(**overrides: object) -> ConfigDict:
    """Tiny settings; overrides are full names with __ for the dot."""
    tiny = default.get_config()
    tiny.data.update(source="openmoji", image_size=32)
    tiny.model.update(
        latent_dim=8,
        fmap_max=8,
        attn_resolutions=(),
        attn_heads=2,
        attn_head_dim=4,
        side_channels=4,
        side_attention=False,
        recon_size=16,
    )
    tiny.train.update(batch_size=8, grad_accum=1, num_steps=4, log_every=2)
    tiny.checkpoint.every = 4
    tiny.sample.update(every=4, grid=(2, 3))
    tiny.track.aim = False
    for name, value in overrides.items():
        group, setting = name.split("__")
        tiny[group][setting] = value
    return tiny


def gan(learning_rate: float | None = None, **overrides: object) -> Gan:
    """Tiny networks; with a learning rate plain gradient descent, which keeps gradients visible."""
    built = build_gan(config(**overrides))
    if learning_rate is None:
        return built
    sgd = optax.sgd(learning_rate)
    return dataclasses.replace(built, g_tx=sgd, d_tx=sgd)


def init(networks: Gan, devices: int = 1) -> TrainState:
    """The first state on so many devices, laid out as the step returns it (else it
    compiles twice).
    """
    first = jax.device_get(jax.jit(lambda: init_state(networks, 0))())
    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    return jax.device_put(first, NamedSharding(mesh, PartitionSpec()))


def images(
    devices: int, accum: int = 1, *, whole: int = 8, size: int | str = 32, batches: int = 1
) -> np.ndarray:
    """Random images of one step, laid out as the step wants them, the same for any layout."""
    shape = (batches, accum, devices, whole // accum // devices, *shape_of(size), 3)
    flat = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return np.moveaxis(flat, 2, 0)


def labelled(images: np.ndarray, num_labels: int) -> Labelled:
    """The images of one step with labels, the same for any layout."""
    devices, batches, accum, m = images.shape[:4]
    flat = np.random.default_rng(1).integers(0, num_labels, (batches, accum, devices, m), np.int32)
    return Labelled(images, np.moveaxis(flat, 2, 0))


def random_state(networks: Gan, seed: int) -> TrainState:
    """A state of random weights, noise gains and statistics: as if trained, every input matters."""
    like = jax.eval_shape(lambda: init_state(networks, 0))
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda leaf: rng.uniform(-0.5, 0.5, leaf.shape).astype(leaf.dtype), like)
    positive = {
        name: jax.tree.map(np.abs, getattr(drawn, name)) for name in ("g_stats", "ema_stats")
    }
    return drawn.replace(**positive)


def save_run(workdir: pathlib.Path, steps: tuple[int, ...], settings: ConfigDict) -> None:
    """A run with other random weights at each of these steps."""
    planned = resolve_run(settings, workdir, "", accept_new_data=False)
    record_start(planned, settings, "", 0)
    networks = build_gan(settings)
    settings.checkpoint.keep_last = len(steps)
    with checkpoint.Saver(workdir, settings.checkpoint) as saver:
        for step in steps:
            saved = random_state(networks, step).replace(step=np.int32(step))
            saver.save(saved, {}, settings)


def before_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Has ``act`` called before the update of a step."""
    make_update = session.make_update

    def disturbed(networks: Gan, recipe: Recipe):
        advance = make_update(networks, recipe)

        def update(number: int, *arguments: object):
            if number == step:
                act()
            return advance(number, *arguments)

        return update

    monkeypatch.setattr(session, "make_update", disturbed)
