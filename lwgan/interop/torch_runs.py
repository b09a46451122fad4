"""A run from a checkpoint of lightweight-gan."""

import pathlib
import re
import textwrap

import jax
import numpy as np

from lwgan.errors import UserError
from lwgan.interop.torch_weights import Imported, convert
from lwgan.runs import checkpoint
from lwgan.runs.directory import Run, RunInfo, read_run, record_start
from lwgan.settings.defaults import reference_config
from lwgan.training.checks import check_settings
from lwgan.training.state import Gan, TrainState, build_gan, new_state

_HINT = "name a model_<n>.pt as lightweight-gan wrote it"


def read_gan_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint's ``GAN`` entry by name; code in the file is refused, not run.

    Raises:
      UserError: torch is not installed, or the file is something else.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            "torch", None, "is needed to read this file, and not installed", "pip install torch"
        ) from None
    if not path.is_file():
        raise UserError("--checkpoint", str(path), "there is no such file", "name a model_<n>.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch raises many kinds.
    except Exception as error:
        reason = textwrap.shorten(str(error), 120, placeholder=" …") or type(error).__name__
        problem = f"is not a file of tensors that PyTorch can read ({reason})"
        raise UserError("--checkpoint", str(path), problem, _HINT) from None
    networks = content.get("GAN") if isinstance(content, dict) else None
    if not isinstance(networks, dict) or not all(map(torch.is_tensor, networks.values())):
        problem = "holds no networks of lightweight-gan (no entry GAN)"
        raise UserError("--checkpoint", str(path), problem, _HINT)
    return {name: tensor.numpy() for name, tensor in networks.items()}


def step_of(path: pathlib.Path, save_every: int) -> int:
    """The step that a file's name tells: ``model_42.pt`` is 42 times ``save_every``.

    Raises:
      UserError: there is no number in the name.
    """
    number = re.search(r"(\d+)$", path.stem)
    if not number:
        problem = "has no number in its name"
        raise UserError("--checkpoint", path.name, problem, "call it model_<n>.pt")
    return int(number[1]) * save_every


def state_of(imported: Imported, gan: Gan, step: int) -> TrainState:
    """The state that training goes on from; the optimizers start afresh."""
    live = {"params": imported.g_params, "batch_stats": imported.g_stats}
    ema = {"params": imported.ema_params, "batch_stats": imported.ema_stats}
    return new_state(gan, live, ema, imported.d_params, step=step)


def import_checkpoint(
    path: pathlib.Path, workdir: pathlib.Path, *, loss: str, save_every: int, freq_chan_attn: bool
) -> int:
    """Makes the run and returns its step.

    Raises:
      UserError: the file or the directory does not do; nothing has been written.
    """
    if workdir.exists():
        raise UserError("--workdir", str(workdir), "exists", "name a new directory")
    tensors = read_gan_tensors(path)
    step = step_of(path, save_every)
    try:
        imported = convert(tensors)
    except ValueError as error:
        raise UserError("--checkpoint", str(path), str(error), _HINT) from None
    config = reference_config()
    config.update(imported.settings)
    config.model.freq_chan_attn |= freq_chan_attn
    config.loss.kind = loss
    config.train.num_steps = max(config.train.num_steps, step)
    check_settings(config)
    state = state_of(imported, build_gan(config), step)
    # The images are not known.
    record_start(Run(workdir, config, RunInfo(fingerprint="")), config, fingerprint="", step=step)
    with checkpoint.Saver(workdir, config.checkpoint) as saver:
        saver.save(jax.device_get(state), {}, config)
    return step


def describe(workdir: pathlib.Path) -> str:
    """The architecture of a run in one line."""
    config = read_run(workdir).config
    model = config.model
    attention = ", ".join(map(str, model.attn_resolutions)) or "none"
    return (
        f"{config.data.image_size} px {config.data.mode}, latents of {model.latent_dim}, "
        f"widths up to {model.fmap_max}, attention at {attention}, "
        f"{model.disc_output_size**2} logits"
        + ", frequencies" * model.freq_chan_attn
        + ", antialias" * model.antialias
    )
