"""What the commands say to a user's mistake: one line, exit code 2, and nothing written."""

import contextlib
import os
import random
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from lwgan.data.sources import open_source
from lwgan.errors import UserError
from lwgan.runs import checkpoint
from lwgan.runs.directory import record_start, resolve_run
from lwgan.training.state import build_gan, init_state
from tests import fuzz_settings
from tests.calling import call
from tests.house import ROOT

QUICKSTART = f"--config={ROOT / 'configs' / 'quickstart.py'}"
IMAGES = ["--config.data.source=folder", "--config.data.path=images"]
SMALL = [
    "--config.data.image_size=32",
    "--config.model.fmap_max=8",
    "--config.model.latent_dim=8",
    "--config.model.recon_size=16",
]
RUN = ["--workdir=run"]
OWN = [QUICKSTART, *SMALL, *IMAGES, "--workdir=run"]
NEW = [QUICKSTART, *SMALL, *IMAGES, "--workdir=new"]
# So that whatever is not refused for its flags is refused nevertheless.
IMPOSSIBLE = "--config.data.image_size=48"


def but(arguments, *others):
    """The arguments with others in the places of those of the same names."""
    names = [argument.partition("=")[0] for argument in others]
    return [*(each for each in arguments if each.partition("=")[0] not in names), *others]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with images, a run that has learnt from them, and what can go wrong."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for name in ("images/0", "images/1", "others/0", "broken/0"):
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
    config.data.update(source="folder", path=str(place / "images"), image_size=32)
    config.model.update(fmap_max=8, latent_dim=8, recon_size=16)
    fingerprint = open_source(config.data).fingerprint
    for name in ("run", "young"):
        planned = resolve_run(config, place / name, fingerprint, accept_new_data=False)
        record_start(planned, config, fingerprint, 0)
    (place / "old").mkdir()
    (place / "old" / "run.json").write_text('{"format": 0}')
    (place / "old" / "config.json").write_text("{}")
    shapes = jax.eval_shape(lambda: init_state(build_gan(config), 0))
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
    }
    # JAX sets it in this process.
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True
    )


def assert_refused(place, name, arguments, message, *, in_a_process=False):
    before = listing(place)
    if in_a_process:
        module = [ROOT / "main.py"] if name == "main" else ["-m", name]
        ended = start(place, *module, *arguments)
    else:
        with contextlib.chdir(place):
            ended = call(name, *arguments)
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
        (["--workdir=gs://a/run"], "--workdir = 'gs://a/run': must be a path of this machine"),
        ([QUICKSTART, "--workdir=hdfs://a"], "--workdir = 'hdfs://a': must be a path of this"),
        (
            ["--workdir=run", "--config.data.source=folder", "--config.data.path=s3://a/b"],
            "data.path = 's3://a/b': must be a path of this machine; mount the bucket",
        ),
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
    assert_refused(place, "main", arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.seed=1", "--config.train.seed=2"], "--config.train.seed = '2'"),
        (["--config.train.seed=1", "-config.train.seed", "1"], "--config.train.seed = '1'"),
        (["--config.augment.hflip", "--noconfig.augment.hflip"], "--config.augment.hflip = False"),
        (["--fresh", "--nofresh"], "--fresh = False"),
        (["--nofresh", "--fresh=false"], "--fresh = 'false'"),
        (["-workdir", "a", "--fresh", "--workdir=b"], "--workdir = 'b'"),
        (["--config.data.path=a", "--config.train.seed=1", QUICKSTART], f"--config = '{ROOT}"),
        # Tuples may not be put together of several flags.
        (
            ["--config.model.attn_resolutions=8", "--config.model.attn_resolutions=16"],
            "--config.model.attn_resolutions = '16'",
        ),
    ],
)
def test_a_flag_is_given_once(place, arguments, message):
    assert_refused(place, "main", [QUICKSTART, IMPOSSIBLE, *arguments], message)
    with contextlib.chdir(place):
        said = call("main", QUICKSTART, IMPOSSIBLE, *arguments).stderr
    assert re.search(r": is given twice \(first .*\); give it once\.$", said), said


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("main", [*RUN, IMPOSSIBLE, IMPOSSIBLE], f"{IMPOSSIBLE[:-3]} = '48': is given twice"),
        ("main", [*RUN, *RUN, IMPOSSIBLE], "--workdir = 'run': is given twice (first 'run'); give"),
        ("lwgan.sample", [*RUN, "--seed", "1", "--seed=2"], "--seed = '2': is given twice"),
        ("lwgan.sample", [*RUN, "--noise=zero", "--noise=fixed"], "--noise = 'fixed': is given"),
        # What follows a flag is its value, whatever it looks like.
        (
            "main",
            [QUICKSTART, "--init_from", "--fresh", "--fresh"],
            "--init_from = '--fresh': there",
        ),
        ("lwgan.sample", [*RUN, "--seed", "--seed"], "--seed = '--seed': invalid literal"),
        ("lwgan.sample", [*RUN, "--out", "--step=9", "--step=4"], "--step = 4: has no checkpoint"),
        # And what follows no flag is none.
        ("lwgan.sample", [*RUN, "--step=4", "--", "--step=5"], "argument = '--step=5': is not a"),
        ("lwgan.sample", [*RUN, "--save_npy", "no", "--step=4", "--step=5"], "argument = 'no': is"),
    ],
)
def test_what_is_a_flag_given_twice(place, name, arguments, message):
    assert_refused(place, name, arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([QUICKSTART, "--config.data.image_size=48"], "data.image_size = 48: must be a power of"),
        (
            [QUICKSTART, "--config.model.attn_resolutions=(128,)"],
            "model.attn_resolutions = 128: neither network has this size in images of 64 px",
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
            "data.path = 'empty': no image below it",
        ),
        (
            ["--workdir=new", QUICKSTART, "--config.data.source=folder", "--config.data.path=."],
            "--workdir = 'new': lies among the images of data.path",
        ),
        (
            [QUICKSTART, "--config.data.source=folder", "--config.data.path=broken"],
            "data.path = 'broken': 1 of 1 images do not decode",
        ),
        (but(OWN, "--config.model.latent_dim=9"), "model.latent_dim = 9: the run in run has 8"),
        (but(OWN, "--config.data.path=others"), "data = 'others': these are not the images"),
    ],
)
def test_training_refuses_settings(place, arguments, message):
    assert_refused(place, "main", arguments, message)


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
        (["--freeze_d=3"], "optim.freeze_d = 3: the discriminator has 2 blocks for images of 32"),
        (["--freeze_d=-1"], "--freeze_d = '-1': -1 is not a non-negative integer"),
        (["--freeze_d=few"], "--freeze_d = 'few': "),
        (["--dry_run", "--init_from=young"], "--init_from = 'young': this run has no checkpoint"),
        (["--dry_run", "--workdir=run", "--config.data.path=others"], "data = 'others': these are"),
    ],
)
def test_transfer_refuses(place, arguments, message):
    assert_refused(place, "main", but(NEW, *arguments), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir = None: must name a run directory"),
        (["--workdir=nowhere"], "--workdir = 'nowhere': there is no run in this directory"),
        (["--workdir=young"], "--workdir = 'young': this run has no checkpoint yet"),
        (["--workdir=run", "--step=4"], "--step = 4: has no checkpoint; choose from 3."),
        (["--workdir=run", "--step=all"], "--step = 'all': must be a step or latest"),
        (["--workdir=s3://a"], "--workdir = 's3://a': must be a path of this machine"),
        ([*RUN, "--out=gs://a"], "--out = 'gs://a': must be a path of this machine"),
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
    assert_refused(place, "lwgan.sample", arguments, message)


@pytest.mark.slow
def test_three_hundred_impossible_settings(place):
    """All through the command in one process, and ten of them through processes of their own."""
    before = listing(place)
    ended = start(place, "-m", "tests.fuzz_settings")
    assert (ended.returncode, ended.stdout) == (0, "300 of 300 refused in one line\n"), ended.stderr
    assert listing(place) == before
    rng = random.Random(0)
    arguments = [fuzz_settings.impossible(rng) for _ in range(300)]
    for argument in arguments[::30]:
        assert_refused(place, "main", [QUICKSTART, argument], "", in_a_process=True)


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
    assert_refused(place, f"lwgan.{command}", arguments, message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("main", [QUICKSTART, "--nosuch=1"]), ("main", ["--workdir=nowhere"])]
    + [
        (f"lwgan.{name}", ["--workdir=nowhere"])
        for name in ("sample", "interpolate", "progress", "export", "evaluate", "preview")
    ],
)
def test_processes_refuse_in_one_line_too(place, name, arguments):
    assert_refused(place, name, arguments, "", in_a_process=True)


@pytest.mark.slow
def test_without_file_locks_one_line_says_where_lwgan_runs(place):
    code = (
        f"import sys; sys.modules['fcntl'] = None\nimport main; main.main(['main', '{QUICKSTART}'])"
    )
    # Those of libraries that miss it as well.
    ended = start(place, "-W", "ignore", "-c", code)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: platform = ") and "WSL 2" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_user_error_is_one_line():
    error = UserError("--flag", "a\nb", "must be\n  one   line", "mend\tit")
    assert str(error) == "--flag = 'a\\nb': must be one line; mend it."
