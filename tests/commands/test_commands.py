"""The commands that read a run, in another directory than the code's; and the wheel."""

import contextlib
import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import lwgan
from lwgan import cli
from lwgan.errors import UserError
from lwgan.interop import artifacts
from lwgan.sampling import paths, sheets
from lwgan.sampling.sampler import to_uint8
from tests import tiny
from tests.calling import call
from tests.house import ROOT
from tests.sampling.test_video import read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("9,1, 5", [9, 1, 5]),
        ("3-4,1,4294967295", [3, 4, 1, 2**32 - 1]),
    ],
)
def test_seeds(text, expected):
    assert cli.parse_seeds("--seeds", text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "3-", "5-3", "1,,2", "1.5", "4294967296", "0-4294967295", "²"]
)
def test_texts_that_name_no_seeds(text):
    with pytest.raises(UserError, match=r"--seeds = .* write 0-63 or 1,5,9"):
        cli.parse_seeds("--seeds", text)


def start(place, name, *arguments):
    """Calls a command in a directory: the lines that it prints."""
    with contextlib.chdir(place):
        ended = call(name, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def on_one_device(path):
    """The environment of a process that imports from there."""
    return os.environ | {"PYTHONPATH": str(path), "XLA_FLAGS": tiny.xla_flags(devices=1)}


def start_process(place, path, *arguments):
    """Starts a module in a process of its own: the lines that it prints."""
    ended = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=place,
        env=on_one_device(path),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a run of three checkpoints, the second of them damaged."""
    place = tmp_path_factory.mktemp("place")
    tiny.save_run(place / "run", (2, 4, 6), tiny.config())
    damaged = place / "run" / "checkpoints" / "4" / "meta" / "metadata"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    return place


def image(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_sample(place):
    out = place / "run" / "generated"
    printed = start(place, "lwgan.sample", "--workdir=run", "--num_images=9", "--save_npy")
    folder = out / "00000006-seed0-ema"
    assert [line.split(": ")[-1] for line in printed] == [
        "run/generated/00000006-seed0-ema/00000.png … 00008.png",
        "run/generated/00000006-seed0-ema/grid.png",
        "run/generated/00000006-seed0-ema/samples.npy",
    ]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 11
    expected = lwgan.load(place / "run").sample(seed=0, num_images=9).astype(int)
    for number in range(9):
        assert np.abs(image(folder / f"{number:05d}.png") - expected[number]).max() <= 1

    # Again: beside what is there.
    printed = start(place, "lwgan.sample", "--workdir=run", "--num_images=4", "--nrow=1")
    assert image(out / "00000006-seed0-ema.1" / "grid.png").shape == (4 * 34 + 2, 36, 3)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    options = ["--seeds=3,0", "--weights=both", "--format=webp", "--step=2", "--truncation=0.5"]
    start(place, "lwgan.sample", "--workdir=run", "--out=out", "--noise=zero", *options)
    for weights in ("ema", "raw"):
        own = lwgan.load(place / "run", 2, weights)
        latents = np.concatenate([own.latents(3, 1), own.latents(0, 1)]) / 2
        expected = to_uint8(own(latents, seed=None)).astype(int)
        for name, image_of_seed in zip(["00000-seed3", "00001-seed0"], expected, strict=True):
            drawn = image(place / "out" / weights / f"{name}.webp")
            assert np.abs(drawn - image_of_seed).max() <= 1


def test_fresh_noise_is_another_each_time(place):
    for out in ("a", "b"):
        arguments = ["--workdir=run", "--noise=fresh", "--format=npy", f"--out={out}"]
        start(place, "lwgan.sample", *arguments)
        assert sorted(p.name for p in (place / out).iterdir()) == ["grid.png", "samples.npy"]
    first, second = (np.load(place / out / "samples.npy") for out in ("a", "b"))
    assert first.shape == (16, 32, 32, 3) and first.dtype == np.float32
    assert (first != second).any((1, 2, 3)).all()


def test_interpolate(place):
    arguments = ["--seeds=1,5,9", "--frames=13", "--fps=24", "--num_images=2", "--save_frames"]
    printed = start(place, "lwgan.interpolate", "--workdir=run", *arguments)
    folder = place / "run" / "videos" / "00000006-seeds1-5-9-ema"
    assert [place / line for line in printed] == [
        folder / name for name in ("interpolation.mp4", "sheet.png", "frames")
    ]
    information, seen = read(folder / "interpolation.mp4")
    assert (information["codec"], information["fps"], len(seen)) == ("h264", 24, 13)
    frames = [image(path).astype(int) for path in sorted((folder / "frames").iterdir())]
    assert len(frames) == 13
    np.testing.assert_array_equal(frames[0], frames[-1])
    assert all((frame != following).any() for frame, following in itertools.pairwise(frames))
    own = lwgan.load(place / "run")
    keyframes = np.stack([own.latents(seed, 2) for seed in (1, 5, 9)])
    drawn = [to_uint8(own(each, seed=1)).astype(int) for each in keyframes]
    for tile in range(2):
        _, stops = paths.closed_loop(keyframes[:, tile], 13)
        for images, stop in zip(drawn, stops[:-1], strict=True):
            seen = frames[stop][2:34, 2 + 34 * tile :][:, :32]
            assert np.abs(seen - images[tile]).max() <= 1
    assert image(folder / "sheet.png").shape == (3 * (20 + 36), 8 * 34 + 2, 3)


def test_progress_leaves_out_what_is_damaged(place, caplog):
    printed = start(place, "lwgan.progress", "--workdir=run", "--num_images=9", "--format=gif")
    folder = place / "run" / "videos" / "00000006-progress-seed0-ema"
    assert [place / line for line in printed] == [folder / "progress.gif", folder / "sheet.png"]
    assert "Checkpoint 4 is damaged" in caplog.text
    with Image.open(folder / "progress.gif") as video:
        assert video.n_frames == 2 and video.info["duration"] == 250
    sheet = image(folder / "sheet.png").astype(int)
    assert sheet.shape == (2 * (20 + 36), 8 * 34 + 2, 3)
    for row, step in enumerate((2, 6)):
        drawn = lwgan.load(place / "run", step).sample(seed=0, num_images=9)[:8]
        strip = sheet[row * 56 + 20 : (row + 1) * 56]
        assert np.abs(strip - sheets.make_grid(drawn, 8)).max() <= 1


def test_export(place):
    printed = start(place, "lwgan.export", "--workdir=run")
    folder = place / "run" / "export" / "00000006-ema"
    names = ["generator.stablehlo", "generator.safetensors"]
    own = lwgan.load(place / "run")
    readers = (artifacts.read_stablehlo, artifacts.read_safetensors)
    for line, name, reader in zip(printed, names, readers, strict=True):
        size = (folder / name).stat().st_size / 1e6
        assert re.fullmatch(rf"run/export/00000006-ema/{name}  {size:.2f} MB, differs by .*", line)
        assert artifacts.difference(reader(folder / name), own) < 1e-5
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


def test_help_begins_with_what_the_command_does_and_shows_its_flags():
    """All in one process: no command's flags are in another's way."""
    names = ("sample", "interpolate", "progress", "export", "evaluate", "preview")
    for name in (*names, "explore", "directions", "project"):
        ended = call(f"lwgan.{name}", "--help")
        module = importlib.import_module(f"lwgan.{name}")
        assert ended.returncode == 0 and ended.stdout.startswith(module.__doc__.strip()), name
        assert "--workdir" in ended.stdout, name
    assert "dry_run" in call("main", "--help").stdout
    assert "--save_every" in call("lwgan.import_torch", "-h").stdout


@pytest.mark.slow
def test_the_wheel_works_elsewhere(place, tmp_path):
    """Built without the network: its dependencies are those of this environment."""
    # A build leaves files where it is.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "lwgan", source / "lwgan")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    wheel = [
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        f"--wheel-dir={tmp_path}",
        str(source),
    ]
    start_process(tmp_path, ROOT, *wheel)
    (built,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    start_process(tmp_path, ROOT, "pip", "install", "--no-deps", f"--target={site}", built)
    # Somebody else's package of that name, first in the path of every command.
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "configs").mkdir(parents=True)
    (elsewhere / "configs" / "__init__.py").write_text("raise ImportError('not lwgan's')\n")
    settings = {
        "data": {"source": "openmoji", "image_size": 32},
        "model": {"latent_dim": 8, "fmap_max": 8, "recon_size": 16, "attn_resolutions": ()},
        "train": {"num_steps": 4, "batch_size": 4, "grad_accum": 1, "log_every": 1},
        "track": {"aim": False},
        "eval": {"features": "efficientnet_lite0", "num_images": 8},
    }
    script = elsewhere / "script.py"
    script.write_text(
        "import lwgan; from lwgan.runs import log; log.start()\n"
        f"config = lwgan.default_config(); config.update({settings!r})\n"
        "print(lwgan.__file__, int(lwgan.train(config, 'run').step))\n"
        "print(lwgan.load('run').sample(seed=7, num_images=2).shape)\n"
    )
    trained = subprocess.run(
        [sys.executable, script],
        cwd=elsewhere,
        env=on_one_device(site),
        capture_output=True,
        text=True,
    )
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-2:] == [
        f"{site / 'lwgan' / '__init__.py'} 4",
        "(2, 32, 32, 3)",
    ]
    # Installed, lwgan's own messages are shown as well as in a checkout.
    assert "step 4  " in trained.stderr
    options_of = {"interpolate": ["--frames=5"], "directions": ["--num_directions=2"]}
    for name in ("sample", "progress", "interpolate", "export", "directions"):
        options = options_of.get(name, [])
        arguments = ["--workdir=run", f"--out={name}", *options]
        start_process(elsewhere, site, f"lwgan.{name}", *arguments)
        assert list((elsewhere / name).iterdir())
    # The page comes with it.
    for name in ("page.html", "page.css", "page.js"):
        own, installed = (path / "lwgan" / "page" / name for path in (ROOT, site))
        assert installed.read_bytes() == own.read_bytes()
    printed = start_process(elsewhere, site, "lwgan.evaluate", "--workdir=run")
    assert printed[1].split()[:2] == ["step", "kid"]
