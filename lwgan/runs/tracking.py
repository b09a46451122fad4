"""Where a run's numbers and images go: Aim or TensorBoard, ``metrics.jsonl``, and the log."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging
from clu import metric_writers
from ml_collections import ConfigDict

from lwgan.errors import UserError
from lwgan.runs.aim_writer import AimWriter
from lwgan.runs.directory import Run
from lwgan.runs.files import local_path, writing
from lwgan.runs.gpus import leave_gpus_to_jax
from lwgan.runs.writers import HarmlessWriter, JsonLinesWriter, LogWriter, read_line

METRICS = "metrics.jsonl"


def create_writer(run: Run, track: ConfigDict, step: int) -> metric_writers.MetricWriter:
    """The writer of a run that goes on from ``step``; notes the Aim run in ``run.json``.

    Writes in a thread of its own, and takes arrays that are still being computed. What stands in
    ``metrics.jsonl`` has been handed to the trackers: it is written last.

    Raises:
      UserError: the run cannot be written to.
    """
    workdir = run.workdir.absolute()
    # First, for it may find the disk full.
    with writing(workdir, "--workdir"):
        json_lines = JsonLinesWriter(workdir / METRICS, step)
    writers: list[metric_writers.MetricWriter] = [LogWriter()]
    aim_writer = _open_aim(run, track) if track.aim else None
    if aim_writer:
        writers.append(HarmlessWriter("Aim", aim_writer))
    if track.tensorboard or not aim_writer:
        writers += _open_tensorboard(workdir)
    writers.append(json_lines)
    return metric_writers.AsyncWriter(metric_writers.MultiWriter(writers))


def _open_tensorboard(workdir: pathlib.Path) -> list[metric_writers.MetricWriter]:
    try:
        leave_gpus_to_jax()
        writer = metric_writers.SummaryWriter(os.fspath(workdir))
    # TensorFlow raises many kinds.
    except Exception as error:
        logging.warning("TensorBoard failed; training goes on without it: %s", error)
        return []
    return [HarmlessWriter("TensorBoard", writer)]


def tracked(workdir: pathlib.Path, step: int) -> set[str]:
    """The names of the scalars that a run has tracked at a step."""
    return {name for said in _said(workdir) if said["step"] == step for name in said}


def _said(workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
    """What ``metrics.jsonl`` says, line by line."""
    path = workdir / METRICS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return filter(None, map(read_line, lines))


def require_nothing_saved(run: Run) -> None:
    """Refuses a run without a checkpoint that has made some: to go on would be to start over.

    Raises:
      UserError: by ``metrics.jsonl``, two checkpoints have been due.
    """
    last = max((scalars["step"] for scalars in _said(run.workdir)), default=0)
    # When a step is logged, the save at the one before has begun, for which that before it ended.
    if last > 2 * run.config.checkpoint.every:
        raise UserError(
            "--workdir",
            str(run.workdir),
            f"the run has come to step {last}, but none of its checkpoints is there",
            "mount what they are on, or start over with --fresh",
        )


def add_to_aim(run: Run, step: int, scalars: Mapping[str, float]) -> None:
    """Adds scalars to the Aim run of a run that has one; if that fails, it is a warning."""
    if not run.info.aim_run or not run.config.track.aim:
        return
    try:
        writer = AimWriter(_aim_repo(run, run.config.track), None, run.info.aim_run, new=False)
    except (OSError, UserError, ModuleNotFoundError) as error:
        logging.warning("Aim failed: %s", error)
        return
    writer.write_scalars(step, scalars)
    writer.close()


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
    if run.info.aim_run != writer.run_hash:
        run.info.aim_run = writer.run_hash
        try:
            run.write()
        except OSError as error:
            logging.warning("Which run of Aim this is cannot be noted: %s", error)
    return writer


def _aim_repo(run: Run, track: ConfigDict) -> pathlib.Path:
    return local_path("track.repo", track.repo) if track.repo else run.workdir.absolute().parent
