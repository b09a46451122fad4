"""Exported generators draw the same images, and one needs nothing but jax to do so."""

import json
import subprocess
import sys

import numpy as np
import pytest
from jax import export

from lwgan.interop import artifacts
from lwgan.sampling.sampler import Sampler
from lwgan.sampling.trained import load
from tests import tiny


@pytest.fixture(scope="module", params=["plain", "attention, rgba, antialias"])
def loaded(request, tmp_path_factory):
    config = tiny.config()
    if request.param != "plain":
        config.model.update(attn_resolutions=(16,), freq_chan_attn=True, antialias=True)
        config.data.mode = "rgba"
    workdir = tmp_path_factory.mktemp("run") / "run"
    tiny.save_run(workdir, (5,), config)
    return load(workdir)


def test_stablehlo_draws_the_same(loaded, tmp_path):
    path = tmp_path / "generator.stablehlo"
    artifacts.write_stablehlo(path, loaded)
    generate = artifacts.read_stablehlo(path)
    for count in (1, 3):
        latents = np.asarray(loaded.latents(2, count))
        expected = loaded(latents, seed=4)
        images = generate(latents, 4)
        assert images.dtype == np.float32
        scale = np.abs(expected).max()
        np.testing.assert_allclose(images / scale, expected / scale, atol=1e-5)
        assert np.abs(generate(latents, 5) - expected).max() > 1e-3 * scale
    exported = export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")


RUNS_ALONE = """
import sys
from importlib import metadata
import numpy as np

known = {"jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers"}
others = set(metadata.packages_distributions()) - known

class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in others | {"lwgan"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Only())
try:
    import flax
    sys.exit("flax is there")
except ModuleNotFoundError:
    pass
from jax import export
generate = export.deserialize(bytearray(open("generator.stablehlo", "rb").read())).call
np.save("drawn.npy", generate(np.load("latents.npy"), np.uint32(4)))
"""


def test_stablehlo_runs_without_lwgan_and_flax(loaded, tmp_path):
    artifacts.write_stablehlo(tmp_path / "generator.stablehlo", loaded)
    latents = np.asarray(loaded.latents(2, 3))
    np.save(tmp_path / "latents.npy", latents)
    ended = subprocess.run(
        [sys.executable, "-c", RUNS_ALONE], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    expected = loaded(latents, seed=4)
    scale = np.abs(expected).max()
    drawn = np.load(tmp_path / "drawn.npy")
    np.testing.assert_allclose(drawn / scale, expected / scale, atol=1e-5)


def test_safetensors_build_the_same_generator(loaded, tmp_path):
    from safetensors import safe_open

    path = tmp_path / "generator.safetensors"
    artifacts.write_safetensors(path, loaded)
    read = artifacts.read_safetensors(path)
    latents = np.asarray(loaded.latents(2, 3))
    np.testing.assert_array_equal(read(latents, seed=4), loaded(latents, seed=4))
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("params/out/kernel").shape[:2] == (3, 3)
    assert (metadata["step"], metadata["weights"]) == ("5", "ema")
    assert json.loads(metadata["settings"])["data"]["image_size"] == 32


def test_difference_sees_another_generator(loaded):
    def louder(latents, seed):
        return loaded(latents, seed) * np.float32(1.001)

    assert artifacts.difference(loaded, loaded) == 0
    assert artifacts.difference(louder, loaded) == pytest.approx(1e-3, rel=1e-2)
    other = Sampler(loaded.generator, loaded.params, loaded.stats)
    assert artifacts.difference(lambda latents, seed: other(latents, seed + 1), loaded) > 1e-3
