"""What all commands share: flags, one line for a user's error, exit codes.

A command is a function that defines flags and one that runs with them; the flags are the command's
own, so that commands can be imported and called side by side.
"""

import contextlib
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from lwgan.data.limits import num_cores
from lwgan.errors import INTERRUPTED, USER_ERROR, Interrupted, UserError, device_errors
from lwgan.runs import log
from lwgan.runs.compiled import THREADS, keep_programs
from lwgan.settings.defaults import by_full_name
from lwgan.settings.shapes import KINDS

if TYPE_CHECKING:
    from lwgan.runs.directory import Run
    from lwgan.sampling.trained import Trained

# As many seeds may --seeds name.
MAX_SEEDS = 10**6

Flags = flags.FlagValues


def run(
    define_flags: Callable[[Flags], None],
    command: Callable[[Flags], None],
    argv: Sequence[str] | None = None,
    *,
    takes_config: bool = False,
) -> None:
    """Parses the flags and runs the command; exits with the code of what went wrong.

    Args:
      define_flags: defines the command's flags.
      command: does what they ask for; ``--help`` begins with the docstring of its module.
      argv: the program and its arguments; those of this process by default.
      takes_config: whether the command has ``--config``, for ``config`` to read.
    """
    argv = list(sys.argv if argv is None else argv)
    values = Flags()
    define_flags(values)
    if {"--help", "-h"} & set(argv):
        doc = sys.modules[command.__module__].__doc__.strip()
        print(doc + "\n" + values.get_help(include_special_flags=False))
        return
    log.start()
    # Commands have flags of their own; without this, absl warns of each message.
    flags.FLAGS.mark_as_parsed()
    try:
        with _interrupted_without_traceback():
            if takes_config:
                _define_config(values, argv)
            _parse(values, argv)
            # XLA by itself knows nothing of a container's quota.
            os.environ.setdefault("PJRT_NPROC", str(num_cores()))
            keep_programs(write="dry_run" not in values or not values.dry_run)
            size = ("--batch_size", values.batch_size) if "batch_size" in values else ("JAX", None)
            with device_errors(*size, "use less at once"):
                command(values)
    except UserError as error:
        _say(f"error: {error}")
        if any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
            # Python would wait for what is being compiled for nothing.
            os._exit(USER_ERROR)
        sys.exit(USER_ERROR)
    except Interrupted as end:
        _say(f"interrupted: {end}")
        # Threads may go on, as those in which XLA compiles, and crash where Python is taken down.
        os._exit(INTERRUPTED)


def _say(last_words: str) -> None:
    # The terminal may be gone.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        print(last_words, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _interrupted_without_traceback() -> Iterator[None]:
    """Ctrl-C ends the process as it ends others; training has a handler of its own."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    # The default, which the first process of a container does not get.
    first = os.getpid() == 1
    signal.signal(signal.SIGINT, (lambda n, _: os._exit(128 + n)) if first else signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def config(values: Flags) -> ConfigDict:
    """The settings that the flags ask for.

    Raises:
      UserError: there is neither ``--config`` nor a run in ``--workdir``.
    """
    settings = values["config"].value
    if settings is None:
        raise UserError(
            "--config", None, "must name a file of settings", "try configs/quickstart.py"
        )
    return settings


def workdir(values: Flags) -> str:
    """``--workdir``, or runs/<config>, or runs/<config>-<argument>."""
    if values["workdir"].value:
        return values["workdir"].value
    path, _, argument = config_flags.get_config_filename(values["config"]).partition(":")
    return str(pathlib.Path("runs", "-".join(filter(None, [pathlib.Path(path).stem, argument]))))


def define_run_flags(values: Flags) -> None:
    """The flags of all commands that read a run: what they open, and where they write."""
    flags.DEFINE_string("workdir", None, "The run directory.", flag_values=values)
    flags.DEFINE_string(
        "out",
        None,
        "Directory to write to, made if missing; one in the run by default.",
        flag_values=values,
    )


def define_checkpoint_flags(values: Flags, *weights: str) -> None:
    """The flags that choose a checkpoint of a run, and which of its generators."""
    step = "The checkpoint: its step, or latest."
    flags.DEFINE_string("step", "latest", step, flag_values=values)
    kinds = list(weights or ("ema", "raw"))
    kind = "The EMA generator (ema), or the live one (raw)."
    flags.DEFINE_enum("weights", "ema", kinds, kind, flag_values=values)


def checkpoint_step(values: Flags, this_run: "Run") -> int:
    """The one checkpoint that ``--step`` names.

    Raises:
      UserError: there is no such checkpoint, or it names several.
    """
    from lwgan.runs import manifest

    if values.step == "latest":
        return manifest.resolve_step(this_run.workdir, None)
    if not values.step.isdecimal():
        raise UserError(
            "--step", values.step, "must be a step or latest", "leave it out for the latest"
        )
    return manifest.resolve_step(this_run.workdir, int(values.step))


def open_run(values: Flags) -> "Run":
    """The run in ``--workdir``.

    Raises:
      UserError: there is none, or its settings cannot be.
    """
    from lwgan.runs.directory import read_run
    from lwgan.runs.files import local_path
    from lwgan.training.checks import check_settings

    if not values.workdir:
        raise UserError(
            "--workdir", None, "must name a run directory", "for example runs/quickstart"
        )
    this_run = read_run(local_path("--workdir", values.workdir))
    # Damaged ones, of which training has never heard.
    check_settings(this_run.config)
    return this_run


def load_trained(values: Flags) -> "Trained":
    """The generator of the run in ``--workdir`` that ``--step`` and ``--weights`` name.

    Raises:
      UserError: there is no such run or checkpoint.
    """
    from lwgan.sampling import trained

    this_run = open_run(values)
    return trained.load_step(this_run, checkpoint_step(values, this_run), values.weights)


@contextlib.contextmanager
def output(
    values: Flags, default: pathlib.Path, names: Iterable[str], within: str = ""
) -> Iterator[pathlib.Path]:
    """A directory without any of these files, for them: ``--out``/``within``, or ``default``.

    Raises:
      UserError: it cannot be made or written to.
    """
    from lwgan.runs import files

    folder = files.local_path("--out", values.out) / within if values.out else default
    folder = files.new_directory(folder, names, "--out")
    with files.writing(folder, "--out"):
        yield folder


def parse_seeds(flag: str, text: str) -> list[int]:
    """The seeds that a text names, in its order: 0-63, or 1,5,9, or both.

    Raises:
      UserError: it names none, or others than 0 … 2³² - 1.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        digits = first.isdecimal() and (last.isdecimal() or not dash)
        start, stop = (int(first), int(last or first)) if digits else (0, -1)
        if not (start <= stop < 2**32 and len(seeds) + stop - start < MAX_SEEDS):
            raise UserError(
                flag,
                text,
                f"must be at most {MAX_SEEDS} numbers from 0 to {2**32 - 1}",
                "write 0-63 or 1,5,9",
            )
        seeds += range(start, stop + 1)
    return seeds


def _define_config(values: Flags, argv: list[str]) -> None:
    """Defines ``--config``, a file; without it the start are the settings of the run in workdir."""
    file, run_directory = _value_of("config", argv), _value_of("workdir", argv)
    options = {"flag_values": values, "sys_argv": argv}
    if file is None and run_directory is not None:
        from lwgan.runs.directory import read_run
        from lwgan.runs.files import local_path

        own = read_run(local_path("--workdir", run_directory)).config
        # It reads the overrides at once.
        with _flag_errors(argv):
            config_flags.DEFINE_config_dict("config", own, "Settings to change.", **options)
    elif file is None or pathlib.Path(file.partition(":")[0]).is_file():
        config_flags.DEFINE_config_file("config", None, "A file of settings.", **options)
    else:
        raise UserError("--config", file, "there is no such file", "try configs/quickstart.py")


class _ImageSizeParser(flags.ArgumentParser):
    """Reads ``data.image_size``."""

    def parse(self, argument: int | str) -> int | str:
        """What a number or a text says."""
        return int(argument) if re.fullmatch(r"[+-]?\d+", str(argument)) else argument


config_flags.register_flag_parser_for_type(KINDS, _ImageSizeParser())


def _value_of(name: str, argv: list[str]) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            return value if equals else following
    return None


def _parse(values: Flags, argv: list[str]) -> None:
    _refuse_repeats(values, argv)
    with _flag_errors(argv):
        rest = values(argv)[1:]
    if rest:
        hint = "settings are --config.group.name=value"
        raise UserError("argument", rest[0], "is not a flag", hint)


def _refuse_repeats(values: Flags, argv: list[str]) -> None:
    """Refuses a flag that is given twice, of which absl would take the last.

    Raises:
      UserError: names the first such flag.
    """
    given: dict[str, str | bool | None] = {}
    rest = iter(argv[1:])
    for argument in rest:
        name, equals, value = argument[1:].removeprefix("-").partition("=")
        if not argument.startswith("-") or not name:
            # absl reads no further either.
            return
        if not equals and name not in values and _is_switch(values, name.removeprefix("no")):
            name, value = name.removeprefix("no"), not name.startswith("no")
        elif not equals:
            value = _is_switch(values, name) or next(rest, None)
        if name in given:
            first = f"is given twice (first {given[name]!r})"
            raise UserError(f"--{name}", value, first, "give it once")
        given[name] = value


def _is_switch(values: Flags, name: str) -> bool:
    """Whether a flag needs no value; those of settings are defined when ``--config`` is read."""
    if name in values:
        return values[name].boolean
    setting = by_full_name().get(name.removeprefix("config."))
    return setting is not None and isinstance(setting.default, bool)


@contextlib.contextmanager
def _flag_errors(argv: list[str]) -> Iterator[None]:
    """Whatever is wrong with the flags is the user's to mend."""
    try:
        yield
    # absl and ml_collections raise many kinds.
    except Exception as error:
        what, value, reason = _blamed(argv, str(error))
        hint = "see --help, and python -m lwgan.settings for the settings"
        raise UserError(what, value, reason, hint) from None


def _blamed(argv: list[str], message: str) -> tuple[str, str | None, str]:
    """The flag and value that an error speaks of, and what is wrong with them."""
    # The last line says it; before it may come the traceback of a config file.
    lines = message.replace("\\n", "\n").strip(" '\".\n").splitlines()
    reason = lines[-1] if lines else "cannot be read"
    if len(lines) == 1 and reason.isidentifier():
        # A KeyError.
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
    # An error in the file.
    return "--config", _value_of("config", argv), reason
