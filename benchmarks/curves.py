"""Curves of runs, read from their metrics.jsonl: a panel for each curve, a line for each run.

    pip install matplotlib
    python benchmarks/curves.py --out=curves.png --curves=d/sign_of_reals,d/grad_norm runs/a runs/b

A line is the mean of ``--window`` values, over the real images that the run has seen; a run with
fewer values of a curve is left out of its panel.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_OUT = flags.DEFINE_string("out", None, "The picture.", required=True)
_CURVES = flags.DEFINE_list("curves", None, "Names as in metrics.jsonl.", required=True)
_WINDOW = flags.DEFINE_integer("window", 10, "Values that a point is the mean of.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Draws the picture."""
    from matplotlib.figure import Figure

    from lwgan.runs.directory import read_run
    from lwgan.runs.tracking import METRICS
    from lwgan.runs.writers import read_line

    names = _CURVES.value
    figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    mean = np.ones(_WINDOW.value) / _WINDOW.value
    for workdir in map(pathlib.Path, argv[1:]):
        lines = (workdir / METRICS).read_bytes().splitlines(keepends=True)
        records = [record for record in map(read_line, lines) if record]
        batch_size = read_run(workdir).config.train.batch_size
        for panel, name in zip(panels, names, strict=True):
            own = [(record["step"], record[name]) for record in records if name in record]
            if len(own) < _WINDOW.value:
                continue
            steps, values = np.transpose(own)
            images = steps[_WINDOW.value - 1 :] * batch_size / 1000
            panel.plot(images, np.convolve(values, mean, "valid"), label=workdir.name)
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name)
        panel.set_xlabel("thousand images")
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(_OUT.value, dpi=100)


if __name__ == "__main__":
    app.run(main)
