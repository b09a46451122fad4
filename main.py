"""Trains a generator on your pictures, or continues a run.

  python main.py --config=configs/quickstart.py
  python main.py --config=configs/folder.py --config.data.path=~/photos
  python main.py --workdir=runs/folder --config.train.num_steps=300000

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
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profile of a few steps to workdir/profile.")


def main() -> None:
    """Runs the command with its flags."""
    config, workdir = command.config(), command.workdir()
    from lwgan.training import train  # after the flags: it brings TensorFlow along

    train(
        config,
        workdir,
        fresh=_FRESH.value,
        accept_new_data=_ACCEPT_NEW_DATA.value,
        profile=_PROFILE.value,
    )


if __name__ == "__main__":
    command.run(main, takes_config=True)
