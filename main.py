"""Trains a generator on your pictures, or continues a run.

  python main.py --config=configs/quickstart.py
  python main.py --config=configs/folder.py --config.data.path=~/photos
  python main.py --workdir=runs/folder --config.train.num_steps=300000
  python main.py --config=configs/folder.py --config.data.path=~/few --init_from=runs/folder --freeze_d=2

Any setting of configs/default.py can be given as --config.group.name=value.
"""

from absl import flags

from lwgan import command

flags.DEFINE_string(
    "workdir",
    None,
    "The run directory; runs/<config> by default. A run that is there is continued.",
)
_FRESH = flags.DEFINE_bool("fresh", False, "Move the run in workdir aside and start over.")
_ACCEPT_NEW_DATA = flags.DEFINE_bool(
    "accept_new_data", False, "Continue a run with other pictures than it has learnt from."
)
_INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Start a new run from the weights of the run, or imported run, in this directory.",
)
_FREEZE_D = flags.DEFINE_integer(
    "freeze_d", None, "Short for --config.optim.freeze_d.", lower_bound=0
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Say what training would need: memory, hours, disk; nothing is written."
)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profile of a few steps to workdir/profile.")


def main() -> None:
    """Runs the command with its flags."""
    config, workdir = command.config(), command.workdir()
    if _FREEZE_D.value is not None:
        config.optim.freeze_d = _FREEZE_D.value
    how = {
        "fresh": _FRESH.value,
        "accept_new_data": _ACCEPT_NEW_DATA.value,
        "init_from": _INIT_FROM.value,
    }
    # After the flags: they bring TensorFlow along.
    if _DRY_RUN.value:
        from lwgan.dry_run import dry_run

        for line in dry_run(config, workdir, **how):
            print(line, flush=True)
    else:
        from lwgan.training import train

        train(config, workdir, **how, profile=_PROFILE.value)


if __name__ == "__main__":
    command.run(main, takes_config=True)
