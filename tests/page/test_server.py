"""The page's server, without a browser: what it draws, and whom it refuses."""

import base64
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import psutil
import pytest
from PIL import Image
from werkzeug.test import Client

from lwgan.data.decode import middle, read_image
from lwgan.data.folder import open_image
from lwgan.latents import directions
from lwgan.page import server, studio
from lwgan.page.reals import open_reals
from lwgan.runs.directory import read_run
from lwgan.sampling.trained import load_step
from lwgan.settings.shapes import shape_of
from tests import drawn, tiny
from tests.calling import call
from tests.house import ROOT

TOKEN = "t0ken"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    for number in range(12):
        path = root / "images" / ("boats, small", "cars")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.noise(number, (40, 40)).save(path)
    settings = tiny.config(
        data__source="folder",
        data__path=str(root / "images"),
        data__labels="folders",
        data__label_names=("boats, small", "cars"),
    )
    tiny.save_run(root / "a run", (2, 4), settings)
    run = read_run(root / "a run")
    folder = run.workdir / "directions" / "00000004-ema"
    folder.mkdir(parents=True)
    found = directions.find_directions(load_step(run, 4, "ema"), 2)
    directions.write_directions(folder, found)
    return run.workdir


@pytest.fixture(scope="module")
def client(workdir):
    return Client(server.Application(studio.Studio(workdir), TOKEN, "127.0.0.1"))


def post(client, name, asked, **how):
    data = asked if isinstance(asked, bytes) else json.dumps(asked)
    how = {"base_url": "http://127.0.0.1:8130"} | how
    return client.post(f"/{TOKEN}/{name}", data=data, **how)


SCENES = {
    "a seed": {"images": [{"seed": 5}]},
    "the live generator": {"images": [{"seed": 5}], "weights": "raw", "step": 2},
    "truncation": {"images": [{"seed": 6}], "truncation": 0.35},
    "a label": {"images": [{"seed": 7}], "label": 0},
    "no noise": {"images": [{"seed": 8}], "noise": "zero"},
    "fresh noise": {"images": [{"seed": 9}], "noise": "fresh", "noise_seed": 77},
    "a direction": {"images": [{"seed": 10, "moves": {"1": 1.5, "2": -0.3}}], "truncation": 0.9},
    "a latent": {"images": [{"seed": 3, "latent": [0.5, -1, 2, 0, 0.1, 0.3, -2, 1]}], "label": 1},
    "a frame": {"images": [{"seed": 1}, {"seed": 2, "moves": {"0": 1}}], "frames": 9, "frame": 4},
}


@pytest.mark.parametrize("name", SCENES)
def test_an_image_is_that_of_its_command(client, workdir, tmp_path, name):
    scene = {"step": 4} | SCENES[name]
    answer = post(client, "images", scene)
    assert answer.status_code == 200, answer.text
    (command,) = answer.json["commands"]
    image = post(client, "image.png", scene).data
    (tmp_path / "latent.npy").write_bytes(post(client, "latent.npy", scene).data)
    python, module, *arguments = shlex.split(command.replace("python -m ", "python ", 1))
    assert (python, module) == ("python", "lwgan.sample")
    needs = f"--latents={tmp_path / 'latent.npy'}"
    arguments = [needs if each.startswith("--latents") else each for each in arguments]
    assert (needs in arguments) == answer.json["needs_latent"][0]
    ended = call(module, *arguments, f"--out={tmp_path / 'out'}")
    assert ended.returncode == 0, ended.stderr
    (written,) = (tmp_path / "out").glob("0*.png")
    assert written.read_bytes() == image


def test_a_grid_shows_each_image_alone(client):
    scene = {"step": 4, "images": [{"seed": seed} for seed in range(6)]}
    answer = post(client, "images", scene).json
    assert len(answer["images"]) == len(answer["commands"]) == 6
    for seed, embedded in enumerate(answer["images"]):
        alone = post(client, "images", {"step": 4, "images": [{"seed": seed}]}).json
        ours, theirs = (pixels(each) for each in (embedded, alone["images"][0]))
        assert np.abs(ours - theirs).max() <= 1


def pixels(embedded):
    file = io.BytesIO(base64.b64decode(embedded.partition(",")[2]))
    return np.asarray(Image.open(file), int)


def test_a_run_that_goes_on_shows_new_checkpoints(client, workdir):
    def shown():
        return client.get(f"/{TOKEN}/run", base_url="http://localhost").json["steps"]

    assert shown() == [2, 4]
    later = workdir / "checkpoints" / "6"
    later.mkdir()
    assert shown() == [2, 4]
    shutil.copytree(workdir / "checkpoints" / "4", later, dirs_exist_ok=True)
    assert shown() == [2, 4, 6]
    scene = {"step": 6, "images": [{"seed": 5}]}
    images = {step: post(client, "images", scene | {"step": step}).json for step in (2, 4, 6)}
    assert images[6]["images"] == images[4]["images"] != images[2]["images"]
    # Started afresh, with other weights at the same step.
    shutil.rmtree(later)
    assert post(client, "images", scene).status_code == 400
    shutil.copytree(workdir / "checkpoints" / "2", later)
    (later / "manifest.json").touch()
    assert post(client, "images", scene).json["images"] == images[2]["images"]
    shutil.rmtree(later)


def test_directions_are_the_newest_of_the_checkpoint(client, workdir):
    def names(step):
        return post(client, "directions", {"step": step}).json

    own = ["factor 1", "factor 2", "component 1", "component 2"]
    assert names(4) == names(2) == own
    first = workdir / "directions" / "00000004-ema"
    again = workdir / "directions" / "00000004-ema.1"
    shutil.copytree(first, again)
    (again / "names.txt").write_text("smile\nb\nc\nd\n\n")
    later = (first / "directions.npy").stat().st_mtime + 1
    os.utime(again / "directions.npy", (later, later))
    assert names(4) == names(2) == ["smile", "b", "c", "d"]
    (again / "names.txt").write_text("smile\n")
    assert post(client, "directions", {"step": 4}).status_code == 400
    # What needs none of them is drawn.
    scene = {"step": 4, "images": [{"seed": 5, "moves": {"9": 0}}]}
    assert post(client, "images", scene).status_code == 200
    shutil.rmtree(again)


def test_a_video_of_the_way_through_favourites(client):
    scene = {"step": 4, "images": [{"seed": 1}, {"seed": 2}], "frames": 9}
    video = post(client, "video.mp4", scene)
    assert video.status_code == 200 and video.data[4:8] == b"ftyp"


def test_the_nearest_training_images(client, workdir):
    near = post(client, "nearest", {"step": 4, "images": [{"seed": 1}]}).json
    assert len({each["name"] for each in near}) == 4
    reals = open_reals(read_run(workdir))
    for each in near:
        (index,) = [i for i in reals.indices if reals.dataset.names[i] == each["name"]]
        real = reals.dataset.centre(index)
        np.testing.assert_array_equal(pixels(each["image"]), real)
        (name, found), *_ = reals.nearest(real)
        assert name == each["name"]
        np.testing.assert_array_equal(found, real)


def test_an_image_is_projected(client, workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(studio, "_EFFORT", studio.Effort(candidates=16, starts=2, steps=20))
    file = io.BytesIO()
    drawn.noise(1).save(file, "PNG")
    (tmp_path / "image.png").write_bytes(file.getvalue())
    found = post(client, "project?step=4&weights=ema", file.getvalue())
    assert found.status_code == 200, found.text
    latent, label = found.json["latent"], found.json["label"]
    scene = {"step": 4, "images": [{"seed": 0, "latent": latent}], "noise": "zero", "label": label}
    near = pixels(post(client, "images", scene).json["images"][0])
    _, array = read_image(open_image(tmp_path / "image.png"), 0, read_run(workdir).config.data)
    psnr = -10 * np.log10(np.square((near - middle(array, shape_of(32))) / 255).mean())
    assert abs(psnr - found.json["psnr"]) < 0.1
    other = post(client, "project?step=4&label=1", file.getvalue())
    assert other.json["label"] == 1
    refused = post(client, "project?step=4", b"no image")
    assert refused.status_code == 400 and "does not decode" in refused.json["error"]


@pytest.mark.parametrize(
    ("path", "how", "status"),
    [
        (f"/{TOKEN}/", {}, 200),
        (f"/{TOKEN}/page.css", {}, 200),
        (f"/{TOKEN}/page.js", {"base_url": "http://localhost:1"}, 200),
        ("/", {}, 404),
        ("/wrong/", {}, 404),
        ("/page.js", {}, 404),
        (f"/{TOKEN}x/run", {}, 404),
        (f"/{TOKEN}/", {"base_url": "http://evil.example"}, 400),
        (f"/{TOKEN}/run", {"base_url": "http://127.0.0.1.evil.example:8130"}, 400),
        (f"/{TOKEN}/run", {"headers": {"Host": ""}}, 400),
        (f"/{TOKEN}/run", {"headers": {"Host": "[::1"}}, 400),
        (f"/{TOKEN}/run", {"headers": {"Host": "[::1]:8130"}}, 200),
        (f"/{TOKEN}", {}, 308),
        (f"/{TOKEN}/../{TOKEN}/server.py", {}, 404),
        (f"/{TOKEN}/%2e%2e/server.py", {}, 404),
        (f"/{TOKEN}/..%2f..%2fetc%2fpasswd", {}, 404),
        (f"/{TOKEN}/page.html", {}, 404),
        (f"/{TOKEN}/images", {}, 405),
    ],
)
def test_who_is_refused(client, path, how, status):
    answer = client.get(path, **{"base_url": "http://127.0.0.1:8130"} | how)
    assert answer.status_code == status
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    if status != 200:
        assert "root:" not in answer.text and "import" not in answer.text


@pytest.mark.parametrize(
    ("name", "asked", "status"),
    [
        ("images", b"", 400),
        ("images", b"[]", 400),
        ("images", b"{" * 10_000, 400),
        ("images", b"[" * 100_000, 400),
        ("images", b'{"step": NaN}', 400),
        ("images", b"\xff\xfe", 400),
        ("images", {"step": 3, "images": [{"seed": 1}]}, 400),
        ("images", {"step": 10**400, "images": [{"seed": 1}]}, 400),
        ("images", b"[" + b"[]," * 2**20, 413),
        ("images", {"step": 10**12, "images": [{"seed": 1}]}, 400),
        ("images", {"step": 4, "images": [{"seed": 1, "moves": {"99": 1}}]}, 400),
        ("images", {"step": 4, "images": [{"seed": 1}] * 2, "frames": 9, "frame": 1}, 400),
        ("images", {"step": 4, "images": [{"seed": 1}, {"seed": 2}], "frames": 9}, 400),
        ("image.png", {"step": 4, "images": [{"seed": 1}, {"seed": 2}]}, 400),
        ("video.mp4", {"step": 4, "images": [{"seed": 1}]}, 400),
        ("project?step=4", b"\0" * (64 * 2**20 + 1), 413),
        ("project?step=" + "9" * 5000, b"", 400),
        ("project?step=4&weights=both", b"", 400),
        ("project?step=4&label=2", b"", 400),
        ("project?step=4&label=" + "9" * 5000, b"", 400),
        ("run", {}, 405),
    ],
)
def test_what_is_refused(client, name, asked, status):
    answer = post(client, name, asked)
    assert answer.status_code == status, answer.text
    assert answer.json["error"] and "\n" not in answer.json["error"]


@pytest.mark.slow
def test_memory_is_bounded(client):
    def draw(count, first):
        for number in range(first, first + count):
            image = {"seed": number, "moves": {"0": 0.1}}
            scene = {"step": (2, 4)[number % 2], "images": [image], "label": number % 2}
            assert post(client, "images", scene).status_code == 200

    draw(100, 0)
    before = psutil.Process().memory_info().rss
    draw(1000, 100)
    assert psutil.Process().memory_info().rss - before < 64 * 2**20


@pytest.mark.slow
def test_the_command(workdir):
    """Its address answers until Ctrl-C."""
    command = [sys.executable, "-m", "lwgan.explore", f"--workdir={workdir}", "--port=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", address)
        with urllib.request.urlopen(address + "run", timeout=60) as answer:
            assert json.load(answer)["steps"] == [2, 4]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir = None: must name a run directory"),
        (["--workdir={}", "--port={busy}"], "cannot be listened to there (Address already in use"),
        (["--workdir={}", "--port=0", "--host=203.0.113.7"], "--port = 0: 203.0.113.7 cannot be"),
        (["--workdir={}", "--port=70000"], "--port"),
    ],
)
def test_one_line_if_it_cannot_listen(workdir, arguments, message):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = call("lwgan.explore", *(each.format(workdir, busy=port) for each in arguments))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert message in line


def test_the_page_names_nothing_outside():
    folder = pathlib.Path(server.__file__).parent
    for name in ("page.html", "page.css", "page.js"):
        assert "http" not in (folder / name).read_text().replace("http-equiv", "")
