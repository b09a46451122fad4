"""Beginning a run from the weights of another."""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.models.build import Params
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import Run, read_run
from lwgan.training.state import TrainState, build_gan, init_state

FLAG = "--init_from"
# What the images and the latents are.
_MUST_AGREE = ("data.mode", "model.latent_dim")


class Origin(NamedTuple):
    """The weights that a run begins from: of the EMA generator and the discriminator, in NumPy."""

    workdir: pathlib.Path
    step: int
    generator: Params
    stats: Params
    discriminator: Params


def read_origin(workdir: pathlib.Path, step: int | None, config: ConfigDict) -> Origin:
    """The weights of a run at a step, the newest by default, for a run of these settings.

    Raises:
      UserError: there is no such run or checkpoint, or its images or latents are of another kind.
    """
    source = read_run(workdir, FLAG)
    for name in _MUST_AGREE:
        group, setting = name.split(".")
        theirs, own = source.config[group][setting], config[group][setting]
        if theirs != own:
            raise UserError(
                name, own, f"the run of {FLAG}={workdir} has {theirs!r}", "use that, or another run"
            )
    step = manifest.resolve_step(workdir, step, FLAG)
    like = jax.eval_shape(lambda: init_state(build_gan(source.config), 0))
    try:
        saved = checkpoint.restore(workdir, step, like)
    except ValueError as error:
        raise UserError(FLAG, str(workdir), str(error), "bring back its own config.json") from None
    return Origin(workdir, step, saved.ema_params, saved.ema_stats, saved.d_params)


def find_origin(
    this_run: Run, init_from: str | None, config: ConfigDict, *, new: bool, begun: bool
) -> Origin | None:
    """What a run without a checkpoint begins with: ``--init_from``, or what it has noted.

    A new run notes its origin, for ``run.json``. ``begun``: it has a checkpoint, so there is
    nothing to read.

    Raises:
      UserError: the run did not begin from there, or see ``read_origin``.
    """
    here, noted = this_run.workdir.resolve(), this_run.info.init_from
    asked = pathlib.Path(init_from).expanduser() if init_from else None
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
    return read_origin(noted_path, noted["step"], config) if noted and not begun else None


def start_from(fresh: TrainState, origin: Origin) -> TrainState:
    """The first state of a run: ``fresh``, with the weights of ``origin`` wherever they fit.

    Both generators get its EMA generator's; the optimizers stay fresh. Logs what was taken.
    """
    g_params, generator = merge_layers(fresh.g_params, origin.generator)
    g_stats, _ = merge_layers(fresh.g_stats, origin.stats)
    d_params, discriminator = merge_layers(fresh.d_params, origin.discriminator)
    logging.info(
        "Beginning from %s at step %d (none is resized)\n  generator: %s\n  discriminator: %s",
        origin.workdir,
        origin.step,
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


def merge_layers(own: Params, other: Params) -> tuple[Params, str]:
    """``own`` with each layer of ``other`` of the same name and shapes, and a report in a line.

    Names tell resolutions, so that networks for other image sizes share what lies between. Nothing
    is resized: a kernel of other widths connects features that mean something else, and its bias
    goes with it.
    """
    mine, theirs = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (own, other))
    differ = {n for n, leaf in mine.items() if n in theirs and theirs[n].shape != leaf.shape}
    layers = {_layer(n) for n in differ}
    taken = {n for n in mine if n in theirs and _layer(n) not in layers}
    mixed = {n: jnp.asarray(theirs[n]) if n in taken else leaf for n, leaf in mine.items()}
    widths = [f"{n} {theirs[n].shape} there, {mine[n].shape} here" for n in sorted(differ)]
    size = sum(mine[n].size for n in taken)
    parts = [
        f"taken {len(taken)} of {len(mine)} arrays, "
        f"{size:,} of {sum(leaf.size for leaf in mine.values()):,} parameters"
    ]
    for what, names in (
        ("left as initialised, of other widths", widths),
        ("left as initialised, not there", _modules(mine.keys() - theirs.keys(), theirs)),
        ("not used", _modules(theirs.keys() - mine.keys(), mine)),
    ):
        if names:
            parts.append(f"{what}: {', '.join(names)}")
    return flax.traverse_util.unflatten_dict(mixed, sep="/"), "; ".join(parts)


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _modules(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names, those of a module as one where the other network has nothing of it."""
    known = {name.partition("/")[0] for name in others}
    tops = ((name, name.partition("/")[0]) for name in names)
    return sorted({name if top in known else top for name, top in tops})
