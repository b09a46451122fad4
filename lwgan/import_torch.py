"""Makes a run of a checkpoint of lightweight-gan (PyTorch, 1.0 or later).

  python -m lwgan.import_torch --checkpoint=models/default/model_42.pt --workdir=runs/imported
  python -m lwgan.sample --workdir=runs/imported
  python main.py --workdir=runs/imported --config.data.path=~/photos

The architecture is read from the tensors. The optimizers start afresh, for the file does not hold them.
"""

import pathlib
import re
import textwrap

import numpy as np
from absl import flags

from lwgan import command
from lwgan.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The .pt file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory to make.")
_LOSS = flags.DEFINE_enum(
    "loss", "hinge", ["hinge", "dual_contrastive"], "What it was trained with; no tensor tells."
)
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every", 1000, "Its --save-every: the step is this times the file's number.", lower_bound=1
)
_FREQ_CHAN_ATTN = flags.DEFINE_bool(
    "freq_chan_attn", False, "Trained with it, where no excitation tells (pictures below 128 px)."
)


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
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
    except Exception as error:  # torch raises many kinds
        reason = textwrap.shorten(str(error), 120, placeholder=" …") or type(error).__name__
        raise UserError(
            "--checkpoint", str(path), f"is not a file of tensors that PyTorch can read ({reason})",
            "name a model_<n>.pt as lightweight-gan wrote it",
        ) from None  # fmt: skip
    networks = content.get("GAN") if isinstance(content, dict) else None
    if not isinstance(networks, dict) or not all(map(torch.is_tensor, networks.values())):
        raise UserError(
            "--checkpoint", str(path), "holds no networks of lightweight-gan (no entry GAN)",
            "name a model_<n>.pt as lightweight-gan wrote it",
        )  # fmt: skip
    return {name: tensor.numpy() for name, tensor in networks.items()}


def step_of(path: pathlib.Path, save_every: int) -> int:
    """The step that a file's name tells: ``model_42.pt`` is 42 times ``save_every``.

    Raises:
      UserError: there is no number in the name.
    """
    number = re.search(r"(\d+)$", path.stem)
    if not number:
        raise UserError(
            "--checkpoint", path.name, "has no number in its name", "call it model_<n>.pt"
        )
    return int(number[1]) * save_every


def import_checkpoint(
    path: pathlib.Path, workdir: pathlib.Path, *, loss: str, save_every: int, freq_chan_attn: bool
) -> int:
    """Makes the run and returns its step.

    Raises:
      UserError: the file or the directory does not do; nothing has been written.
    """
    import jax
    import jax.numpy as jnp

    from configs import reference
    from lwgan import checkpoint, run, settings, state
    from lwgan.torch_weights import convert

    if workdir.exists():
        raise UserError("--workdir", str(workdir), "exists", "name a new directory")
    tensors = read_tensors(path)
    step = step_of(path, save_every)
    try:
        imported = convert(tensors)
    except ValueError as error:
        raise UserError(
            "--checkpoint", str(path), str(error), "name a model_<n>.pt as lightweight-gan wrote it"
        ) from None

    config = reference.get_config()
    config.update(imported.settings)
    config.model.freq_chan_attn |= freq_chan_attn
    config.loss.kind = loss
    config.train.num_steps = max(config.train.num_steps, step)
    settings.check(config)
    gan = state.build(config)
    first = state.TrainState(
        step=jnp.int32(step),
        recoveries=jnp.int32(0),
        g_params=imported.g_params,
        g_stats=imported.g_stats,
        d_params=imported.d_params,
        ema_params=imported.ema_params,
        ema_stats=imported.ema_stats,
        g_opt=gan.g_tx.init(imported.g_params),
        d_opt=gan.d_tx.init(imported.d_params),
    )
    pictures_unknown = run.RunInfo(fingerprint="")
    this_run = run.Run(workdir, config, pictures_unknown)
    run.open_for_training(this_run, config, fingerprint="", step=step)
    with checkpoint.Saver(workdir, config.checkpoint) as saver:
        saver.save(jax.device_get(first), {}, config)
    return step


def describe(workdir: pathlib.Path) -> str:
    """The architecture of a run in one line."""
    from lwgan import run

    config = run.read(workdir).config
    model = config.model
    attention = ", ".join(map(str, model.attn_resolutions)) or "none"
    return (
        f"{config.data.image_size} px {config.data.mode}, latents of {model.latent_dim}, widths up to "
        f"{model.fmap_max}, attention at {attention}, {model.disc_output_size**2} logits"
        + ", frequencies" * model.freq_chan_attn
        + ", antialias" * model.antialias
    )


def main() -> None:
    """Runs the command with its flags."""
    for flag in (_CHECKPOINT, _WORKDIR):
        if not flag.value:
            raise UserError(f"--{flag.name}", None, "is missing", "see --help")
    workdir = pathlib.Path(_WORKDIR.value).expanduser()
    step = import_checkpoint(
        pathlib.Path(_CHECKPOINT.value).expanduser(),
        workdir,
        loss=_LOSS.value,
        save_every=_SAVE_EVERY.value,
        freq_chan_attn=_FREQ_CHAN_ATTN.value,
    )
    print(f"Imported step {step} into {workdir}: {describe(workdir)}")
    print(
        f"The optimizers start afresh: python main.py --workdir={workdir} --config.data.path=FOLDER"
    )


if __name__ == "__main__":
    command.run(main)
