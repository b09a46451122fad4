"""Settings as JSON, what older runs lack, and what has changed between two starts."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from lwgan.settings.checks import require_types_and_ranges
from lwgan.settings.defaults import by_full_name, config_of, flatten

# Settings that runs of earlier versions lack, with the value of what those runs did.
ADDED = {
    "augment": {"target": 0.0, "adapt_over": 100.0},
    "data": {
        "name": "",
        "split": "train",
        "data_dir": "",
        "holdout": 0.0,
        "fit": "crop",
        "labels": "none",
        "label_names": (),
        "balanced": False,
    },
    "eval": {
        "every": 0,
        "metrics": ("kid", "fid", "pr"),
        "num_images": 2048,
        "features": "inception",
        "weights": "",
        "resize": "clean",
        "background": "white",
    },
    "model": {"remat": False, "output": "linear"},
    "optim": {"freeze_d": 0, "warmup": 0, "decay": 0.0},
    "sample": {"format": "png"},
    "train": {"max_recoveries": 3},
}


def to_json(config: ConfigDict) -> str:
    """The settings as readable JSON."""
    return json.dumps(config.to_dict(), indent=2, default=list) + "\n"


def from_json(text: str) -> ConfigDict:
    """Settings from ``to_json``'s text; see ``from_values``. Raises ValueError."""
    return from_values(json.loads(text))


def from_values(values: Any) -> ConfigDict:
    """Settings as JSON has them, lists as tuples, with what an earlier version lacked.

    Raises:
      ValueError: these are no groups of settings.
    """
    groups = {group: dict(settings) for group, settings in ADDED.items()}
    if not isinstance(values, dict):
        raise ValueError(f"these are no settings: {str(values)[:40]!r}")
    for group, settings in values.items():
        if not isinstance(settings, dict):
            raise ValueError(f"{group!r} is no group of settings: {str(settings)[:40]!r}")
        own = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        groups[group] = groups.get(group, {}) | own
    return config_of(groups)


def read_settings(path: pathlib.Path) -> ConfigDict:
    """The settings in a run's ``config.json``.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON, or holds no groups of settings.
      UserError: a setting is unknown, missing or impossible.
    """
    config = from_json(path.read_text("utf-8"))
    require_types_and_ranges(config, {})
    return config


def fixed_change(old: ConfigDict, new: ConfigDict) -> tuple[str, Any, Any] | None:
    """The first setting that may not change within a run and did: (name, old value, new value)."""
    before, after = flatten(old), flatten(new)
    for name, setting in by_full_name().items():
        if setting.fixed and before[name] != after[name]:
            return name, before[name], after[name]
    return None


def changes(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: name -> (old value, new value)."""
    before, after = flatten(old), flatten(new)
    return {name: (before[name], after[name]) for name in after if before[name] != after[name]}
