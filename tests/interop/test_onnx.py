"""The generator in ONNX Runtime beside lwgan's own, where jax2onnx is installed."""

import sys

import numpy as np
import pytest

import lwgan
from lwgan.errors import UserError
from lwgan.interop import artifacts, onnx_files
from tests import tiny
from tests.calling import call


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
    trained = saved(tmp_path / "run")
    with pytest.raises(UserError, match=r"needs jax2onnx .* pip install --no-deps jax2onnx"):
        onnx_files.write_onnx(tmp_path / "generator.onnx", trained)
    ended = call("lwgan.export", f"--workdir={tmp_path / 'run'}", "--format=tflite")
    assert ended.returncode == 2
    assert "--format = 'tflite': must be of stablehlo, safetensors, onnx" in ended.stderr
