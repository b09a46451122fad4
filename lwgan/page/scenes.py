"""What the page asks for: images, and how they are drawn. Whoever asks may ask for anything."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lwgan.errors import UserError
from lwgan.sampling.trained import WEIGHTS

NOISES = ("fixed", "fresh", "zero")
MOST_IMAGES, MOST_KEYFRAMES, MOST_FRAMES = 64, 32, 600
# Latents are near 1, and truncation too; what is far from that is a mistake.
_FAR = 1000.0

Json = Mapping[str, Any]


class Picked(NamedTuple):
    """An image: that of a seed, or of a latent with the noise of the seed."""

    seed: int
    # float32 (latent_dim,); None: the seed's.
    latent: np.ndarray | None
    # How far along each of the run's directions, by their places.
    moves: Mapping[int, float]


class Scene(NamedTuple):
    """Images, and how they are drawn."""

    images: Sequence[Picked]
    step: int
    # In trained.WEIGHTS.
    weights: str
    truncation: float
    # In NOISES.
    noise: str
    # Of noise that is fresh.
    noise_seed: int
    # The place of the label that all have; None: each that of its seed, or no labels.
    label: int | None
    # With frames, the images are keyframes of a way through all and back to the first.
    frames: int
    # Which of the frames; None: all of them.
    frame: int | None


def read_checkpoint(asked: Json) -> tuple[int, str]:
    """The step, and which of the generators.

    Raises:
      UserError: they cannot be.
    """
    return _whole(asked, "step", 0, 2**53), _choice(asked, "weights", WEIGHTS)


def read_label(asked: Json, num_labels: int) -> int | None:
    """The place of the label.

    Raises:
      UserError: there is none such.
    """
    return None if asked.get("label") is None else _whole(asked, "label", 0, num_labels - 1)


def read_scene(asked: Json, latent_dim: int, num_labels: int) -> Scene:
    """A scene from what the page sends.

    Raises:
      UserError: it cannot be.
    """
    frames = _whole(asked, "frames", 0, MOST_FRAMES, 0)
    frame = None if asked.get("frame") is None else _whole(asked, "frame", 0, frames - 1)
    most = MOST_KEYFRAMES if frames else MOST_IMAGES
    images = _list(asked, "images", most)
    if len(images) < (2 if frames else 1) or 0 < frames <= len(images):
        raise UserError("images", len(images), f"too few, or too many for {frames} frames", _MEND)
    return Scene(
        [_read_picked(each, latent_dim) for each in images],
        *read_checkpoint(asked),
        _number(asked, "truncation", 0.0, _FAR, 1.0),
        _choice(asked, "noise", NOISES),
        _whole(asked, "noise_seed", 0, 2**32 - 1, 0),
        read_label(asked, num_labels),
        frames,
        frame,
    )


_MEND = "ask for something else"


def _read_picked(asked: Json, latent_dim: int) -> Picked:
    if not isinstance(asked, dict):
        raise UserError("images", str(asked)[:80], "each must be an object", _MEND)
    latent = None
    if asked.get("latent") is not None:
        values = _list(asked, "latent", latent_dim)
        if len(values) != latent_dim:
            raise UserError("latent", len(values), f"must be {latent_dim} numbers", _MEND)
        numbers = [_number({"latent": value}, "latent", -_FAR, _FAR) for value in values]
        latent = np.array(numbers, np.float32)
    moves = asked.get("moves") or {}
    if not isinstance(moves, dict) or not all(map(re.compile(r"\d{1,6}").fullmatch, moves)):
        raise UserError("moves", str(moves)[:80], "must be numbers by places", _MEND)
    places = {int(place): _number(moves, place, -_FAR, _FAR) for place in moves}
    return Picked(_whole(asked, "seed", 0, 2**32 - 1), latent, places)


def _list(asked: Json, name: str, most: int) -> list[Any]:
    value = asked.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise UserError(name, str(value)[:80], f"must be a list of at most {most}", _MEND)
    return value


def _choice(asked: Json, name: str, choices: Sequence[str]) -> str:
    value = asked.get(name, choices[0])
    if value not in choices:
        raise UserError(name, str(value)[:80], f"must be one of {', '.join(choices)}", _MEND)
    return value


def _number(asked: Json, name: str, low: float, high: float, default: float | None = None) -> float:
    value = asked.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Neither infinity nor what is no number is between them.
    if not number or not low <= value <= high:
        raise UserError(name, str(value)[:80], f"must be from {low} to {high}", _MEND)
    return value


def _whole(asked: Json, name: str, low: int, high: int, default: int | None = None) -> int:
    value = _number(asked, name, low, high, default)
    if value != int(value):
        raise UserError(name, value, "must be a whole number", _MEND)
    return int(value)
