"""Kinds of metric writers: the log, ``metrics.jsonl``, and others that may fail."""

import contextlib
import errno
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging
from clu import metric_writers

from lwgan.runs.files import replacing, sync


class QuietWriter(metric_writers.MetricWriter):
    """Writes nothing; writers of some kinds of values override the methods for those."""

    def write_scalars(self, step, scalars):
        pass

    def write_images(self, step, images):
        pass

    def write_texts(self, step, texts):
        pass

    def write_histograms(self, step, arrays, num_buckets=None):
        pass

    def write_hparams(self, hparams):
        pass

    def write_summaries(self, step, values, metadata=None):
        pass

    def write_videos(self, step, videos):
        pass

    def write_audios(self, step, audios, *, sample_rate):
        pass

    def flush(self):
        pass

    def close(self):
        pass


class LogWriter(QuietWriter):
    """Scalars as one line of the log, but for those that the line of progress tells."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if scalars.keys() <= {"steps_per_sec", "uptime"}:
            return
        values = "  ".join(f"{name} {float(value):.4g}" for name, value in sorted(scalars.items()))
        logging.info("step %d  %s", step, values)


class JsonLinesWriter(QuietWriter):
    """Scalars, a JSON object a line: ``{"step": 50, "d/adversarial": 1.93}``; not finite: null."""

    def __init__(self, path: pathlib.Path, step: int):
        """Goes on from ``step``: later lines, of updates that will be made again, are dropped."""
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            good = [line for line in lines if (said := read_line(line)) and said["step"] <= step]
            if len(good) < len(lines):
                with replacing(path) as part:
                    part.write_bytes(b"".join(good))
        self._path, self._works = path, True

    def flush(self) -> None:
        """Has the lines on the disk."""
        with contextlib.suppress(OSError):
            sync(self._path)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        numbers = {name: float(value) for name, value in scalars.items()}
        finite = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        line = json.dumps({"step": int(step), **finite}) + "\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                length = file.tell()
                if file.write(line.encode()) < len(line):
                    # The disk is full: half a line would spoil the next one.
                    file.truncate(length)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._works = True
        except OSError as error:
            if self._works:
                logging.warning("%s cannot be written to: %s", self._path, error)
            self._works = False


def read_line(line: bytes) -> dict[str, Any] | None:
    """The scalars in a line of ``metrics.jsonl``, with their step; None if it is damaged."""
    try:
        said = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    whole = isinstance(said, dict) and isinstance(said.get("step"), int | float)
    return said if whole else None


class HarmlessWriter(QuietWriter):
    """Another writer, whose first failure is a warning and its end."""

    def __init__(self, name: str, writer: metric_writers.MetricWriter):
        """``name`` is the warning's for it."""
        self._name, self._writer = name, writer

    def write_scalars(self, step, scalars):
        self._call("write_scalars", step, scalars)

    def write_images(self, step, images):
        self._call("write_images", step, images)

    def write_texts(self, step, texts):
        self._call("write_texts", step, texts)

    def write_histograms(self, step, arrays, num_buckets=None):
        self._call("write_histograms", step, arrays, num_buckets)

    def write_hparams(self, hparams):
        self._call("write_hparams", hparams)

    def flush(self):
        self._call("flush")

    def close(self):
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        try:
            if self._writer:
                getattr(self._writer, method)(*arguments)
        # Trackers raise many kinds.
        except Exception as error:
            logging.warning("%s failed; training goes on without it: %s", self._name, error)
            failed, self._writer = self._writer, None
            with contextlib.suppress(Exception):
                failed.close()
