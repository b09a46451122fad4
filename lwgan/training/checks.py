"""Which settings go together, and what the tables of all rooms offer."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from lwgan.data.decode import FITS
from lwgan.data.openmoji import SUBSETS
from lwgan.data.sources import SOURCES
from lwgan.errors import UserError
from lwgan.metrics.figures import METRICS
from lwgan.metrics.networks.features import FEATURES
from lwgan.metrics.networks.resize import RESIZES
from lwgan.models.discriminator import blocks
from lwgan.models.generator import EXCITATIONS, OUTPUTS
from lwgan.runs.files import local_path
from lwgan.settings.checks import require_types_and_ranges
from lwgan.settings.defaults import default_config, flatten, reference_config
from lwgan.settings.shapes import shape_of
from lwgan.training.augment import AUGMENTATIONS
from lwgan.training.ema import EMA_DECAYS
from lwgan.training.losses import LOSSES
from lwgan.training.optimizers import OPTIMIZERS

# What a setting may name.
NAMES = {
    "data.source": SOURCES,
    "data.fit": FITS,
    "data.subset": SUBSETS,
    "model.output": OUTPUTS,
    "loss.kind": LOSSES,
    "augment.types": AUGMENTATIONS,
    "optim.name": OPTIMIZERS,
    "ema.schedule": EMA_DECAYS,
    "eval.metrics": METRICS,
    "eval.features": FEATURES,
    "eval.resize": RESIZES,
}


class Idle(NamedTuple):
    """Settings that have no effect where ``when`` holds."""

    names: tuple[str, ...]
    when: Callable[[ConfigDict], bool]
    # ``{c}`` stands for the settings.
    why: str
    # Whether to speak of the default as well.
    default_too: bool = False


_SMALLER = "images of {{c.data.image_size}} px have no layer that it changes ({} px and more)"
_SOURCE = "data.source is {c.data.source}"
IDLE = (
    Idle(
        ("model.freq_chan_attn",),
        lambda c: shape_of(c.data.image_size).size < min(EXCITATIONS.values()),
        _SMALLER.format(min(EXCITATIONS.values())),
    ),
    Idle(
        ("model.min_channels",),
        lambda c: shape_of(c.data.image_size).size < 512,
        _SMALLER.format(512),
    ),
    Idle(
        ("augment.hflip",),
        lambda c: (
            c.augment.hflip
            and not c.augment.per_example
            and c.augment.prob == 0
            and not c.augment.target
        ),
        "only augmented images are mirrored, for augment.per_example is False, and augment.prob "
        "is 0",
        default_too=True,
    ),
    Idle(("augment.adapt_over",), lambda c: not c.augment.target, "augment.target is 0"),
    Idle(("data.path",), lambda c: c.data.source in ("tfds", "openmoji"), _SOURCE),
    Idle(
        ("data.name", "data.split", "data.data_dir"),
        lambda c: c.data.source in ("folder", "openmoji"),
        _SOURCE,
    ),
    Idle(
        ("data.label_names", "data.balanced"),
        lambda c: c.data.labels == "none",
        "data.labels is none",
    ),
    Idle(("data.subset",), lambda c: c.data.source in ("folder", "tfds"), _SOURCE),
)


def without_effect(config: ConfigDict) -> list[str]:
    """A line for each setting that was chosen and yet has no effect beside the others.

    A value counts as chosen that is neither the default nor lightweight-gan's. What is switched off
    beside a switch that says so is not spoken of.
    """
    own, usual = flatten(config), (flatten(default_config()), flatten(reference_config()))
    return [
        f"{name}={own[name]!r} has no effect: {idle.why.format(c=config)}"
        for idle in IDLE
        if idle.when(config)
        for name in idle.names
        if idle.default_too or own[name] not in [settings[name] for settings in usual]
    ]


def check_settings(config: ConfigDict) -> None:
    """Refuses settings that cannot be.

    Raises:
      UserError: names the first setting that is unknown, missing or impossible.
    """
    require_types_and_ranges(config, NAMES)
    _check_attention(config)
    _check_widths(config)
    _check_decoders(config)
    _check_freezing(config)
    if config.sample.format == "jpg" and config.data.mode == "rgba":
        raise UserError("sample.format", "jpg", "cannot hold rgba", "use png or webp")
    if LOSSES[config.loss.kind].compares_images and config.model.disc_output_size != 1:
        raise UserError(
            "model.disc_output_size",
            config.model.disc_output_size,
            f"{config.loss.kind} compares one logit per image",
            "use 1, or loss.kind=hinge",
        )


def check_devices(config: ConfigDict, devices: int) -> None:
    """Refuses a batch that does not divide evenly over devices and micro-batches.

    A negative ``train.grad_accum`` leaves the micro-batches open.

    Raises:
      UserError: names the nearest batch size that does, and micro-batches that keep the batch.
    """
    batch, accum = config.train.batch_size, max(1, config.train.grad_accum)
    parts = devices * accum
    if batch % parts == 0:
        return
    near = max(1, round(batch / parts)) * parts
    share, rest = divmod(batch, devices)
    others = [number for number in range(1, share + 1) if share % number == 0]
    keeping = min(others, key=lambda number: (abs(number - accum), -number), default=0)
    raise UserError(
        "train.batch_size",
        batch,
        f"must be a multiple of {devices} devices × {accum} micro-batches",
        f"use {near}" if rest else f"use {near}, or keep it with train.grad_accum={keeping}",
    )


def lies_among_images(config: ConfigDict, path: pathlib.Path) -> bool:
    """Whether a path is the folder ``data.path``, or below it."""
    if config.data.source != "folder" or not config.data.path:
        return False
    images = local_path("data.path", config.data.path).resolve()
    return path.resolve().is_relative_to(images)


def check_place(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuses a run among its own images, where the next start would find its samples.

    Raises:
      UserError: the directory lies in the folder ``data.path``.
    """
    if lies_among_images(config, workdir):
        raise UserError(
            "--workdir",
            str(workdir),
            "lies among the images of data.path, and its samples would become some of them",
            "name a place outside",
        )


def _check_attention(config: ConfigDict) -> None:
    size = shape_of(config.data.image_size).size
    sizes = [2**i for i in range(2, 10) if 2**i < size or 16 <= 2**i <= min(size, 256)]
    for resolution in config.model.attn_resolutions:
        if resolution not in sizes:
            raise UserError(
                "model.attn_resolutions",
                resolution,
                f"neither network has this size in images of {config.data.image_size} px",
                f"choose from {', '.join(map(str, sizes))}",
            )


def _discriminator_coef(config: ConfigDict) -> tuple[str, int]:
    """The setting that the discriminator's widths come from, and its value."""
    own = config.model.disc_fmap_inverse_coef
    name = "disc_fmap_inverse_coef" if own >= 0 else "fmap_inverse_coef"
    return f"model.{name}", config.model[name]


def _check_widths(config: ConfigDict) -> None:
    size = shape_of(config.data.image_size).size
    of_generator = ("model.fmap_inverse_coef", config.model.fmap_inverse_coef)
    for (name, coef), widest in (
        (of_generator, min(size, 256) // 2),
        (_discriminator_coef(config), min(size // 2, 256)),
    ):
        if 2**coef < widest:
            enough = f"use {widest.bit_length() - 1} or more"
            raise UserError(name, coef, f"leaves no channel at {widest} px", enough)


def _check_decoders(config: ConfigDict) -> None:
    """Each doubling but the last halves a decoder's channels; the quadrant's begins at 16 px."""
    name, coef = _discriminator_coef(config)
    first_size = 16 if shape_of(config.data.image_size).size >= 512 else 8
    channels = min(2**coef // first_size, config.model.fmap_max)
    if config.model.recon_size > 16 * channels:
        raise UserError(
            "model.recon_size",
            config.model.recon_size,
            f"a decoder that begins with {channels} channels ends before this size",
            f"use {2 ** (channels.bit_length() + 3)} or less, or more channels "
            f"(model.fmap_max, {name})",
        )


def _check_freezing(config: ConfigDict) -> None:
    size = config.data.image_size
    count = len(blocks(size))
    if config.optim.freeze_d > count:
        raise UserError(
            "optim.freeze_d",
            config.optim.freeze_d,
            f"the discriminator has {count} blocks for images of {size} px",
            f"use {count} or less",
        )
