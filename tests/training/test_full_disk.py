"""A disk that fills up: training ends in one line, with whole checkpoints, and goes on later."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import pytest

from lwgan.runs import manifest
from tests import kill_training

MIB = 2**20
# As many steps does a run have, and seconds to end in.
STEPS, SECONDS = 12, 60


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, where one may have that."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40M", "none", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: pathlib.Path, left: int) -> None:
    """Leaves so many bytes of the disk."""
    free = os.statvfs(disk)
    # The process takes its part of what is free meanwhile.
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        file.write(bytes(max(0, free.f_bavail * free.f_bsize - left)))


def steps_of(workdir: pathlib.Path) -> int:
    try:
        return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0


def start(workdir: pathlib.Path, aim: str) -> subprocess.Popen:
    """``aim`` is the folder of its repository; empty: TensorBoard files instead."""
    tracked = {"track__repo": aim} if aim else {"track__aim": False}
    return kill_training.start(
        workdir, STEPS, sample__every=3, sample__grid="(2,2)", checkpoint__keep_last=2, **tracked
    )


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A run that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("quiet") / "run"
    kill_training.finish(start(workdir, ""))
    return workdir


# Where Aim writes, when the disk is filled, and how much is left then.
SCENES = {
    "before a save, Aim beside it": ("disk", 5, 0),
    "at the end, without Aim": ("", STEPS - 2, 0),
}
# The others: LWGAN_ALL_SCENES=1.
if os.environ.get("LWGAN_ALL_SCENES"):
    SCENES |= {
        "before a save, without Aim": ("", 5, 0),
        "during a save, Aim elsewhere": ("elsewhere", 5, 150_000),
        "during a save, Aim beside it": ("disk", 5, 150_000),
        "at the end, Aim beside it": ("disk", STEPS - 2, 0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_full_disk_ends_the_run_in_one_line_and_costs_no_checkpoint(disk, tmp_path, quiet, scene):
    where, step, left = SCENES[scene]
    aim = str({"": "", "disk": disk, "elsewhere": tmp_path / "aim"}[where])
    workdir = disk / "runs" / "run"
    process = start(workdir, aim)
    while steps_of(workdir) < step:
        assert process.poll() is None, process.stderr.read()
    # It must not be at its end before the disk is full.
    process.send_signal(signal.SIGSTOP)
    fill(disk, left)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith("error: checkpoints = ")
    assert "cannot be written to" in errors.splitlines()[-1] and "Traceback" not in errors
    saved = [step for step in manifest.saved_steps(workdir) if not manifest.damage(workdir, step)]
    assert saved and max(saved) >= step - 3

    (disk / "filler").unlink()
    kill_training.finish(start(workdir, aim))
    kill_training.compare(quiet, workdir)


@pytest.mark.slow
def test_where_only_aims_disk_is_full_training_goes_on(disk, tmp_path, quiet):
    workdir = tmp_path / "runs" / "run"
    process = start(workdir, str(disk / "aim"))
    while steps_of(workdir) < 3:
        assert process.poll() is None, process.stderr.read()
    fill(disk, 0)
    _, errors = process.communicate(timeout=SECONDS + 60)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    kill_training.compare(quiet, workdir)
