"""Curves of runs, read from their metrics.jsonl: a panel for each curve, a line for each run.

    pip install matplotlib
    python benchmarks/curves.py --out=curves.png --curves=d/sign_of_reals,d/grad_norm runs/a runs/b

A line is the mean of ``--window`` values, over the real images that the run has seen; a run without
a curve is left out of its panel.
"""

import json
import pathlib
import sys

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_OUT = flags.DEFINE_string("out", None, "The picture.", required=True)
_CURVES = flags.DEFINE_list("curves", None, "Names as in metrics.jsonl.", required=True)
_WINDOW = flags.DEFINE_integer("window", 10, "Values that a point is the mean of.", lower_bound=1)


def read_curve(workdir: pathlib.Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which a run has written a curve, and its values; both may be empty."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if name in record]
    return np.array([r["step"] for r in records]), np.array([r[name] for r in records])


def main(argv: list[str]) -> None:
    """Draws the picture."""
    import matplotlib

    matplotlib.use("svg" if _OUT.value.endswith(".svg") else "agg")
    from matplotlib import pyplot

    from lwgan.runs.directory import read_run

    names, workdirs = _CURVES.value, [pathlib.Path(name) for name in argv[1:]]
    figure, panels = pyplot.subplots(
        1, len(names), figsize=(4 * len(names), 3), layout="constrained", squeeze=False
    )
    mean = np.ones(_WINDOW.value) / _WINDOW.value
    for panel, name in zip(panels[0], names, strict=True):
        for workdir in workdirs:
            steps, values = read_curve(workdir, name)
            if not steps.size:
                continue
            images = steps * read_run(workdir).config.train.batch_size / 1000
            tail = images[_WINDOW.value - 1 :]
            panel.plot(tail, np.convolve(values, mean, "valid"), label=workdir.name)
        panel.set_title(name)
        panel.set_xlabel("thousand images")
        panel.grid(alpha=0.3)
    panels[0][0].legend()
    figure.savefig(_OUT.value, dpi=100)


if __name__ == "__main__":
    app.run(main)
