"""Writes to Aim by way of a process of its own: nothing here waits for it beyond a bounded time."""

import base64
import contextlib
import importlib.util
import json
import pathlib
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from lwgan.runs.writers import QuietWriter

_PROGRAM = pathlib.Path(__file__).with_name("aim_process.py")
# Seconds that opening the repository may take, of which so many for an earlier process to let go of
# the run.
_OPENING, _LETTING_GO = 60, 35
# Seconds that it may take to take a line, and that the last ones may take.
_TAKING, _CLOSING = 5, 20
# Bytes that may wait to be taken.
_BACKLOG = 2**27


class AimWriter(QuietWriter):
    """Scalars, images, texts, histograms and settings to one run of an Aim repository.

    Tracking a step again replaces what was there, so a continued run has no doubles. Nothing is
    sent anywhere: no system metrics, no terminal output, no telemetry. What Aim cannot take is one
    warning.
    """

    def __init__(
        self, repo: pathlib.Path, experiment: str | None, run_hash: str | None, *, new: bool = True
    ):
        """Opens the run ``run_hash``; without, or with ``new`` where that fails, a new one.

        Without an experiment a run keeps its own.

        Raises:
          ModuleNotFoundError: Aim is not installed.
          OSError: the repository cannot be opened.
        """
        if sys.modules.get("aim", True) is None or not importlib.util.find_spec("aim"):
            raise ModuleNotFoundError("Aim is not installed")
        options = {"repo": str(repo.absolute()), "experiment": experiment}
        options |= {"run_hash": run_hash, "new": new, "patience": _LETTING_GO if new else _TAKING}
        # A session of its own, so that Ctrl-C does not end it before its last figures have come.
        self._process = subprocess.Popen(
            [sys.executable, "-P", _PROGRAM, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        try:
            self.run_hash = self._read_hash(run_hash)
        except BaseException:
            self._end()
            raise
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Guards what follows, and tells when it changes.
        self._changed = threading.Condition()
        # Bytes that have not been taken.
        self._waiting = 0
        # Whether taking them takes too long to wait for it.
        self._late = False
        self._failed = False
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def _read_hash(self, asked: str | None) -> str:
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while poll.poll(1000 * _OPENING):
            said = self._hear()
            if "run" in said:
                return said["run"]
            if "lost" not in said:
                raise OSError(said["error"])
            reason = said["lost"]
            logging.warning("Aim cannot continue run %s (%s): a new one begins", asked, reason)
        raise OSError("its repository does not open")

    def _hear(self) -> dict[str, str]:
        """What the process says next; it has failed if that is something else."""
        line = self._process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            return {"error": line.decode(errors="replace").strip() or "its process has ended"}

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._track("scalars", step, {name: float(value) for name, value in scalars.items()})

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images are uint8 (H, W, C)."""
        for name, image in images.items():
            array = np.asarray(image)
            data = base64.b64encode(array.tobytes()).decode()
            self._track("images", step, {name: {"shape": array.shape, "data": data}})

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._track("texts", step, dict(texts))

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        values = {}
        for name, array in arrays.items():
            numbers = np.asarray(array, np.float64).ravel()
            finite = numbers[np.isfinite(numbers)]
            counts, edges = np.histogram(finite, (num_buckets or {}).get(name, 64))
            values[name] = {"counts": counts.tolist(), "range": [edges[0], edges[-1]]}
        self._track("histograms", step, values)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._track("hparams", 0, dict(hparams))

    def _track(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Returns when the process has taken the line, or when that takes too long."""
        line = json.dumps({"kind": kind, "step": int(step), "values": values}).encode() + b"\n"
        with self._changed:
            if self._failed:
                return
            if self._waiting and self._waiting + len(line) > _BACKLOG:
                self._fail("it takes nothing any more")
                return
            self._waiting += len(line)
            self._lines.put(line)
            if not self._late:
                self._late = not self._changed.wait_for(self._has_taken_all, _TAKING)

    def _has_taken_all(self) -> bool:
        return self._failed or not self._waiting

    def _send(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                while line:
                    count = self._process.stdin.write(line)
                    line = line[count:]
                    with self._changed:
                        self._waiting -= count
            except OSError:
                with self._changed:
                    self._fail(self._hear().get("error", "its process has ended"))
                return
            with self._changed:
                self._late = self._late and self._waiting > 0
                self._changed.notify_all()
        self._process.stdin.close()

    def _fail(self, reason: str) -> None:
        """Notes and says it, once; with ``_changed`` held."""
        if not self._failed:
            logging.warning("Aim failed; training goes on without it: %s", reason)
        self._failed = True
        self._changed.notify_all()

    def close(self) -> None:
        """Waits for the last figures to be tracked, for a bounded time."""
        self._lines.put(None)
        self._sender.join(_CLOSING)
        code = None
        if not self._sender.is_alive():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_CLOSING)
        with self._changed:
            known, self._failed = self._failed, True
        if code != 0 and not known:
            reason = "it does not end" if code is None else self._hear().get("error")
            logging.warning("Aim failed; its last figures may be missing: %s", reason)
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        if hasattr(self, "_sender"):
            self._sender.join()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
