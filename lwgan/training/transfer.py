"""Beginning a run from the weights of another."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.models.build import CHANNELS, Params, build_discriminator, discriminator_shapes
from lwgan.models.discriminator import blocks
from lwgan.models.layers import OF_LABEL
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import Run, read_run
from lwgan.runs.files import local_path
from lwgan.settings.defaults import flatten
from lwgan.training.losses import LOSSES
from lwgan.training.state import TrainState, build_gan, init_state

FLAG = "--init_from"
# What the images and the latents are.
_MUST_AGREE = ("data.mode", "model.latent_dim")
# Settings that change what layers mean without always changing their shapes, by the modules'
# names without their sizes: for eight channels, 2 heads of 4 and 4 heads of 2 look the same.
_MEANING = {
    "attention": ("model.attn_heads", "model.attn_head_dim"),
    "side_attention": ("model.attn_heads", "model.attn_head_dim"),
    "excitation": ("model.freq_chan_attn",),
}
# The discriminator's last layers: each gives logits of its own.
_LOGITS = ("logits", "side_logits", "labels", "side_labels")


class Origin(NamedTuple):
    """The weights that a run begins from: of the EMA generator and the discriminator, in NumPy."""

    workdir: pathlib.Path
    step: int
    generator: Params
    stats: Params
    discriminator: Params
    # Kinds of modules, as in ``_MEANING``, whose layers mean something else there; and why.
    unlike: Mapping[str, str]
    # Whether its loss scores real images high where this run's scores them low, or the reverse.
    opposite: bool


def read_origin(workdir: pathlib.Path, step: int | None, config: ConfigDict) -> Origin:
    """The weights of a run at a step, the newest by default, for a run of these settings.

    Raises:
      UserError: there is no such run or checkpoint, its images or latents are of another kind, or
        blocks are to be frozen that it does not have.
    """
    source = read_run(workdir, FLAG)
    theirs, own = flatten(source.config), flatten(config)
    for name in _MUST_AGREE:
        if theirs[name] != own[name]:
            raise UserError(
                name,
                own[name],
                f"the run of {FLAG}={workdir} has {theirs[name]!r}",
                "use that, or another run",
            )
    step = manifest.resolve_step(workdir, step, FLAG)
    like = jax.eval_shape(lambda: init_state(build_gan(source.config), 0))
    saved = checkpoint.restore(workdir, step, like)
    names = theirs["data.label_names"], own["data.label_names"]
    origin = Origin(
        workdir,
        step,
        relabelled(saved.ema_params, *names),
        saved.ema_stats,
        relabelled(saved.d_params, *names),
        _unlike(theirs, own),
        LOSSES[theirs["loss.kind"]].real_sign != LOSSES[own["loss.kind"]].real_sign,
    )
    _require_blocks(origin, config)
    return origin


def _unlike(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """Why layers are not taken, by kind of module, from the settings of both runs."""
    reasons = {
        kind: ", ".join(
            f"{name} is {theirs[name]} there and {own[name]} here"
            for name in names
            if theirs[name] != own[name]
        )
        for kind, names in _MEANING.items()
    }
    return {kind: reason for kind, reason in reasons.items() if reason}


def _require_blocks(origin: Origin, config: ConfigDict) -> None:
    """Refuses to freeze a block of which a layer is not taken: it would stay random.

    Raises:
      UserError: names the first such layer.
    """
    if not config.optim.freeze_d:
        return
    size, channels = config.data.image_size, CHANNELS[config.data.mode]
    shapes = discriminator_shapes(build_discriminator(config), size, channels)
    mine, theirs = _flat(shapes), _flat(origin.discriminator)
    left = sorted(map(_layer, mine.keys() - _match(mine, theirs, origin.unlike).taken))
    for number, modules in enumerate(blocks(size)[: config.optim.freeze_d]):
        for layer in left:
            if _module(layer) in modules:
                raise UserError(
                    "optim.freeze_d",
                    config.optim.freeze_d,
                    f"{layer} would stay random, for the run of {FLAG}={origin.workdir} has none "
                    "that fits",
                    f"use {number}, or another run",
                )


def find_origin(
    this_run: Run, init_from: str | None, config: ConfigDict, *, new: bool, begun: bool
) -> Origin | None:
    """What a run without a checkpoint begins with: ``--init_from``, or what it has noted.

    A new run notes its origin, for ``run.json``. ``begun``: it has a checkpoint, so there is
    nothing to read.

    Raises:
      UserError: the run did not begin from there, it begins afresh and is to freeze what is
        random, or see ``read_origin``.
    """
    here, noted = this_run.workdir.resolve(), this_run.info.init_from
    asked = local_path(FLAG, init_from) if init_from else None
    noted_path = (here / noted["run"]).resolve() if noted else None
    if new and asked:
        if asked.resolve() == here:
            raise UserError(FLAG, init_from, "is the run that is to start", "name another")
        origin = read_origin(asked, None, config)
        # Relative, for both may move together.
        path = os.path.relpath(asked.resolve(), here)
        this_run.info.init_from = {"run": path, "step": origin.step}
        return origin
    if asked and asked.resolve() != noted_path:
        raise UserError(
            FLAG,
            init_from,
            f"the run in {this_run.workdir} began {f'from {noted_path}' if noted else 'afresh'}",
            "leave it out, name another --workdir, or start over with --fresh",
        )
    if begun:
        return None
    if noted:
        return read_origin(noted_path, noted["step"], config)
    if config.optim.freeze_d:
        raise UserError(
            "optim.freeze_d",
            config.optim.freeze_d,
            "the blocks of a new run are random, and frozen they would stay so",
            f"use 0, or begin from another run with {FLAG}",
        )
    return None


def start_from(fresh: TrainState, origin: Origin) -> TrainState:
    """The first state of a run: ``fresh``, with the weights of ``origin`` wherever they fit.

    Both generators get its EMA generator's; the optimizers stay fresh. Where its loss scores real
    images the other way round, logits change their sign. Logs what was taken.
    """
    theirs = _negate_logits(origin.discriminator) if origin.opposite else origin.discriminator
    g_params, generator = merge_layers(fresh.g_params, origin.generator, origin.unlike)
    g_stats, _ = merge_layers(fresh.g_stats, origin.stats, origin.unlike)
    d_params, discriminator = merge_layers(fresh.d_params, theirs, origin.unlike)
    logging.info(
        "Beginning from %s at step %d (none is resized%s)\n  generator: %s\n  discriminator: %s",
        origin.workdir,
        origin.step,
        "; logits taken are negated, for its loss scores real images the other way round"
        * origin.opposite,
        generator,
        discriminator,
    )
    return fresh.replace(
        g_params=g_params,
        g_stats=g_stats,
        d_params=d_params,
        # Copies: the step donates its buffers, and refuses the same one twice.
        ema_params=jax.tree.map(jnp.copy, g_params),
        ema_stats=jax.tree.map(jnp.copy, g_stats),
    )


def _negate_logits(discriminator: Params) -> Params:
    there = [name for name in _LOGITS if name in discriminator]
    negated = {name: jax.tree.map(np.negative, discriminator[name]) for name in there}
    return discriminator | negated


def merge_layers(own: Params, other: Params, unlike: Mapping[str, str]) -> tuple[Params, str]:
    """``own`` with each layer of ``other`` of the same name and shapes, and a report in a line.

    Names tell resolutions, so that networks for other image sizes share what lies between. Nothing
    is resized: a kernel of other widths connects features that mean something else, and its bias
    goes with it. Modules of the kinds in ``unlike`` stay as they are, for the reasons there.
    """
    mine, theirs = _flat(own), _flat(other)
    match = _match(mine, theirs, unlike)
    mixed = {n: jnp.asarray(theirs[n]) if n in match.taken else leaf for n, leaf in mine.items()}
    size = sum(mine[n].size for n in match.taken)
    parts = [
        f"taken {len(match.taken)} of {len(mine)} arrays, "
        f"{size:,} of {sum(leaf.size for leaf in mine.values()):,} parameters"
    ]
    widths = [f"{n} {theirs[n].shape} there, {mine[n].shape} here" for n in sorted(match.resized)]
    apart: dict[str, set[str]] = {}
    for name in match.unlike:
        apart.setdefault(unlike[_kind(name)], set()).add(_module(name))
    for what, names in (
        ("left as initialised, of other widths", widths),
        *((f"left as initialised, {why}", sorted(apart[why])) for why in sorted(apart)),
        ("left as initialised, not there", _modules(mine.keys() - theirs.keys(), theirs)),
        ("not used", _modules(theirs.keys() - mine.keys(), mine)),
    ):
        if names:
            parts.append(f"{what}: {', '.join(names)}")
    return flax.traverse_util.unflatten_dict(mixed, sep="/"), "; ".join(parts)


def relabelled(tree: Params, before: Sequence[str], after: Sequence[str]) -> Params:
    """The tables of labels of a network for others: one that is new begins as the mean of all."""
    if not before or not after:
        return tree

    def table(name: str, rows: np.ndarray) -> np.ndarray:
        if not name.endswith(OF_LABEL):
            return rows
        own = [rows[before.index(label)] if label in before else rows.mean(0) for label in after]
        return np.stack(own)

    flat = {name: table(name, rows) for name, rows in _flat(tree).items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


class _Match(NamedTuple):
    """Names of the arrays that two networks share."""

    # Those of layers that have the same shapes and mean the same in both.
    taken: set[str]
    # Those of other shapes.
    resized: set[str]
    # Those that mean something else.
    unlike: set[str]


def _match(mine: Mapping[str, Any], theirs: Mapping[str, Any], unlike: Iterable[str]) -> _Match:
    """What to take of ``theirs``: arrays, or their shapes, by name."""
    shared = mine.keys() & theirs.keys()
    apart = {name for name in shared if _kind(name) in unlike}
    resized = {n for n in shared - apart if mine[n].shape != theirs[n].shape}
    layers = {_layer(name) for name in resized}
    taken = {name for name in shared - apart if _layer(name) not in layers}
    return _Match(taken, resized, apart)


def _flat(tree: Params) -> dict[str, Any]:
    """Arrays, or their shapes, by name: ``block_8/conv1/kernel``."""
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _module(name: str) -> str:
    return name.partition("/")[0]


def _kind(name: str) -> str:
    """The module's name without its size: ``side_attention_32/out/bias`` is a side_attention."""
    return _module(name).rstrip("_0123456789")


def _modules(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names, those of a module as one where the other network has nothing of it."""
    known = set(map(_module, others))
    return sorted({name if _module(name) in known else _module(name) for name in names})
