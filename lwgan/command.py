"""What all commands share: flags, one line for a user's error, exit codes."""

import pathlib
import sys
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict, config_flags

from lwgan import log
from lwgan.errors import Interrupted, UserError

USER_ERROR, INTERRUPTED = 2, 75  # exit codes; 0: finished, 1: anything else


def run(main: Callable[[], None], *, takes_config: bool = False) -> None:
    """Parses the flags, runs ``main``, and ends the process with the exit code of what happened.

    ``takes_config`` gives the command ``--config``, for ``config()`` to read.
    """
    argv = sys.argv
    if {"--help", "-h"} & set(argv):
        print(sys.modules["__main__"].__doc__.strip() + "\n" + flags.FLAGS.main_module_help())
        return
    log.start()
    try:
        if takes_config:
            _define_config(argv)
        _parse(argv)
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except Interrupted as end:
        print(f"interrupted: {end}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def config() -> ConfigDict:
    """The settings that the flags ask for.

    Raises:
      UserError: there is neither ``--config`` nor a run in ``--workdir``.
    """
    settings = flags.FLAGS["config"].value
    if settings is None:
        raise UserError(
            "--config", None, "must name a file of settings", "try configs/quickstart.py"
        )
    return settings


def workdir() -> str:
    """``--workdir``, or runs/<config>, or runs/<config>-<argument>."""
    if flags.FLAGS["workdir"].value:
        return flags.FLAGS["workdir"].value
    path, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return str(pathlib.Path("runs", "-".join(filter(None, [pathlib.Path(path).stem, argument]))))


def _define_config(argv: list[str]) -> None:
    """``--config`` names a file; without it the settings of the run in ``--workdir`` are the start."""
    file, run_directory = _value_of("config", argv), _value_of("workdir", argv)
    if file is None and run_directory is not None:
        from lwgan import run

        own = run.read(pathlib.Path(run_directory).expanduser()).config
        config_flags.DEFINE_config_dict("config", own, "Settings to change.")
    elif file is None or pathlib.Path(file.partition(":")[0]).is_file():
        config_flags.DEFINE_config_file("config", None, "A file of settings.")
    else:
        raise UserError("--config", file, "there is no such file", "try configs/quickstart.py")


def _value_of(name: str, argv: list[str]) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            return value if equals else following
    return None


def _parse(argv: list[str]) -> None:
    """Reads the flags; whatever is wrong with them is the user's to mend."""
    try:
        rest = flags.FLAGS(argv)[1:]
    except Exception as error:  # absl and ml_collections raise many kinds
        # The last line says what is wrong; before it may come the traceback of a config file.
        reason = str(error).replace("\\n", "\n").strip().splitlines()[-1]
        name, value = _blamed(argv, reason)
        see = "see --help and configs/default.py"
        raise UserError(name, value, reason.strip("'. "), see) from None
    if rest:
        raise UserError(
            "argument", rest[0], "is not a flag", "settings are --config.group.name=value"
        )


def _blamed(argv: list[str], reason: str) -> tuple[str, str]:
    """The flag and value that an error speaks of."""
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if name.split(".")[-1] in reason:
            return f"--{name}", value
    return "flags", " ".join(argv[1:])
