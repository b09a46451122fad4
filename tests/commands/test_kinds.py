"""The commands on a run whose images are not square and have labels."""

import json

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

import lwgan
from lwgan.interop import artifacts
from lwgan.sampling.sheets import make_grid
from tests import drawn, tiny
from tests.calling import call

NAMES = ("fast cars", "boats")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    for number in range(6):
        path = root / "images" / NAMES[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.noise(number, (60, 40)).save(path)
    tiny.save_run(
        root / "run",
        (2, 4),
        tiny.config(
            data__source="folder",
            data__path=str(root / "images"),
            data__image_size="32x48",
            data__labels="folders",
            data__label_names=NAMES,
        ),
    )
    return root / "run"


def done(name, *arguments):
    ended = call(name, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refused(name, *arguments):
    ended = call(name, *arguments)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    return line


def image(path):
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_a_row_of_samples_for_each_label(workdir):
    done("lwgan.sample", f"--workdir={workdir}", "--label=all", "--num_images=3")
    folder = workdir / "generated" / "00000004-seed0-ema-all"
    trained = lwgan.load(workdir)
    rows = [trained.sample(num_images=3, label=name) for name in NAMES]
    assert rows[0].shape == (3, 32, 48, 3)
    for name, row in zip(["fast_cars", "boats"], rows, strict=True):
        for number, expected in enumerate(row):
            found = image(folder / f"{name}-{number:05d}.png")
            np.testing.assert_allclose(found.astype(int), expected, atol=1)
    grid = image(folder / "grid.png")
    np.testing.assert_allclose(grid.astype(int), make_grid(np.concatenate(rows), 3), atol=1)


def test_samples_of_one_label(workdir):
    done("lwgan.sample", f"--workdir={workdir}", "--label=boats", "--num_images=2")
    by_name = workdir / "generated" / "00000004-seed0-ema-boats"
    done("lwgan.sample", f"--workdir={workdir}", "--label=1", "--num_images=2", "--noise=zero")
    assert (workdir / "generated" / "00000004-seed0-ema-1-noise0" / "00001.png").exists()
    expected = lwgan.load(workdir).sample(num_images=2, label=1)
    np.testing.assert_allclose(image(by_name / "00001.png").astype(int), expected[1], atol=1)


@pytest.mark.parametrize("label", ["planes", "2", "boats,planes", ""])
@pytest.mark.parametrize("command", ["sample", "interpolate", "progress"])
def test_a_wrong_label_is_one_line(workdir, tmp_path, command, label):
    line = refused(f"lwgan.{command}", f"--workdir={workdir}", f"--label={label}")
    assert "is none of the run's; choose from fast cars, boats, or 0 to 1." in line


def test_a_label_of_a_run_without_is_one_line(tmp_path):
    tiny.save_run(tmp_path / "run", (2,), tiny.config())
    line = refused("lwgan.sample", f"--workdir={tmp_path / 'run'}", "--label=boats")
    assert line == "error: label = 'boats': the run has no labels; leave it out."


def test_films_go_from_label_to_label(workdir):
    done("lwgan.interpolate", f"--workdir={workdir}", "--label=0,1", "--frames=9", "--num_images=1")
    folder = workdir / "videos" / "00000004-seeds0-1-2-3-ema-0_1"
    assert (folder / "interpolation.mp4").stat().st_size
    done("lwgan.progress", f"--workdir={workdir}", "--label=boats", "--num_images=2")
    folder = workdir / "videos" / "00000004-progress-seed0-ema-boats"
    sheet = image(folder / "sheet.png")
    assert sheet.shape == (2 * (20 + 36), 2 * 50 + 2, 3)


def test_the_exported_function_takes_labels(workdir):
    done("lwgan.export", f"--workdir={workdir}")
    folder = workdir / "export" / "00000004-ema"
    trained = lwgan.load(workdir)
    latents = np.asarray(trained.latents(0, 3))
    labels = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    exported = export.deserialize(bytearray((folder / "generator.stablehlo").read_bytes()))
    found = exported.call(latents, np.uint32(7), labels)
    expected = trained(latents, 7, labels=labels)
    np.testing.assert_allclose(jax.device_get(found), expected, atol=1e-5)
    again = artifacts.read_safetensors(folder / "generator.safetensors")
    np.testing.assert_array_equal(again(latents, 7, labels=labels), expected)
    assert again.label_names == NAMES


def test_evaluation_draws_labels_as_the_images_have_them(workdir, tmp_path):
    # Too few images for figures: doubled.
    for number in range(6, 20):
        drawn.noise(number, (60, 40)).save(workdir.parent / "images" / NAMES[1] / f"{number}.png")
    out = f"--out={tmp_path / 'figures'}"
    features = ("--features=efficientnet_lite0", "--num_images=10", "--report")
    done("lwgan.evaluate", f"--workdir={workdir}", *features, out)
    (record,) = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    assert record["num_reals"] == 20
    assert record["kid"] > 0


def test_the_preview_counts_labels(workdir, tmp_path):
    said = done("lwgan.preview", f"--workdir={workdir}", f"--out={tmp_path / 'a.png'}")
    assert "2 labels: fast cars 3, boats " in said
    assert image(tmp_path / "a.png").shape[1] == 8 * 50 + 2


def test_wrong_shapes_and_labels_are_one_line(workdir, tmp_path):
    config = f"--workdir={workdir}"
    line = refused("main", "--config=configs/quickstart.py", "--config.data.image_size=48x64x3")
    assert (
        "data.image_size = '48x64x3': must be a power of two from 32 to 1024, or height x" in line
    )
    line = refused("main", config, "--config.data.labels=kinds")
    assert "data.labels = 'kinds': must be none, folders, tfds, or a .json or .csv file" in line
    line = refused("main", config, "--config.data.labels=none")
    assert "the run has learnt with the labels fast cars, boats; keep that, or name another" in line
