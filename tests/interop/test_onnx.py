"""The generator in ONNX Runtime beside lwgan's own, where jax2onnx is installed."""

import functools
import http.server
import os
import pathlib
import shutil
import sys
import threading

import numpy as np
import pytest

import lwgan
from lwgan.interop import artifacts, onnx_files
from lwgan.models.generator import noise_shapes
from lwgan.sampling.sampler import to_uint8
from tests import tiny
from tests.calling import call
from tests.house import ROOT

# The folder dist/ of npm's onnxruntime-web.
ORT_WEB = pathlib.Path(os.environ.get("ORT_WEB", "missing"))
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def saved(workdir, **overrides):
    tiny.save_run(workdir, (2,), tiny.config(model__output="tanh", **overrides))
    return lwgan.load(workdir)


@pytest.mark.parametrize(
    "overrides",
    [
        {"model__attn_resolutions": (16,), "model__freq_chan_attn": True},
        {"data__image_size": "32x48", "data__label_names": ("a", "b"), "model__antialias": True},
        {"data__image_size": 128, "data__mode": "rgba"},
    ],
)
def test_onnx_draws_the_same_for_any_batch(tmp_path, overrides):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    trained = saved(tmp_path / "run", **overrides)
    ended = call("lwgan.export", f"--workdir={tmp_path / 'run'}", "--format=onnx")
    assert ended.returncode == 0, ended.stderr
    path = tmp_path / "run" / "export" / "00000002-ema" / "generator.onnx"
    drawn_by = onnx_files.read_onnx(path)
    assert artifacts.difference(drawn_by, trained) < 1e-5
    with_labels = "data__label_names" in overrides
    for count in (1, 5):
        latents = np.asarray(trained.latents(3, count))
        labels = np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 1][:count]] if with_labels else None
        expected = trained(latents, 7, labels=labels)
        np.testing.assert_allclose(drawn_by(latents, 7, labels), expected, atol=1e-5)
        assert np.abs(drawn_by(latents, 8, labels) - expected).max() > 1e-3
    names = [own.name for own in runtime.InferenceSession(path).get_inputs()]
    assert names[:3] == ["latents", "noise_8", "noise_16"]
    assert (names[-1] == "labels") == with_labels


def test_what_to_install_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    saved(tmp_path / "run")
    export = ["lwgan.export", f"--workdir={tmp_path / 'run'}"]
    ended = call(*export, "--format=stablehlo,onnx")
    assert ended.returncode == 2
    assert "needs jax2onnx" in ended.stderr and "--no-deps jax2onnx" in ended.stderr
    ended = call(*export, "--format=tflite")
    assert ended.returncode == 2
    assert "--format = 'tflite': must be of stablehlo, safetensors, onnx" in ended.stderr
    assert not (tmp_path / "run" / "export").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said):
        pass


@pytest.fixture
def web_folder(tmp_path):
    """A folder that is served, and its address."""
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    (tmp_path / "web").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "web", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.browser
@pytest.mark.skipif(
    not ((ORT_WEB / FILES[0]).exists() and shutil.which("chromium")),
    reason="needs Chromium, and onnxruntime-web",
)
@pytest.mark.parametrize("mode", ["rgb", "grey", "rgba"])
def test_the_page_of_the_docs_draws_the_same(web_folder, tmp_path, mode):
    pytest.importorskip("jax2onnx")
    sync_api = pytest.importorskip("playwright.sync_api")
    folder, address = web_folder
    trained = saved(tmp_path / "run", data__mode=mode)
    onnx_files.write_onnx(folder / "generator.onnx", trained)
    for path in (ROOT / "docs" / "browser.html", *(ORT_WEB / name for name in FILES)):
        shutil.copy(path, folder)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        # Then every number that it draws is this.
        page.add_init_script("Math.random = () => 0.5")
        number = -np.sqrt(2 * np.log(2))
        page.goto(f"{address}/browser.html")
        sync_api.expect(page.locator("canvas")).to_have_count(8, timeout=60_000)
        read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        found = np.array(page.locator("canvas").last.evaluate(read)).reshape(32, 32, 4)
        browser.close()
    variables = {"params": trained.params, "batch_stats": trained.stats}
    noise = [np.full((1, *shape, 1), number, np.float32) for shape in noise_shapes(32)]
    latents = np.full((1, 8), number, np.float32)
    (drawn,) = to_uint8(trained.generator.apply(variables, latents, noise, train=False)).astype(int)
    if mode == "rgba":
        assert np.abs(found[..., 3] - drawn[..., 3]).max() <= 1
        # A canvas keeps colours multiplied by alpha.
        opaque = drawn[..., 3] > 200
        assert np.abs(found[opaque] - drawn[opaque]).max() <= 2
    else:
        assert (found[..., 3] == 255).all()
        assert np.abs(found[..., :3] - drawn).max() <= 1
