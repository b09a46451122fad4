"""Commands called in this process, as a shell would."""

import contextlib
import importlib
import io
from typing import NamedTuple


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def call(name: str, *arguments: object) -> Ended:
    """Calls ``main`` or a command of lwgan, such as ``lwgan.sample``."""
    main = importlib.import_module(name).main
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([name, *map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
    return Ended(code, out.getvalue(), err.getvalue())
