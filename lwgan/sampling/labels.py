"""Which label an image is drawn with: weights float32 (B, K) that sum up to 1."""

import re
from collections.abc import Sequence

import jax
import numpy as np

from lwgan.errors import UserError
from lwgan.keys import Draw, image_keys

# A label by its name or its number.
Label = str | int


def place_of(label: Label, names: Sequence[str]) -> int:
    """The place of a label among the names of a run's.

    Raises:
      UserError: there is none such.
    """
    if not names:
        raise UserError("label", label, "the run has no labels", "leave it out")
    if str(label) in names:
        return names.index(str(label))
    if str(label).isdecimal() and int(label) < len(names):
        return int(label)
    some = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    raise UserError(
        "label", label, "is none of the run's", f"choose from {some}, or 0 to {len(names) - 1}"
    )


def chosen_labels(text: str, names: Sequence[str]) -> list[int]:
    """The places of the labels that a text names: names or numbers with commas, or all.

    Raises:
      UserError: the run has no such label.
    """
    if text in names or not names:
        return [place_of(text, names)]
    if text == "all":
        return list(range(len(names)))
    places = [place_of(each, names) for each in text.split(",")]
    if len(set(places)) < len(places):
        raise UserError("label", text, "names a label twice", "name it once")
    return places


def one_label(label: Label, names: Sequence[str], count: int) -> np.ndarray:
    """The same label for all."""
    return labels_at(np.full(count, place_of(label, names)), names)


def labels_at(places: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Labels by their places, int (B,)."""
    return np.eye(len(names), dtype=np.float32)[places]


def drawn_labels(seeds: np.ndarray, numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """One for each image ``numbers[i]`` of ``seeds[i]``, all as likely."""
    keys = image_keys(seeds, Draw.SAMPLE_LABELS, numbers)
    places = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(names)))(keys)
    return labels_at(np.asarray(places), names)


def as_file_name(name: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def file_names(places: Sequence[int], names: Sequence[str]) -> list[str]:
    """Labels as the beginnings of files' names, each another."""
    own = [as_file_name(names[place]) for place in places]
    if len(set(own)) == len(own):
        return own
    return [f"{place}-{name}" for place, name in zip(places, own, strict=True)]


def label_suffix(text: str | None) -> str:
    """Of the directory of what --label asks for."""
    return "" if text is None else f"-{as_file_name(text)[:40]}"
