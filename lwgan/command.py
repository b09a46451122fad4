"""What all commands share: flags, one line for a user's error, exit codes."""

import contextlib
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from lwgan import log
from lwgan.errors import Interrupted, UserError

if TYPE_CHECKING:
    from lwgan.run import Run
    from lwgan.trained import Trained

flags.disclaim_key_flags()  # --help shows the flags of OfRun with the command's own

USER_ERROR, INTERRUPTED = 2, 75  # exit codes; 0: finished, 1: anything else
MAX_SEEDS = 10**6  # that --seeds may name


def run(main: Callable[[], None], *, takes_config: bool = False) -> None:
    """Parses the flags, runs ``main``, and ends the process with the exit code of what happened.

    ``takes_config`` gives the command ``--config``, for ``config()`` to read.
    """
    argv = sys.argv
    if {"--help", "-h"} & set(argv):
        print(sys.modules["__main__"].__doc__.strip() + "\n" + flags.FLAGS.main_module_help())
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # no traceback; training has a handler of its own
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
        with _flag_errors(argv):  # it reads the overrides at once
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
    """Reads the flags."""
    with _flag_errors(argv):
        rest = flags.FLAGS(argv)[1:]
    if rest:
        raise UserError(
            "argument", rest[0], "is not a flag", "settings are --config.group.name=value"
        )


@contextlib.contextmanager
def _flag_errors(argv: list[str]) -> Iterator[None]:
    """Whatever is wrong with the flags is the user's to mend."""
    try:
        yield
    except Exception as error:  # absl and ml_collections raise many kinds
        what, value, reason = _blamed(argv, str(error))
        raise UserError(what, value, reason, "see --help and configs/default.py") from None


def _blamed(argv: list[str], message: str) -> tuple[str, str | None, str]:
    """The flag and value that an error speaks of, and what is wrong with them."""
    # The last line says it; before it may come the traceback of a config file.
    lines = message.replace("\\n", "\n").strip(" '\".\n").splitlines()
    reason = lines[-1] if lines else "cannot be read"
    if len(lines) == 1 and reason.isidentifier():  # a KeyError
        reason = f"there is no setting '{reason}'"
    reason += "'" * (reason.count("'") % 2)
    named = re.match(r"flag (--[\w.]+)=(.*?): (.+)", reason)
    if named:
        return named[1], named[2], named[3]
    # Of several names the last is the user's: Did you mean "train" instead of "trian"?
    names = re.findall(r"(?:['\"]|--)([\w.]+)", reason)
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if names and names[-1] in (name, *name.split(".")):
            return f"--{name}", value, reason
    overrides = [argument for argument in argv[1:] if argument.startswith("--config.")]
    if len(overrides) == 1 and "Error" not in reason:
        name, _, value = overrides[0].partition("=")
        return name, value, reason
    return "--config", _value_of("config", argv), reason  # an error in the file


class OfRun:
    """The flags of all commands that read a run: what they open, and where they write."""

    def __init__(self) -> None:
        self._workdir = flags.DEFINE_string("workdir", None, "The run directory.")
        self._out = flags.DEFINE_string(
            "out", None, "Directory to write to, made if missing; one in the run by default."
        )

    def run(self) -> "Run":
        """The run.

        Raises:
          UserError: there is none.
        """
        if not self._workdir.value:
            raise UserError(
                "--workdir", None, "must name a run directory", "for example runs/quickstart"
            )
        from lwgan import run

        return run.read(pathlib.Path(self._workdir.value).expanduser())

    def load(self, step: int | None, weights: str) -> "Trained":
        """The run's generator at a checkpoint, the newest by default.

        Raises:
          UserError: there is no such run or checkpoint.
        """
        from lwgan import trained

        return trained.load(self.run().workdir, step, weights)

    @contextlib.contextmanager
    def output(
        self, this_run: "Run", default: str, names: Iterable[str], within: str = ""
    ) -> Iterator[pathlib.Path]:
        """A directory without any of these files, for them: ``--out``/``within``, or ``default`` in the run.

        Raises:
          UserError: it cannot be made or written to.
        """
        from lwgan import run

        folder = this_run.workdir / default
        if self._out.value:
            folder = pathlib.Path(self._out.value).expanduser() / within
        folder = run.new_directory(folder, names, "--out")
        with run.writing(folder, "--out"):
            yield folder


def seeds(flag: str, text: str) -> list[int]:
    """The seeds that a text names, in its order: 0-63, or 1,5,9, or both.

    Raises:
      UserError: it names none, or others than 0 … 2³² - 1.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        digits = first.isdecimal() and (last.isdecimal() or not dash)
        start, stop = (int(first), int(last or first)) if digits else (0, -1)
        if not (start <= stop < 2**32 and len(found) + stop - start < MAX_SEEDS):
            raise UserError(
                flag, text, f"must be at most {MAX_SEEDS} numbers from 0 to {2**32 - 1}",
                "write 0-63 or 1,5,9",
            )  # fmt: skip
        found += range(start, stop + 1)
    return found
