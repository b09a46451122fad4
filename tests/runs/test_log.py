"""What the terminal and the log show of messages."""

import os
import subprocess
import sys

from tests.house import ROOT

CODE = """
import logging as python_logging, pathlib, sys
from absl import flags, logging
from lwgan.runs import log

flags.FLAGS.mark_as_parsed()
log.start()

def message(logger, level, text, path):
    record = logger.makeRecord(logger.name, level, path, 1, text, (), None)
    logger.handle(record)

absl = logging.get_absl_logger()
message(absl, python_logging.INFO, "of a script", "/home/me/script.py")
message(absl, python_logging.INFO, "of lwgan", str(pathlib.Path(log.__file__)))
message(absl, python_logging.INFO, "of a library", "/lib/site-packages/orbax/x.py")
message(absl, python_logging.WARNING, "a library warns", "/lib/site-packages/orbax/x.py")
clu = "/lib/site-packages/clu/platform/x.py"
message(absl, python_logging.INFO, "Setting work unit notes: 5 steps/s", clu)
other = python_logging.getLogger("asyncio")
message(other, python_logging.ERROR, "never retrieved", "/lib/asyncio.py")
try:
    1 / 0
except ZeroDivisionError:
    failed = sys.exc_info()
path = "/lib/site-packages/orbax/checkpoint/_src/futures/future.py"
record = absl.makeRecord(absl.name, python_logging.ERROR, path, 1, "a thread failed", (), failed)
absl.handle(record)

class Fails:
    def __init__(self, reason):
        self.reason = reason
    def __del__(self):
        raise RuntimeError(self.reason)

Fails("Event loop is closed")
print("and", file=sys.stderr)
Fails("something else")
"""


def test_messages_are_ours_and_the_warnings_of_libraries():
    ended = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, _, other_error = ended.stderr.partition("and\n")
    assert other_error.endswith("RuntimeError: something else\n")
    texts = [line.partition("  ")[2] for line in said.splitlines()]
    assert texts == ["of a script", "of lwgan", "a library warns", "5 steps/s"]


NAMES = r"""
import pathlib, sys
from absl import logging
from lwgan.runs import log
log.start()
print("caf\udce9.png")
with log.to_file(pathlib.Path(sys.argv[1])):
    logging.info("caf\udce9.png")
"""


def test_names_that_are_not_utf8_are_shown(tmp_path):
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", NAMES, str(tmp_path / "log.txt")]
    ended = subprocess.run(
        command, cwd=ROOT, env=strict, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "caf\\udce9.png\n"
    assert (tmp_path / "log.txt").read_text().endswith("caf\\udce9.png\n")
