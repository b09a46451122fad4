"""Compiled steps that all trainings of a process share, where their settings are the same.

To trace and to lower a step takes longer than to train a tiny network with it.
"""

import dataclasses
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax.stages
from ml_collections import ConfigDict

from lwgan.settings.files import to_json
from lwgan.training import compiling, session
from lwgan.training.devices import precision_of
from lwgan.training.recipes import Recipe, images_shape
from lwgan.training.state import Gan
from lwgan.training.step import Program, Update

_made: dict[Hashable, Any] = {}


def share_programs() -> None:
    """Lets trainings with the same settings use the same compiled programs from now on."""
    build_gan, make_update, lower = session.build_gan, session.make_update, compiling.lower

    def build_once(config: ConfigDict) -> Gan:
        data = config.data.image_size, config.data.mode, tuple(config.data.label_names)
        rooms = map(to_json, (config.model, config.optim, config.augment))
        return _once((*rooms, data, precision_of(config)), lambda: build_gan(config))

    def make_once(gan: Gan, recipe: Recipe) -> Update:
        # The rest is no part of the programs.
        own = dataclasses.replace(
            recipe, augment_prob=0.0, num_steps=recipe.num_steps if recipe.decay else 0
        )
        # The programs keep the networks.
        update = _once((id(gan), own), lambda: make_update(gan, recipe))
        return dataclasses.replace(update, augment_prob=recipe.augment_prob)

    def lower_once(program: Program, gan: Gan, config: ConfigDict) -> types.SimpleNamespace:
        def compiled() -> jax.stages.Compiled:
            key = program, str(images_shape(config))
            return _once(key, lambda: lower(program, gan, config).compile())

        return types.SimpleNamespace(compile=compiled)

    session.build_gan, session.make_update, compiling.lower = build_once, make_once, lower_once


def forget_programs() -> None:
    """Frees what is shared."""
    _made.clear()


def _once(key: Hashable, make: Callable[[], Any]) -> Any:
    if key not in _made:
        _made[key] = make()
    return _made[key]
