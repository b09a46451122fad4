"""The rules about settings: every name with what it may be, checked once before anything is written."""

import difflib
import json
import math
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lwgan.augment import AUGMENTATIONS
from lwgan.errors import UserError
from lwgan.losses import LOSSES
from lwgan.metrics.features import FEATURES
from lwgan.metrics.measure import FEWEST, METRICS
from lwgan.metrics.resize import RESIZES
from lwgan.models.discriminator import blocks
from lwgan.optimizers import OPTIMIZERS
from lwgan.pictures import BACKGROUNDS
from lwgan.sources import OPENMOJI_SUBSETS, SOURCES
from lwgan.state import CHANNELS
from lwgan.step import EMA_DECAYS, MATMUL_PRECISIONS

Settings = dict[str, Any]  # by full name, e.g. "data.image_size"


class Rule(NamedTuple):
    """What a setting may be."""

    holds: Callable[[Any], bool]
    allowed: str
    fixed: bool = False  # cannot change within a run

    def allows(self, value: Any) -> bool:
        """Whether the value holds; a value of another kind, as in a file edited by hand, does not."""
        try:
            return bool(self.holds(value))
        except TypeError:
            return False


def _one_of(names: Collection[str], fixed: bool = False) -> Rule:
    return Rule(lambda value: value in names, "may be " + ", ".join(sorted(names)), fixed)


def _number(low: float, high: float = math.inf, fixed: bool = False) -> Rule:
    allowed = f"a number from {low:g}" + ("" if high == math.inf else f" to {high:g}")
    return Rule(
        lambda value: low <= value <= high and value < math.inf, f"must be {allowed}", fixed
    )


def _power_of_two(low: int, high: int) -> Rule:
    powers = {2**i for i in range(low.bit_length() - 1, high.bit_length())}
    return Rule(lambda value: value in powers, f"must be a power of two from {low} to {high}", True)


def _tuple_of(kind: type, allowed: str, fixed: bool = False) -> Rule:
    return Rule(
        lambda values: isinstance(values, tuple) and all(type(v) is kind for v in values),
        allowed,
        fixed,
    )


def _yes_or_no(fixed: bool = False) -> Rule:
    return Rule(lambda value: isinstance(value, bool), "must be True or False", fixed)


_ANY_TEXT = Rule(lambda value: isinstance(value, str), "must be text")
_POSITIVE = Rule(lambda value: 0 < value < math.inf, "must be a number above 0")
_DECAY = Rule(lambda value: 0 <= value < 1, "must be at least 0 and below 1")

RULES = {
    "data.source": _one_of(SOURCES),
    "data.path": _ANY_TEXT,
    "data.name": _ANY_TEXT,
    "data.split": _ANY_TEXT,
    "data.data_dir": _ANY_TEXT,
    "data.subset": _one_of(OPENMOJI_SUBSETS),
    "data.image_size": _power_of_two(32, 1024),
    "data.mode": _one_of(CHANNELS, fixed=True),
    "data.crop_prob": _number(0, 1),
    "data.cache": _one_of(("auto", "memory", "disk", "none")),
    "data.holdout": Rule(lambda v: 0 <= v < 1, "must be at least 0 and below 1", True),
    "data.num_threads": Rule(lambda v: v < 0 or v >= 1, "must be at least 1, or negative"),
    "model.latent_dim": _number(1, fixed=True),
    "model.fmap_max": _number(1, fixed=True),
    "model.fmap_inverse_coef": _number(1, 30, fixed=True),
    "model.disc_fmap_inverse_coef": _number(-1, 30, fixed=True),
    "model.min_channels": Rule(lambda v: v < 0 or v >= 1, "must be at least 1, or negative", True),
    "model.attn_resolutions": _tuple_of(int, "must be sizes in pixels such as (32,64), or ()", True),
    "model.attn_heads": _number(1, fixed=True),
    "model.attn_head_dim": _number(1, fixed=True),
    "model.freq_chan_attn": _yes_or_no(fixed=True),
    "model.antialias": _yes_or_no(fixed=True),
    "model.icnr_init": _yes_or_no(fixed=True),
    "model.disc_output_size": Rule(lambda v: v in (1, 5), "may be 1 or 5", True),
    "model.side_channels": Rule(lambda v: v == 0 or v >= 2, "must be at least 2, or 0", True),
    "model.side_attention": _yes_or_no(fixed=True),
    "model.recon_size": _power_of_two(16, 1024),
    "loss.kind": _one_of(LOSSES, fixed=True),
    "loss.gp_weight": _number(0),
    "loss.gp_every": _number(1),
    "loss.aux_weight": _number(0),
    "augment.prob": _number(-1, 1),
    "augment.types": _tuple_of(str, "must be names such as ('cutout','translation'), or ()"),
    "augment.per_example": _yes_or_no(),
    "augment.hflip": _yes_or_no(),
    "optim.name": _one_of(OPTIMIZERS, fixed=True),
    "optim.learning_rate": _POSITIVE,
    "optim.b1": _DECAY,
    "optim.b2": _DECAY,
    "optim.ttur_mult": _POSITIVE,
    "optim.freeze_d": _number(0),
    "ema.schedule": _one_of(EMA_DECAYS),
    "ema.half_life": _POSITIVE,
    "train.num_steps": _number(1),
    "train.batch_size": _number(1),
    "train.grad_accum": _number(1),
    "train.precision": _one_of(MATMUL_PRECISIONS),
    "train.seed": _number(0, 2**32 - 1, fixed=True),
    "train.max_recoveries": _number(0),
    "train.log_every": _number(1),
    "checkpoint.every": _number(1),
    "checkpoint.keep_last": _number(1),
    "checkpoint.keep_every": _number(0),
    "sample.every": _number(0),
    "sample.grid": Rule(
        lambda v: [type(n) for n in v] == [int, int] and min(v) >= 1, "must be (rows, columns)"
    ),
    "eval.every": _number(0),
    "eval.metrics": _tuple_of(str, "must be names such as ('kid','fid')"),
    "eval.num_images": _number(FEWEST),
    "eval.features": _one_of(FEATURES),
    "eval.weights": _ANY_TEXT,
    "eval.resize": _one_of(RESIZES),
    "eval.background": _one_of(BACKGROUNDS),
    "track.aim": _yes_or_no(),
    "track.repo": _ANY_TEXT,
    "track.experiment": _ANY_TEXT,
    "track.tensorboard": _yes_or_no(),
}  # fmt: skip


def flatten(config: ConfigDict) -> Settings:
    """Every setting by its full name, e.g. ``data.image_size``."""
    return {
        f"{group}.{name}": value
        for group, settings in config.items()
        for name, value in settings.items()
    }


def check(config: ConfigDict) -> None:
    """Refuses settings that cannot be.

    Raises:
      UserError: names the first setting that is unknown, missing or impossible.
    """
    for group, settings in config.items():
        if not isinstance(settings, ConfigDict):
            raise UserError(
                f"config.{group}", settings, "must be a group of settings", "see configs/default.py"
            )
    settings = flatten(config)
    for name in settings:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1)
            raise UserError(
                name,
                settings[name],
                "there is no such setting",
                f"perhaps you mean {near[0]}" if near else "see configs/default.py",
            )
    for name, rule in RULES.items():
        if name not in settings:
            raise UserError(name, None, "this setting is missing", "start from configs/default.py")
        if not rule.allows(settings[name]):
            raise UserError(name, settings[name], rule.allowed, f"set it with --config.{name}=…")
    _check_together(config)


def _check_together(config: ConfigDict) -> None:
    """The rules that concern more than one setting."""
    size, model = config.data.image_size, config.model
    sizes = [2**i for i in range(2, 10) if 2**i < size or 16 <= 2**i <= min(size, 256)]
    for resolution in model.attn_resolutions:
        if resolution not in sizes:
            raise UserError(
                "model.attn_resolutions",
                resolution,
                f"neither network has this size in pictures of {size} px",
                f"choose from {', '.join(map(str, sizes))}",
            )
    d_name = "disc_fmap_inverse_coef" if model.disc_fmap_inverse_coef >= 0 else "fmap_inverse_coef"
    for name, coef, widest in (
        ("model.fmap_inverse_coef", model.fmap_inverse_coef, min(size, 256) // 2),
        (f"model.{d_name}", model[d_name], min(size // 2, 256)),
    ):
        if 2**coef < widest:
            raise UserError(
                name,
                coef,
                f"leaves no channel at {widest} px",
                f"use {widest.bit_length() - 1} or more",
            )
    # Each doubling but the last halves the channels of a decoder; the quadrant's begins at 16 px.
    channels = min(2 ** model[d_name] // (16 if size >= 512 else 8), model.fmap_max)
    if model.recon_size > 16 * channels:
        raise UserError(
            "model.recon_size",
            model.recon_size,
            f"a decoder that begins with {channels} channels ends before this size",
            f"use {2 ** (channels.bit_length() + 3)} or less, or more channels "
            f"(model.fmap_max, model.{d_name})",
        )
    count = len(blocks(size))
    if config.optim.freeze_d > count:
        raise UserError(
            "optim.freeze_d",
            config.optim.freeze_d,
            f"the discriminator has {count} blocks for pictures of {size} px",
            f"use {count} or less",
        )
    if LOSSES[config.loss.kind].compares_pictures and model.disc_output_size != 1:
        raise UserError(
            "model.disc_output_size",
            model.disc_output_size,
            f"{config.loss.kind} compares one logit per picture",
            "use 1, or loss.kind=hinge",
        )
    for setting, names, table in (
        ("augment.types", config.augment.types, AUGMENTATIONS),
        ("eval.metrics", config.eval.metrics, METRICS),
    ):
        for name in names:
            if name not in table:
                raise UserError(setting, name, "there is none", f"choose from {', '.join(table)}")


def check_devices(config: ConfigDict, devices: int) -> None:
    """Refuses a batch that does not divide evenly over devices and micro-batches.

    Raises:
      UserError: names the nearest batch size that does.
    """
    batch, accum = config.train.batch_size, config.train.grad_accum
    parts = devices * accum
    if batch % parts:
        near = max(1, round(batch / parts)) * parts
        raise UserError(
            "train.batch_size",
            batch,
            f"must be a multiple of {devices} devices × {accum} micro-batches",
            f"use {near}",
        )


def to_json(config: ConfigDict) -> str:
    """The settings as readable JSON."""
    return json.dumps(config.to_dict(), indent=2, default=list) + "\n"


# Settings that runs of earlier versions lack, with the value of what those runs did.
ADDED = {
    "data": {"name": "", "split": "train", "data_dir": "", "holdout": 0.0},
    "eval": {
        "every": 0,
        "metrics": ("kid", "fid", "pr"),
        "num_images": 2048,
        "features": "inception",
        "weights": "",
        "resize": "clean",
        "background": "white",
    },
    "optim": {"freeze_d": 0},
    "train": {"max_recoveries": 3},
}


def from_json(text: str) -> ConfigDict:
    """Settings from ``to_json``'s text, lists as tuples again; what an earlier version lacked is added."""
    groups = {group: dict(settings) for group, settings in ADDED.items()}
    for group, settings in json.loads(text).items():
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        groups[group] = groups.get(group, {}) | values
    return ConfigDict(groups)


def read(path: pathlib.Path) -> ConfigDict:
    """The settings in a run's ``config.json``."""
    return from_json(path.read_text())


def fixed_change(old: ConfigDict, new: ConfigDict) -> tuple[str, Any, Any] | None:
    """The first setting that may not change within a run and did: (name, old value, new value)."""
    before, after = flatten(old), flatten(new)
    for name, rule in RULES.items():
        if rule.fixed and before[name] != after[name]:
            return name, before[name], after[name]
    return None


def changes(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: name -> (old value, new value)."""
    before, after = flatten(old), flatten(new)
    return {name: (before[name], after[name]) for name in after if before[name] != after[name]}
