"""Refuses settings that are unknown, missing or impossible, before anything is written."""

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.settings.defaults import Setting, by_full_name, flatten
from lwgan.settings.rules import one_of

LIST = "python -m lwgan.settings lists them all"

_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def allowed(setting: Setting) -> str:
    """What a setting may be: ``a whole number from 1``."""
    return setting.rule.words.format(kind=_KINDS.get(setting.type, "a tuple"))


def holds(setting: Setting, value: Any) -> bool:
    """Whether the setting may have this value."""
    kind = setting.type
    # A whole number does for a number; a bool, which Python takes for one, does not.
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) != (kind is bool):
        return False
    if kind is float and not math.isfinite(value):
        return False
    return bool(setting.rule.holds(value))


def with_choices(setting: Setting, choices: Collection[str]) -> Setting:
    """The setting as it is where a table says what it may name; without choices as it was."""
    if not choices:
        return setting
    if isinstance(setting.default, str):
        return setting._replace(rule=one_of(*choices))
    rule = setting.rule
    return setting._replace(rule=rule._replace(words=f"{rule.words}; of {', '.join(choices)}"))


def require_types_and_ranges(config: ConfigDict, names: Mapping[str, Collection[str]]) -> None:
    """Refuses a setting that is unknown, missing, or impossible whatever the others are.

    Args:
      config: the settings.
      names: what a setting may name, by the setting: ``{"loss.kind": LOSSES}``. Where the value
        is a tuple, each of its elements must be one.

    Raises:
      UserError: names the first such setting.
    """
    for group, settings in config.items():
        if not isinstance(settings, ConfigDict):
            raise UserError(f"config.{group}", settings, "must be a group of settings", LIST)
    known, values = by_full_name(), flatten(config)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"perhaps you mean {near[0]}" if near else LIST
            raise UserError(name, values[name], "there is no such setting", hint)
    for name, setting in known.items():
        if name not in values:
            raise UserError(
                name, None, "this setting is missing", "start from lwgan.default_config()"
            )
        choices = names.get(name, ())
        setting = with_choices(setting, choices)
        if not holds(setting, values[name]):
            raise UserError(
                name, values[name], f"must be {allowed(setting)}", f"set it with --config.{name}=…"
            )
        for element in values[name] if choices and isinstance(setting.default, tuple) else ():
            if element not in choices:
                hint = f"choose from {', '.join(choices)}"
                raise UserError(name, element, "there is none", hint)


def require_choices(flag: str, values: Sequence[str], choices: Collection[str]) -> None:
    """Refuses values that no table has.

    Raises:
      UserError: names the first of them.
    """
    for value in values:
        if value not in choices:
            hint = f"for example {next(iter(choices))}"
            raise UserError(flag, value, f"must be of {', '.join(choices)}", hint)
