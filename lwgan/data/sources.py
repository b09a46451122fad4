"""Where images come from: a table of functions, one for each kind of source."""

from collections.abc import Callable

from ml_collections import ConfigDict

from lwgan.data.folder import open_folder
from lwgan.data.openmoji import open_openmoji
from lwgan.data.source import Source
from lwgan.data.tfds import open_tfds

SOURCES: dict[str, Callable[[ConfigDict], Source]] = {
    "folder": open_folder,
    "tfds": open_tfds,
    "openmoji": open_openmoji,
}


def open_source(data: ConfigDict) -> Source:
    """The source that the settings of ``data`` name.

    Raises:
      UserError: it cannot be opened, or has no images.
    """
    return SOURCES[data.source](data)
