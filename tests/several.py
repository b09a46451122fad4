"""Trains a tiny run in several processes of virtual devices, over loopback."""

import pathlib
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from tests import kill_training, tiny

# With all but the penalty: augmentation, attention, held-out images, evaluation, samples.
SETTINGS = dict(
    train__batch_size=8,
    train__grad_accum=1,
    loss__aux_weight=1.0,
    data__holdout=0.1,
    model__side_attention=False,
    model__attn_resolutions="(8,)",
    model__attn_heads=2,
    model__attn_head_dim=4,
    checkpoint__every=5,
    checkpoint__keep_last=9,
    sample__every=10,
    sample__grid="(2,2)",
    eval__every=10,
    eval__num_images=9,
    eval__features="efficientnet_lite0",
    track__aim=False,
)
PATIENCE = 600


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    errors: str


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def start(
    workdir: pathlib.Path,
    num_steps: int,
    processes: int,
    devices: int,
    cache: pathlib.Path,
    of_last: Mapping[str, object] = {},
    **overrides: object,
) -> list[subprocess.Popen]:
    """So many processes of so many devices each; the last one has settings of its own."""
    coordinator, options = f"127.0.0.1:{free_port()}", SETTINGS | overrides
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", tiny.xla_flags(devices))
        for index in range(processes):
            # What images look like is measured by their means.
            watched = workdir.parent / f"process{index}"
            watched.mkdir(parents=True, exist_ok=True)
            several = (
                f"--coordinator={coordinator}",
                f"--num_processes={processes}",
                f"--process_id={index}",
            )
            started.append(
                kill_training.start(
                    workdir,
                    num_steps,
                    *(several if processes > 1 else ()),
                    program=("-m", "tests.watched_training", str(watched)),
                    cache=cache,
                    fills_cache=True,
                    **(options | of_last if index == processes - 1 else options),
                )
            )
    return started


def end(started: Sequence[subprocess.Popen]) -> list[Ended]:
    """Waits for all of them."""
    said = [process.communicate(timeout=PATIENCE)[1] for process in started]
    return [
        Ended(process.returncode, errors) for process, errors in zip(started, said, strict=True)
    ]


def finish(started: Sequence[subprocess.Popen]) -> None:
    """Waits for processes that must end well."""
    for ended in end(started):
        assert ended.code == 0, ended.errors
