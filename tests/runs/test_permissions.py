"""Run directories that may only be read, and no home: tried without what root may do."""

import os
import subprocess
import sys

import pytest

from tests import kill_training, tiny
from tests.house import ROOT

# Root without its capabilities is a user like others.
WITHOUT_RIGHTS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a run that may only be read, and with a closed home."""
    root = tmp_path_factory.mktemp("permissions")
    settings = tiny.config(train__num_steps=3, sample__every=0)
    settings.eval.update(num_images=9, features="efficientnet_lite0", metrics=("kid",))
    tiny.save_run(root / "run", (3,), settings)
    (root / "closed" / "run").mkdir(parents=True)
    (root / "full").mkdir()
    closed = {root / "closed": 0o000, root / "full": 0o555, root / "run": 0o555}
    closed |= {path: 0o555 if path.is_dir() else 0o444 for path in (root / "run").rglob("*")}
    for path, mode in closed.items():
        path.chmod(mode)
    yield root
    for path in closed:
        if path.is_dir():
            path.chmod(0o755)


def as_user(place, *arguments, home=None):
    """A command of a user who has no rights but those of the modes of files."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    if home is not None:
        environment["HOME"] = str(home)
    return subprocess.run(
        [*(WITHOUT_RIGHTS if os.geteuid() == 0 else []), sys.executable, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module", autouse=True)
def rights(place):
    code = f"open({str(place / 'full' / 'file')!r}, 'w')"
    try:
        ended = as_user(place, "-c", code)
    except FileNotFoundError:
        pytest.skip("there is no setpriv here")
    if "PermissionError" not in ended.stderr:
        pytest.skip("rights cannot be laid down here")


def listing(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.slow
def test_a_start_that_may_not_write_says_so_first(place):
    before = listing(place / "run")
    ended = as_user(place, "-m", "main", f"--workdir={place / 'run'}")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert (
        f"error: --workdir = '{place / 'run'}': cannot be written to (Permission denied); have"
        in (ended.stderr)
    )
    # Nothing has been read.
    assert ended.stdout == "" and listing(place / "run") == before


@pytest.mark.slow
def test_a_new_run_where_one_may_not_write(place):
    ended = as_user(
        place, "-m", "main", f"--config={ROOT}/configs/quickstart.py", f"--workdir={place}/full/run"
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "cannot be written to (Permission denied)" in ended.stderr and ended.stdout == ""


@pytest.mark.slow
def test_a_directory_that_may_not_be_looked_into(place):
    for command in ("main", "lwgan.sample"):
        ended = as_user(place, "-m", command, f"--workdir={place / 'closed' / 'run'}")
        assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
        assert "cannot be looked into (Permission denied)" in ended.stderr


@pytest.mark.slow
def test_without_a_home_a_run_that_may_only_be_read_is_measured(place):
    """The table is printed, and that it is not written; --out works, as it does for sampling."""
    before = listing(place / "run")
    out, options = place / "out", {"home": place / "closed"}
    read_only = ["--workdir", str(place / "run"), "--metrics=kid"]
    ended = as_user(place, "-m", "lwgan.evaluate", *read_only, "--noreport", **options)
    assert ended.returncode == 0, ended.stderr
    assert "kid" in ended.stdout.splitlines()[0] and "Traceback" not in ended.stderr
    assert "The figures of step 3 are not written: " in ended.stderr
    ended = as_user(place, "-m", "lwgan.evaluate", *read_only, f"--out={out}/figures", **options)
    assert ended.returncode == 0 and "not written" not in ended.stderr, ended.stderr
    assert (out / "figures" / "metrics.json").is_file()
    assert len(list((out / "figures").glob("generated/*/nearest.png"))) == 1
    ended = as_user(
        place, "-m", "lwgan.sample", read_only[0], read_only[1], f"--out={out}/samples", **options
    )
    assert ended.returncode == 0, ended.stderr
    assert (out / "samples" / "grid.png").is_file()
    assert listing(place / "run") == before


@pytest.mark.slow
def test_training_asks_for_no_home(place):
    """But where images are to be kept on disk."""
    mine, options = place / "mine", {"home": place / "closed"}
    settings = kill_training.SETTINGS | {"train.num_steps": 1}
    command = ["-m", "main", f"--config={ROOT}/configs/quickstart.py"]
    command += [f"--config.{name}={value}" for name, value in settings.items()]
    ended = as_user(place, *command, f"--workdir={mine}/run", **options)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    ended = as_user(
        place, *command, f"--workdir={mine}/disk", "--config.data.cache=disk", **options
    )
    assert ended.returncode == 2, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "XDG_CACHE_HOME" in line and not (mine / "disk").exists()
