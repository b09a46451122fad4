"""Trains as main.py does, and tells by a file when it does what others want to disturb.

    python -m tests.watched_training FOLDER --config=...

FOLDER/samples is there as long as samples are drawn, and so are ``evaluation`` and ``retention``.
Each is drawn out a little, so that it can be hit. What images look like is measured by their means.
"""

import functools
import pathlib
import sys
import time

import main
from lwgan.metrics import evaluator
from lwgan.metrics.evaluator import Evaluator
from lwgan.runs.checkpoint import Saver
from lwgan.training import actions
from tests.metrics.test_evaluator import Means

MOMENTS = {
    "samples": (actions, "draw_grids"),
    "evaluation": (Evaluator, "measure"),
    "retention": (Saver, "_remove_old"),
}
# Seconds.
DRAWN_OUT = 0.1


def watch(moment: str, file: pathlib.Path) -> None:
    """Has the file be there whenever this is going on."""
    home, name = MOMENTS[moment]
    function = getattr(home, name)

    @functools.wraps(function)
    def watched(*arguments, **options):
        file.write_text("")
        try:
            time.sleep(DRAWN_OUT)
            return function(*arguments, **options)
        finally:
            file.unlink()

    setattr(home, name, watched)


if __name__ == "__main__":
    for each in MOMENTS:
        watch(each, pathlib.Path(sys.argv[1], each))
    evaluator.open_features = lambda name, weights, resize: Means()
    main.main([sys.argv[0], *sys.argv[2:]])
