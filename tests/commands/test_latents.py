"""Directions and projections through their commands."""

import numpy as np
import pytest
from PIL import Image

from tests import drawn, tiny
from tests.calling import call
from tests.sampling.test_video import read


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    tiny.save_run(root / "run", (2, 4), tiny.config(model__output="tanh"))
    return root / "run"


def test_directions_and_their_strips(workdir):
    arguments = [f"--workdir={workdir}", "--num_directions=2", "--seeds=0,5", "--reach=0.5"]
    ended = call("lwgan.directions", *arguments)
    assert ended.returncode == 0, ended.stderr
    folder = workdir / "directions" / "00000004-ema"
    names = ["directions.npy", "names.txt", "sheet.png"]
    assert ended.stdout.splitlines() == [str(folder / name) for name in names]
    strips = ["factor-1.png", "factor-2.png", "component-1.png", "component-2.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names + strips)
    # Two rows of seven images, of which those in the middle are the seeds' own.
    ended = call("lwgan.sample", f"--workdir={workdir}", "--seeds=0,5")
    assert ended.returncode == 0, ended.stderr
    own = workdir / "generated" / "00000004-seeds0,5-ema"
    vectors = np.load(folder / "directions.npy")
    for strip, vector in zip(strips, vectors, strict=True):
        with Image.open(folder / strip) as opened:
            strip = np.asarray(opened)
        assert strip.shape == (2 * 34 + 2, 7 * 34 + 2, 3)
        assert abs(np.linalg.norm(vector) - 1) < 1e-6
        for row, seed in enumerate((0, 5)):
            with Image.open(own / f"{row:05d}-seed{seed}.png") as opened:
                middle = strip[2 + 34 * row :, 2 + 34 * 3 :][:32, :32]
                assert np.abs(middle - np.asarray(opened, int)).max() <= 1


def test_the_ends_of_a_strip_are_as_far_as_asked_for(workdir, tmp_path):
    again = [f"--workdir={workdir}", "--num_directions=1", "--seeds=5", f"--out={tmp_path / 'd'}"]
    assert call("lwgan.directions", *again, "--reach=0.5").returncode == 0
    latent = tiny_latent(workdir, 5) - 0.5 * np.sqrt(8) * np.load(tmp_path / "d/directions.npy")[1]
    np.save(tmp_path / "latent.npy", latent[None].astype(np.float32))
    drawn_ = [f"--workdir={workdir}", f"--latents={tmp_path / 'latent.npy'}", "--seed=5"]
    assert call("lwgan.sample", *drawn_, f"--out={tmp_path / 's'}").returncode == 0
    with Image.open(tmp_path / "d/component-1.png") as strip:
        with Image.open(tmp_path / "s/00000.png") as alone:
            left = np.asarray(strip, int)[2:34, 2:34]
            assert np.abs(left - np.asarray(alone, int)).max() <= 1


def tiny_latent(workdir, seed):
    import lwgan

    return np.asarray(lwgan.load(workdir).latents(seed, 1))[0]


def test_projections_of_a_folder(workdir, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        drawn.noise(number, (50, 40)).save(tmp_path / "in" / f"face {number}.png")
    effort = ["--candidates=16", "--starts=2", "--steps=20"]
    ended = call("lwgan.project", f"--workdir={workdir}", f"--image={tmp_path / 'in'}", *effort)
    assert ended.returncode == 0, ended.stderr
    folder = workdir / "projections" / "00000004-in"
    images = ["00000-face_0.png", "00001-face_1.png"]
    others = ["latents.npy", "noise.npz", "search.mp4", "sheet.png"]
    assert sorted(path.name for path in folder.iterdir()) == images + others
    assert np.load(folder / "latents.npy").shape == (2, 8)
    noise = np.load(folder / "noise.npz")
    assert {name: noise[name].shape for name in noise} == {
        str(size): (2, size, size, 1) for size in (8, 16, 32)
    }
    # Two checks, and a second on the last.
    assert len(read(folder / "search.mp4")[1]) == 2 + 10


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("project", [], "--image = None: must name what is to be found"),
        ("project", ["--image=missing.png"], "--image = 'missing.png': there is no such image"),
        ("project", ["--image=missing"], "--image = 'missing': there is no such image or folder"),
        ("project", ["--image=x.png", "--label=boats"], "label"),
        ("directions", ["--num_directions=9"], "num_directions = 9: must be at most 8"),
        ("directions", ["--seeds=a"], "--seeds = 'a': must be at most"),
        ("directions", ["--step=3"], "--step = 3: has no checkpoint; choose from 2, 4"),
    ],
)
def test_what_is_refused(workdir, command, arguments, message):
    ended = call(f"lwgan.{command}", f"--workdir={workdir}", *arguments)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert message in line
