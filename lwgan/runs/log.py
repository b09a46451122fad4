"""The log's look: a line for each message, and the libraries' own only from warnings on."""

import contextlib
import io
import logging as python_logging
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging

import lwgan

_OWN = str(pathlib.Path(lwgan.__file__).parent)


def start() -> None:
    """Shows messages of lwgan on the terminal; before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    _dress(logging.get_absl_handler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _show_unraisable


@contextlib.contextmanager
def to_file(path: pathlib.Path) -> Iterator[None]:
    """Appends the log to a file as well; what cannot be written there is on the terminal only.

    Raises:
      OSError: the file cannot be opened.
    """
    # Names of files need not be UTF-8.
    handler = python_logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    # A full disk.
    handler.handleError = lambda record: None
    _dress(handler)
    logger = logging.get_absl_logger()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def _dress(handler: python_logging.Handler) -> None:
    handler.setFormatter(python_logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(_worth_reading)


def _show_unraisable(unraisable: Any) -> None:
    """As Python does, but for what the threads of a write of Orbax say after it has failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _worth_reading(record: python_logging.LogRecord) -> bool:
    path = record.pathname.replace(os.sep, "/")
    if record.name == "asyncio" or (record.exc_info and "/orbax/checkpoint/" in path):
        # Of several writes of Orbax that fail, the first is raised; the others would come beside.
        return False
    own = record.pathname.startswith(_OWN) or "site-packages" not in record.pathname
    if own or record.levelno >= python_logging.WARNING:
        return True
    # Reports of progress.
    if "/clu/platform/" in path:
        record.msg = str(record.msg).removeprefix("Setting work unit notes: ")
        return True
    return False
