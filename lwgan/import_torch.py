"""Makes a run of a checkpoint of lightweight-gan (PyTorch, 1.0 or later).

  python -m lwgan.import_torch --checkpoint=models/default/model_42.pt --workdir=runs/imported
  python -m lwgan.sample --workdir=runs/imported
  python main.py --workdir=runs/imported --config.data.path=~/photos

The architecture is read from the tensors. The optimizers start afresh, for the file does not hold
them.
"""

import functools

from absl import flags

from lwgan import cli
from lwgan.errors import UserError


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    of = {"flag_values": values}
    flags.DEFINE_string("checkpoint", None, "The .pt file.", **of)
    flags.DEFINE_string("workdir", None, "The run directory to make.", **of)
    loss = "What it was trained with; no tensor tells."
    flags.DEFINE_enum("loss", "hinge", ["hinge", "dual_contrastive"], loss, **of)
    save_every = "Its --save-every: the step is this times the file's number."
    flags.DEFINE_integer("save_every", 1000, save_every, 1, **of)
    freq = "Trained with it, where no excitation tells (images below 128 px)."
    flags.DEFINE_bool("freq_chan_attn", False, freq, **of)


def make_run(values: cli.Flags) -> None:
    """Runs the command."""
    for flag in ("checkpoint", "workdir"):
        if not values[flag].value:
            raise UserError(f"--{flag}", None, "is missing", "see --help")
    from lwgan.interop.torch_runs import describe, import_checkpoint
    from lwgan.runs.files import local_path

    workdir = local_path("--workdir", values.workdir)
    step = import_checkpoint(
        local_path("--checkpoint", values.checkpoint),
        workdir,
        loss=values.loss,
        save_every=values.save_every,
        freq_chan_attn=values.freq_chan_attn,
    )
    print(f"Imported step {step} into {workdir}: {describe(workdir)}")
    print(
        f"The optimizers start afresh: python main.py --workdir={workdir} --config.data.path=FOLDER"
    )


main = functools.partial(cli.run, define_flags, make_run)

if __name__ == "__main__":
    main()
