"""Trains a generator on your images, or continues a run.

  python main.py --config=configs/quickstart.py
  python main.py --config=configs/folder.py --config.data.path=~/photos
  python main.py --workdir=runs/folder --config.train.num_steps=300000
  python main.py --config=configs/folder.py --config.data.path=~/few --workdir=runs/few \\
      --init_from=runs/folder

Any setting can be given as --config.group.name=value; python -m lwgan.settings lists them.
"""

import functools

from absl import flags

from lwgan import cli
from lwgan.errors import UserError


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    of = {"flag_values": values}
    flags.DEFINE_string(
        "workdir",
        None,
        "The run directory; runs/<config> by default. A run that is there is continued.",
        **of,
    )
    flags.DEFINE_bool("fresh", False, "Move the run in workdir aside and start over.", **of)
    flags.DEFINE_bool(
        "accept_new_data", False, "Continue a run with other images than it has learnt from.", **of
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Start a new run from the weights of the run, or imported run, in this directory.",
        **of,
    )
    flags.DEFINE_integer("freeze_d", None, "Short for --config.optim.freeze_d.", 0, **of)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Say what training would need: memory, hours, disk; nothing is written.",
        **of,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "Of several processes: address:port of process 0, or auto (SLURM, Open MPI, TPUs).",
        **of,
    )
    flags.DEFINE_integer("num_processes", None, "How many train together.", 1, **of)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0 on.", 0, **of)
    flags.DEFINE_bool("profile", False, "Write a profile of a few steps to workdir/profile.", **of)


def train_or_estimate(values: cli.Flags) -> None:
    """Runs the command."""
    config, workdir = cli.config(values), cli.workdir(values)
    if values.freeze_d is not None:
        config.optim.freeze_d = values.freeze_d
    how = {name: values[name].value for name in ("fresh", "accept_new_data", "init_from")}
    # After the flags: they bring TensorFlow along.
    if values.dry_run:
        if values.coordinator:
            raise UserError("--dry_run", True, "is for one process", "leave out --coordinator")
        from lwgan.training.dry_run import estimate

        for line in estimate(config, workdir, **how):
            print(line, flush=True)
        return
    from lwgan.runs.processes import joined

    with joined(values.coordinator, values.num_processes, values.process_id):
        from lwgan.training.loop import train

        train(config, workdir, **how, profile=values.profile)


main = functools.partial(cli.run, define_flags, train_or_estimate, takes_config=True)

if __name__ == "__main__":
    main()
