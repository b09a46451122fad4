"""The label of each image: its folder, a line of a file, or what TensorFlow Datasets says."""

import csv
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from lwgan.data.source import Source
from lwgan.errors import UserError
from lwgan.runs.files import local_path

# Values of ``data.labels`` beside names of .json and .csv files.
NONE, FOLDERS, TFDS = "none", "folders", "tfds"


def read_labels(source: Source, data: ConfigDict) -> tuple[np.ndarray | None, Sequence[str]]:
    """Places in the names of labels, int32 (N,), and those names: ``data.label_names`` or all.

    Raises:
      UserError: an image has no label, there are fewer than two, or others than ``label_names``.
    """
    if data.labels == NONE:
        return None, ()
    found = labels_of(source, data)
    kinds = sorted(set(found))
    if all(map(str.isdecimal, kinds)):
        kinds.sort(key=int)
    if len(kinds) < 2:
        raise UserError(
            "data.labels", data.labels, f"all images have the label {kinds[0]!r}", "use none"
        )
    names = tuple(data.label_names) or tuple(kinds)
    if strange := sorted(set(kinds) - set(names)):
        raise UserError(
            "data.labels",
            strange[0],
            f"is none of the labels {', '.join(names)}",
            "take its images away, or begin a new run with --config.data.label_names='()'",
        )
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[label] for label in found], np.int32), names


def labels_of(source: Source, data: ConfigDict) -> list[str]:
    """A label for each image of the source.

    Raises:
      UserError: an image has none.
    """
    if data.labels == TFDS:
        if source.labels is None:
            hint = "use folders, or a file of labels"
            raise UserError("data.labels", TFDS, f"a {data.source} has no labels of its own", hint)
        return list(source.labels())
    if data.labels == FOLDERS:
        return _folders(source.names)
    return _of_file(source.names, data)


def _folders(names: Sequence[str]) -> list[str]:
    """The first folder of each name below what all have in common."""
    parts = [pathlib.PurePosixPath(name.replace(os.sep, "/")).parts for name in names]
    depth = 0
    while all(len(own) > depth + 2 for own in parts) and len({own[depth] for own in parts}) == 1:
        depth += 1
    for name, own in zip(names, parts, strict=True):
        if len(own) < depth + 2:
            hint = "put each image into the folder of its label"
            raise UserError("data.labels", FOLDERS, f"{name} lies in none", hint)
    return [own[depth] for own in parts]


def _of_file(names: Sequence[str], data: ConfigDict) -> list[str]:
    """Labels by the names of images, as a file in or beside ``data.path`` has them."""
    path = local_path("data.labels", data.labels)
    within = local_path("data.path", data.path) / data.labels
    path = within if not path.exists() and within.exists() else path
    try:
        read = _read_csv if data.labels.endswith(".csv") else _read_json
        # Spreadsheets begin with a mark.
        table = read(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(
            "data.labels", str(path), f"cannot be read ({error.strerror})", "name another file"
        ) from None
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            "data.labels",
            str(path),
            f"does not hold names and labels ({error})",
            'write {"boats/1.png": "boat", …}, or lines of name,label',
        ) from None
    missing = [name for name in names if name not in table]
    if missing:
        some = f"{len(missing)} of {len(names)} images, such as {missing[0]},"
        raise UserError("data.labels", str(path), f"{some} have no label", "add them")
    return [table[name] for name in names]


def _read_json(text: str) -> dict[str, str]:
    """An object {name: label}, or StyleGAN's {"labels": [[name, label], …]}."""
    values = json.loads(text)
    if isinstance(values.get("labels"), list):
        values = dict(values["labels"])
    return {name: _as_label(label) for name, label in values.items()}


def _read_csv(text: str) -> dict[str, str]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if any(len(row) != 2 for row in rows):
        raise ValueError("a line has not two columns")
    return {name: _as_label(label.strip()) for name, label in rows}


def _as_label(value: str | int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{value!r} is no label")
    return str(value)
