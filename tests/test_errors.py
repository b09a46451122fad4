"""What the commands say to a user's mistake: one line, exit code 2, and nothing written."""

import os
import pathlib
import random
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from lwgan import checkpoint, run, sources, state
from lwgan.errors import UserError
from tests import fuzz_settings

pytestmark = pytest.mark.slow  # each case starts a process, for one to five seconds

ROOT = pathlib.Path(run.__file__).parents[1]
QUICKSTART = f"--config={ROOT / 'configs' / 'quickstart.py'}"
PICTURES = ["--config.data.source=folder", "--config.data.path=pictures"]
SMALL = [
    "--config.data.image_size=32",
    "--config.model.fmap_max=8",
    "--config.model.latent_dim=8",
    "--config.model.recon_size=16",
]
RUN = ["--workdir=run"]
OWN = [QUICKSTART, *SMALL, *PICTURES, "--workdir=run"]
NEW = [QUICKSTART, *SMALL, *PICTURES, "--workdir=new"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with pictures, a run that has learnt from them, and what can go wrong."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for name in ("pictures/0", "pictures/1", "others/0", "broken/0"):
        path = place / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    (place / "broken" / "0.png").write_bytes((place / "broken" / "0.png").read_bytes()[:200])
    (place / "empty").mkdir()
    (place / "wrong.py").write_text("def get_config():\n    raise ValueError\n")
    np.save(place / "short.npy", np.zeros((3, 7), np.float32))
    np.save(place / "letters.npy", np.full((3, 8), "a"))
    np.save(place / "infinite.npy", np.full((3, 8), np.inf))

    config = quickstart.get_config()
    config.data.update(source="folder", path=str(place / "pictures"), image_size=32)
    config.model.update(fmap_max=8, latent_dim=8, recon_size=16)
    fingerprint = sources.open_source(config.data).fingerprint
    for name in ("run", "young"):
        planned = run.plan(config, place / name, fingerprint, accept_new_data=False)
        run.open_for_training(planned, config, fingerprint, 0)
    (place / "old").mkdir()
    (place / "old" / "run.json").write_text('{"format": 0}')
    (place / "old" / "config.json").write_text("{}")
    shapes = jax.eval_shape(lambda: state.init_state(state.build(config), 0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with checkpoint.Saver(place / "run", config.checkpoint) as saver:
        saver.save(zeros.replace(step=np.int32(3)), {}, config)
    return place


def listing(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def start(place, *command):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # JAX sets it in this process
    return subprocess.run(
        [sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True
    )


def assert_refused(place, command, message):
    before = listing(place)
    ended = start(place, *command)
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(f"error: {message}"), ended.stderr
    assert ended.returncode == 2
    assert listing(place) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config = None: must name a file of settings"),
        (["--config=configs/nowhere.py"], "--config = 'configs/nowhere.py': there is no such file"),
        (["--config=wrong.py"], "--config = 'wrong.py': ValueError"),
        ([f"{QUICKSTART}:7"], f"{QUICKSTART[:8]} = '{QUICKSTART[9:]}:7': TypeError: get_config()"),
        (["--workdir=nowhere"], "--workdir = 'nowhere': there is no run in this directory"),
        ([QUICKSTART, "--nosuch=1"], "--nosuch = '1': Unknown command line flag 'nosuch'"),
        ([QUICKSTART, "extra"], "argument = 'extra': is not a flag"),
        (
            [QUICKSTART, "--config.train.seed=1", "--config.train.bach_size=3"],
            "--config.train.bach_size = '3': Did you mean \"batch_size\"",
        ),
        (
            [QUICKSTART, "--config.train.seed=1", "--config.trian.batch_size=3"],
            "--config.trian.batch_size = '3': Did you mean \"train\"",
        ),
        (
            ["--workdir=run", "--config.train.seed=1", "--config.model.zzz=3"],
            "--config.model.zzz = '3': there is no setting 'zzz'",
        ),
        (
            [QUICKSTART, "--config.train.seed=1", "--config.train.batch_size=many"],
            "--config.train.batch_size = 'many': invalid literal for int() with base 10: 'many'; ",
        ),
    ],
)
def test_training_refuses_flags(place, arguments, message):
    assert_refused(place, [ROOT / "main.py", *arguments], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([QUICKSTART, "--config.data.image_size=48"], "data.image_size = 48: must be a power of"),
        (
            [QUICKSTART, "--config.model.attn_resolutions=(128,)"],
            "model.attn_resolutions = 128: neither network has this size in pictures of 64 px",
        ),
        (
            [QUICKSTART, "--config.train.batch_size=6"],
            "train.batch_size = 6: must be a multiple of 4 devices × 1 micro-batches; use 8.",
        ),
        (
            [QUICKSTART, "--config.data.source=folder", "--config.data.path=nowhere"],
            "data.path = 'nowhere': there is no such folder",
        ),
        (
            [QUICKSTART, "--config.data.source=folder", "--config.data.path=empty"],
            "data.path = 'empty': no .jpg",
        ),
        (
            [QUICKSTART, "--config.data.source=folder", "--config.data.path=broken"],
            "data.path = 'broken': 1 of 1 pictures do not decode",
        ),
        ([*OWN, "--config.model.latent_dim=9"], "model.latent_dim = 9: the run in run has 8"),
        ([*OWN, "--config.data.path=others"], "data = 'others': these are not the pictures"),
    ],
)
def test_training_refuses_settings(place, arguments, message):
    assert_refused(place, [ROOT / "main.py", *arguments], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init_from=nowhere"], "--init_from = 'nowhere': there is no run in this directory"),
        (["--init_from=young"], "--init_from = 'young': this run has no checkpoint yet"),
        (["--init_from=old"], "--init_from = 'old': this run has format 0, this lwgan reads 1"),
        (["--init_from=run", "--workdir=run"], "--init_from = 'run': the run in run began afresh"),
        (
            ["--init_from=run", "--workdir=run", "--fresh"],
            "--init_from = 'run': is the run that is to start; name another.",
        ),
        (
            ["--init_from=run", "--config.data.mode=grey"],
            "data.mode = 'grey': the run of --init_from=run has 'rgb'; use that, or another run.",
        ),
        (
            ["--init_from=run", "--config.model.latent_dim=9"],
            "model.latent_dim = 9: the run of --init_from=run has 8; use that, or another run.",
        ),
        (["--freeze_d=3"], "optim.freeze_d = 3: the discriminator has 2 blocks for pictures of 32"),
        (["--freeze_d=-1"], "--freeze_d = '-1': -1 is not a non-negative integer"),
        (["--freeze_d=few"], "--freeze_d = 'few': "),
        (["--dry_run", "--init_from=young"], "--init_from = 'young': this run has no checkpoint"),
        (["--dry_run", "--workdir=run", "--config.data.path=others"], "data = 'others': these are"),
    ],
)
def test_transfer_refuses(place, arguments, message):
    assert_refused(place, [ROOT / "main.py", *NEW, *arguments], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir = None: must name a run directory"),
        (["--workdir=nowhere"], "--workdir = 'nowhere': there is no run in this directory"),
        (["--workdir=young"], "--workdir = 'young': this run has no checkpoint yet"),
        (["--workdir=run", "--step=4"], "--step = 4: has no checkpoint; choose from 3."),
        (["--workdir=run", "--seed=-1"], "--seed = '-1': -1 is not an integer in the range"),
        (["--workdir=run", "--latents=nowhere.npy"], "--latents = 'nowhere.npy': must be an .npy"),
        (["--workdir=run", "--latents=wrong.py"], "--latents = 'wrong.py': must be an .npy file"),
        (
            ["--workdir=run", "--latents=short.npy"],
            "--latents = 'short.npy': must be an .npy file of numbers (B, 8); its shape is (3, 7).",
        ),
        ([*RUN, "--latents=letters.npy"], "--latents = 'letters.npy': must be an .npy file"),
        ([*RUN, "--latents=infinite.npy"], "--latents = 'infinite.npy': must be an .npy file"),
        ([*RUN, "--seeds=5-3"], "--seeds = '5-3': must be at most 1000000 numbers from 0"),
        ([*RUN, "--seeds=1,2", "--latents=short.npy"], "--seeds = '1,2': there are --latents"),
        ([*RUN, "--out=wrong.py/out"], "--out = 'wrong.py/out': cannot be made (Not a directory)"),
        (["--workdir=old"], "--workdir = 'old': this run has format 0, this lwgan reads 1 up to"),
    ],
)
def test_sampling_refuses(place, arguments, message):
    assert_refused(place, ["-m", "lwgan.sample", *arguments], message)


def test_three_hundred_impossible_settings(place):
    """All through the command in one process, and ten of them through processes of their own."""
    before = listing(place)
    ended = start(place, "-m", "tests.fuzz_settings")
    assert (ended.returncode, ended.stdout) == (0, "300 of 300 refused in one line\n"), ended.stderr
    assert listing(place) == before
    rng = random.Random(0)
    arguments = [fuzz_settings.impossible(rng) for _ in range(300)]
    for argument in arguments[::30]:
        assert_refused(place, [ROOT / "main.py", QUICKSTART, argument], "")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("interpolate", [], "--workdir = None: must name a run directory"),
        ("interpolate", [*RUN, "--step=4"], "--step = 4: has no checkpoint; choose from 3."),
        ("interpolate", [*RUN, "--seeds=a"], "--seeds = 'a': must be at most"),
        ("interpolate", [*RUN, "--seeds=4,4"], "--seeds = '4,4': must be two different ones"),
        ("interpolate", [*RUN, "--frames=4"], "--frames = 4: must be more than the 4 seeds"),
        ("interpolate", [*RUN, "--out=wrong.py"], "--out = 'wrong.py': cannot be made"),
        ("progress", ["--workdir=young"], "--workdir = 'young': this run has no checkpoint yet"),
        ("progress", [*RUN, "--out=wrong.py"], "--out = 'wrong.py': cannot be made"),
        ("export", ["--workdir=young"], "--workdir = 'young': this run has no checkpoint yet"),
        ("export", [*RUN, "--step=4"], "--step = 4: has no checkpoint; choose from 3."),
        ("export", [*RUN, "--out=wrong.py"], "--out = 'wrong.py': cannot be made"),
    ],
)
def test_commands_of_a_run_refuse(place, command, arguments, message):
    assert_refused(place, ["-m", f"lwgan.{command}", *arguments], message)


def test_user_error_is_one_line():
    error = UserError("--flag", "a\nb", "must be\n  one   line", "mend\tit")
    assert str(error) == "--flag = 'a\\nb': must be one line; mend it."
