"""Checkpoints that lightweight-gan's Trainer saves, as runs of lwgan."""

import os
import pathlib
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import torch
from trainer import Draws, Trainer, given

from lwgan.errors import UserError
from lwgan.interop.torch_runs import import_checkpoint
from lwgan.models.build import CHANNELS, build_discriminator, build_generator, generator_shapes
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import read_run
from lwgan.sampling.sampler import Sampler
from lwgan.training.state import build_gan, init_state
from tests.house import ROOT

pytestmark = pytest.mark.parity

SLOW = pytest.mark.slow
NARROW = dict(fmap_max=16, latent_dim=16)
CASES = {
    "32px-rgb": NARROW | dict(image_size=32, attn_res_layers=[32], disc_output_size=5),
    "32px-grey": NARROW | dict(image_size=32, greyscale=True, antialias=True, attn_res_layers=[8]),
    "64px-rgba": NARROW | dict(image_size=64, transparent=True, antialias=True),
    "128px-grey": NARROW | dict(image_size=128, greyscale=True, attn_res_layers=[16, 64]),
    "128px-fca": NARROW
    | dict(image_size=128, fmap_max=32, freq_chan_attn=True, disc_output_size=5),
    "256px-default": dict(image_size=256, attn_res_layers=[32]),
    "256px-rgba": NARROW
    | dict(image_size=256, transparent=True, freq_chan_attn=True, antialias=True),
    "512px-grey": NARROW | dict(image_size=512, greyscale=True, disc_output_size=5),
    "512px-rgba": NARROW | dict(image_size=512, transparent=True, attn_res_layers=[8, 32]),
}
OPTIONS = dict(loss="hinge", save_every=1000, freq_chan_attn=False)


def _trainer(folder, options):
    """Theirs, with random weights, no noise, and images that spread as a trained network's do."""
    torch.manual_seed(0)
    trainer = Trainer(folder, **({"disc_output_size": 1} | options))
    gan = trainer.GAN
    with torch.no_grad():
        for generator in (gan.G, gan.GE):
            for parameter in generator.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
            for _ in range(3):
                generator.train()(torch.randn(2, gan.latent_dim))
            for module in generator.modules():
                if isinstance(module, reference.package.Noise):
                    module.weight.zero_()
            spread = generator.eval()(torch.randn(4, gan.latent_dim)).std()
            generator.out_conv.weight /= 4 * spread
            generator.out_conv.bias.fill_(0.5)
    gan.eval()
    return trainer


def _save(trainer):
    trainer.save(42)
    return pathlib.Path(trainer.model_name(42))


def _their_verdict(discriminator, images):
    """Logits and painted images."""
    painted = []
    decoders = filter(None, (discriminator.decoder1, discriminator.decoder2))
    hooks = [
        decoder.register_forward_hook(lambda module, args, output: painted.append(output))
        for decoder in decoders
    ]
    draws = Draws()
    # The third quadrant, where one is painted.
    draws.coin.put(0.6)
    with torch.no_grad(), given(draws):
        logits, side_logits, _ = discriminator(reference.nchw(images), calc_aux_loss=True)
    for hook in hooks:
        hook.remove()
    return logits.numpy(), side_logits.flatten(1).numpy(), *map(reference.nhwc, painted)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[SLOW] * (int(case[:3].strip("p")) > 128)) for case in CASES]
)
def test_imported_run(case, tmp_path):
    trainer = _trainer(tmp_path / "theirs", CASES[case])
    workdir = tmp_path / "ours"
    assert import_checkpoint(_save(trainer), workdir, **OPTIONS) == 42_000

    config = read_run(workdir).config
    assert config.data.image_size == trainer.image_size
    like = jax.eval_shape(lambda: init_state(build_gan(config), 0))
    step = manifest.resolve_step(workdir, None)
    assert step == 42_000

    generator = build_generator(config)
    latents = np.random.default_rng(0).standard_normal((3, config.model.latent_dim), np.float32)
    for weights, theirs in (("raw", trainer.GAN.G), ("ema", trainer.GAN.GE)):
        saved = checkpoint.restore_generator(workdir, step, generator_shapes(generator), weights)
        sampler = Sampler(generator, saved["params"], saved["batch_stats"])
        ours = sampler(jnp.asarray(latents), seed=0, batch_size=2)
        with torch.no_grad():
            theirs = reference.nhwc(theirs(torch.from_numpy(latents)))
        assert 0.04 < np.std(theirs) < 1
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4, err_msg=weights)

    discriminator = build_discriminator(config)
    params = checkpoint.restore(workdir, step, like).d_params
    channels = CHANNELS[config.data.mode]
    shape = (16, trainer.image_size, trainer.image_size, channels)
    images = np.random.default_rng(1).random(shape, np.float32)
    with jax.default_matmul_precision("highest"):
        ours = reference.jit(discriminator.apply)({"params": params}, images, jnp.int32(2))
    found = [array for array in ours if array is not None]
    for array, theirs in zip(found, _their_verdict(trainer.GAN.D, images), strict=True):
        # Decoders that never learnt paint far beyond [0, 1].
        largest = max(1, np.abs(theirs).max())
        np.testing.assert_allclose(array, theirs, rtol=0, atol=1e-4 * largest)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint of theirs."""
    return _save(_trainer(tmp_path_factory.mktemp("theirs"), CASES["32px-grey"]))


class _Code:
    """Runs something where it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return pathlib.os.mkdir, (self.folder,)


def _tensors(good):
    return torch.load(good, weights_only=True)["GAN"]


def _refused(path, workdir, **options):
    """The one line that the import of a file ends in; nothing is written."""
    before = sorted(workdir.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, workdir, **(OPTIONS | options))
    assert sorted(workdir.parent.rglob("*")) == before
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_truncated_file(good, kept, tmp_path):
    content = good.read_bytes()
    path = tmp_path / "model_1.pt"
    path.write_bytes(content[: int(kept * len(content))])
    assert "model_1.pt" in _refused(path, tmp_path / "run")


def test_missing_file(tmp_path):
    assert "no such file" in _refused(tmp_path / "model_1.pt", tmp_path / "run")


def test_directory_that_exists(good, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept.txt").write_text("kept")
    assert "exists" in _refused(good, tmp_path / "run")


def test_name_without_number(good, tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(good.read_bytes())
    assert "number" in _refused(path, tmp_path / "run")


def test_code_is_not_run(tmp_path):
    code = {"GAN": _Code(tmp_path / "code_was_run")}
    for number, dump in enumerate((torch.save, lambda x, path: path.write_bytes(pickle.dumps(x)))):
        path = tmp_path / f"model_{number}.pt"
        dump(code, path)
        _refused(path, tmp_path / "run")


OTHERS = {
    "bare": lambda tensors: tensors,
    "tensor": lambda tensors: torch.zeros(3),
    "no networks": lambda tensors: {"GAN": {}},
    "no tensors": lambda tensors: {"GAN": {"G.out_conv.weight": 3}},
    "another package": lambda tensors: {
        "GAN": {"S.net.0.weight": torch.zeros(8, 8), "G.initial_block": torch.zeros(1, 8, 4, 4)}
    },
    "another shape": lambda tensors: {
        "GAN": tensors | {"D.to_logits.3.weight": torch.zeros(1, 9, 4, 4)}
    },
    "fewer axes": lambda tensors: {"GAN": tensors | {"G.out_conv.weight": torch.zeros(1, 16)}},
    "more": lambda tensors: {"GAN": tensors | {"G.layers.0.5.weight": torch.zeros(3)}},
    "more statistics": lambda tensors: {"GAN": tensors | {"D.extra.running_var": torch.zeros(3)}},
    "more buffers": lambda tensors: {"GAN": tensors | {"G.f": torch.zeros(3)}},
    "fewer": lambda tensors: {
        "GAN": {k: x for k, x in tensors.items() if "out_conv.bias" not in k}
    },
    "generator alone": lambda tensors: {
        "GAN": {k: x for k, x in tensors.items() if k.startswith("G.")}
    },
}


@pytest.mark.parametrize("what", OTHERS)
def test_something_else(good, what, tmp_path):
    path = tmp_path / "model_1.pt"
    torch.save(OTHERS[what](_tensors(good)), path)
    _refused(path, tmp_path / "run")


def test_the_command_needs_no_configs_and_minds_no_others(good, tmp_path):
    """In a directory whose package ``configs`` is somebody else's."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise ImportError('not lwgan's')\n")
    ended = subprocess.run(
        [sys.executable, "-m", "lwgan.import_torch", f"--checkpoint={good}", "--workdir=run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Imported step 42000 into run: 32 px grey, latents of 16")
    assert manifest.saved_steps(tmp_path / "run") == [42_000]
