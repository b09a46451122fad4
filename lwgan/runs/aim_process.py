"""The process that writes to Aim: python aim_process.py OPTIONS, of ``open_run``, in JSON.

Aim's storage can hang where a disk is full, and then only the end of its process helps. So it has
a process of its own, which reads lines of JSON that say what to track (``AimWriter`` sends them),
and prints such lines: which run it has opened, and what has failed.
"""

import base64
import gc
import json
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any

# Seconds for the storage at the end, and from one look at the process that has started this one to
# the next.
_LAST_SECONDS, _LOOKING = 30, 5
# For ``say``: what libraries print goes elsewhere.
_words = os.fdopen(os.dup(1), "w", buffering=1)


def open_run(
    repo: str, experiment: str | None, run_hash: str | None, *, new: bool, patience: float
) -> Any:
    """The Aim run ``run_hash``; without, or with ``new`` where it cannot be had, a new one.

    Where another process holds it, that may let go of it for so many seconds. Raises whatever Aim
    raises.
    """
    import aim

    pathlib.Path(repo).mkdir(parents=True, exist_ok=True)
    options = {
        "repo": repo,
        "experiment": experiment,
        "system_tracking_interval": None,
        "log_system_params": False,
        "capture_terminal_logs": False,
    }
    deadline = time.monotonic() + patience
    while run_hash:
        try:
            return aim.Run(run_hash, **options)
        except Exception as error:
            if "lock" in str(error).lower() and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            if not new:
                raise
            say(lost=" ".join(str(error).split()))
            break
    try:
        return aim.Run(None, **options)
    except Exception:
        # Another process has made the repository meanwhile.
        return aim.Run(None, **options)


def track(run: Any, kind: str, step: int, values: dict[str, Any]) -> None:
    """Tracks what ``AimWriter`` has sent."""
    import aim
    import numpy as np

    if kind == "hparams":
        run["hparams"] = values
        return
    for name, value in values.items():
        if kind == "images":
            pixels = np.frombuffer(base64.b64decode(value["data"]), np.uint8)
            value = aim.Image(pixels.reshape(value["shape"]))
        elif kind == "texts":
            value = aim.Text(value)
        elif kind == "histograms":
            value = aim.Distribution(hist=value["counts"], bin_range=value["range"])
        run.track(value, name=name, step=step)


def say(**words: str) -> None:
    """Tells the process that has started this one."""
    _words.write(json.dumps(words) + "\n")


def end_with(starter: int) -> None:
    """Ends this process some time after the one that has started it, if the storage hangs then."""
    while os.getppid() == starter:
        time.sleep(_LOOKING)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


def main() -> None:
    """Tracks what comes in until there is no more."""
    os.dup2(2, 1)
    # They may be meant for all processes of a job; this one ends when there is no more to track.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        run = open_run(**json.loads(sys.argv[1]))
        say(run=run.hash)
        for line in sys.stdin:
            track(run, **json.loads(line))
        # Whatever the storage does then: the process ends.
        signal.alarm(_LAST_SECONDS)
        run.close()
        # Aim's exit hook waits for runs that are still referred to.
        del run
        gc.collect()
    except Exception as error:
        say(error=" ".join(str(error).split()) or type(error).__name__)
        signal.alarm(1)
        sys.exit(1)


if __name__ == "__main__":
    main()
