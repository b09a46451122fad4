"""Where images come from: a table of functions, one for each kind of source."""

from collections.abc import Callable

from ml_collections import ConfigDict

from lwgan.data.folder import open_folder
from lwgan.data.openmoji import open_openmoji
from lwgan.data.source import BY_CONTENT, Source
from lwgan.data.tfds import open_tfds

SOURCES: dict[str, Callable[..., Source]] = {
    "folder": open_folder,
    "tfds": open_tfds,
    "openmoji": open_openmoji,
}


def open_source(data: ConfigDict, *, known: str = "", keep: bool = True) -> Source:
    """The source that the settings of ``data`` name.

    Args:
      data: the settings.
      known: the fingerprint that a run noted. If it is one of names and sizes, and of these images,
        the source is as it was found then.
      keep: remember in the user's cache what was read.

    Raises:
      UserError: it cannot be opened, or has no images.
    """
    source = SOURCES[data.source](data, keep=keep)
    if known and not known.endswith(BY_CONTENT):
        earlier = source.earlier()
        return earlier if earlier.fingerprint == known else source
    return source
