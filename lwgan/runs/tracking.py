"""Where a run's numbers and images go: Aim or TensorBoard, ``metrics.jsonl``, and the log."""

import functools
import gc
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging
from clu import metric_writers
from ml_collections import ConfigDict

from lwgan.runs.directory import Run
from lwgan.runs.files import write_text


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
            lines = path.read_text().splitlines(keepends=True)
            write_text(path, "".join(line for line in lines if _step_of(line) <= step))
        self._path, self._works = path, True

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        numbers = {name: float(value) for name, value in scalars.items()}
        finite = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({"step": int(step), **finite}) + "\n")
            self._works = True
        except OSError as error:
            if self._works:
                logging.warning("%s cannot be written to: %s", self._path, error)
            self._works = False


def _step_of(line: str) -> float:
    """The step of a line; infinite where it was not written whole."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except ValueError:
        return math.inf


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """An Aim call whose failure is a warning, and the end of tracking with Aim in this process."""

    @functools.wraps(method)
    def call(self: "AimWriter", *args: Any, **kwargs: Any) -> None:
        if self._run is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._run = None
            logging.warning("Aim failed; training goes on without it: %s", error)

    return call


class AimWriter(QuietWriter):
    """Scalars, images, texts, histograms and settings to one run of an Aim repository.

    Tracking a step again replaces what was there, so a continued run has no doubles. Nothing is
    sent anywhere: no system metrics, no terminal output, no telemetry.
    """

    def __init__(self, repo: pathlib.Path, experiment: str, run_hash: str | None):
        """Opens the run ``run_hash``, or a new one. Raises whatever Aim raises."""
        import aim

        self._aim = aim
        repo.mkdir(parents=True, exist_ok=True)
        options = {"repo": str(repo.absolute()), "experiment": experiment, **_QUIET}
        try:
            self._run = aim.Run(run_hash, **options)
        except Exception as error:
            if run_hash is None:
                raise
            logging.warning("Aim cannot continue run %s (%s): a new one begins", run_hash, error)
            self._run = aim.Run(None, **options)
        self.run_hash = self._run.hash

    @_harmless
    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._run.track(float(value), name=name, step=int(step))

    @_harmless
    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images are uint8 (H, W, C)."""
        for name, image in images.items():
            self._run.track(self._aim.Image(np.asarray(image)), name=name, step=int(step))

    @_harmless
    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            self._run.track(self._aim.Text(text), name=name, step=int(step))

    @_harmless
    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        for name, array in arrays.items():
            values = np.asarray(array, np.float64).ravel()
            distribution = self._aim.Distribution(
                values[np.isfinite(values)], bin_count=(num_buckets or {}).get(name, 64)
            )
            self._run.track(distribution, name=name, step=int(step))

    @_harmless
    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._run["hparams"] = dict(hparams)

    @_harmless
    def close(self) -> None:
        self._run.close()
        # Aim's exit hook waits for runs that are still referred to.
        self._run = None
        gc.collect()


_QUIET = {
    "system_tracking_interval": None,
    "log_system_params": False,
    "capture_terminal_logs": False,
}


def add_to_aim(run: Run, step: int, scalars: Mapping[str, float]) -> None:
    """Adds scalars to the Aim run of a run that has one; if that fails, it is a warning."""
    if not run.info.aim_run or not run.config.track.aim:
        return
    try:
        import aim

        repo = _aim_repo(run, run.config.track)
        aim_run = aim.Run(run.info.aim_run, repo=str(repo.absolute()), **_QUIET)
        for name, value in scalars.items():
            aim_run.track(float(value), name=name, step=step)
        aim_run.close()
    # Aim raises many kinds.
    except Exception as error:
        logging.warning("Aim failed: %s", error)
    finally:
        aim_run = None
        # As in AimWriter.close.
        gc.collect()


def create_writer(run: Run, track: ConfigDict, step: int) -> metric_writers.MetricWriter:
    """The writer of a run that goes on from ``step``; notes the Aim run in ``run.json``.

    Writes in a thread of its own, and takes arrays that are still being computed.
    """
    workdir = run.workdir.absolute()
    writers = [LogWriter(), JsonLinesWriter(workdir / "metrics.jsonl", step)]
    aim_writer = _open_aim(run, track) if track.aim else None
    if aim_writer:
        writers.append(aim_writer)
    if track.tensorboard or not aim_writer:
        writers.append(metric_writers.SummaryWriter(os.fspath(workdir)))
    return metric_writers.AsyncMultiWriter(writers)


def _open_aim(run: Run, track: ConfigDict) -> AimWriter | None:
    experiment = track.experiment or run.workdir.absolute().name
    try:
        writer = AimWriter(_aim_repo(run, track), experiment, run.info.aim_run)
    except ModuleNotFoundError:
        logging.warning("Aim is not installed: writing TensorBoard files instead")
        return None
    except Exception as error:
        logging.warning("Aim failed; writing TensorBoard files instead: %s", error)
        return None
    run.info.aim_run = writer.run_hash
    run.write()
    return writer


def _aim_repo(run: Run, track: ConfigDict) -> pathlib.Path:
    return pathlib.Path(track.repo).expanduser() if track.repo else run.workdir.absolute().parent
