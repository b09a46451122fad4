"""Shows how a generator has learnt: the same latents through every checkpoint that the run keeps.

  python -m lwgan.progress --workdir=runs/quickstart
  python -m lwgan.progress --workdir=runs/quickstart --seed=7 --num_images=9 --fps=2 --format=gif

Writes a video with a frame for each checkpoint, and a sheet with a row for each, into videos/ in the run
unless --out says otherwise; nothing is overwritten. Checkpoints that are damaged are named and left out.
"""

from collections.abc import Iterator

import numpy as np
from absl import flags

from lwgan import command

_OF_RUN = command.OfRun()
_WEIGHTS = flags.DEFINE_enum(
    "weights", "ema", ["ema", "raw"], "The averaged generator, or the live one."
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of latents and noise.", lower_bound=0, upper_bound=2**32 - 1
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 16, "Pictures in a frame.", lower_bound=1)
_NROW = flags.DEFINE_integer("nrow", None, "Pictures in a row of the grid.", lower_bound=1)
_FPS = flags.DEFINE_integer("fps", 4, "Checkpoints per second.", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "mp4", ["mp4", "webp", "gif"], "Of the video.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures drawn at once.", lower_bound=1)

SHEET_COLUMNS = 8


def main() -> None:
    """Runs the command with its flags."""
    from tqdm import tqdm

    from lwgan import checkpoint, sampling, trained, writers

    this_run, seed, count = _OF_RUN.run(), _SEED.value, _NUM_IMAGES.value
    steps = checkpoint.whole(this_run.workdir)
    columns = _NROW.value or sampling.square_columns(count)
    rows: dict[str, np.ndarray] = {}

    def drawn() -> Iterator[np.ndarray]:
        for step in tqdm(steps, unit="checkpoints", disable=None):
            sampler = trained.at_step(this_run, step, _WEIGHTS.value)
            latents = sampler.latents(seed, count)
            images = sampling.to_uint8(sampler(latents, seed, _BATCH_SIZE.value))
            rows[f"step {step}"] = sampling.thumbnails(images[:SHEET_COLUMNS])
            yield sampling.grid(images, columns)

    default = f"videos/{steps[-1]:08d}-progress-seed{seed}-{_WEIGHTS.value}"
    written = [f"progress.{_FORMAT.value}", "sheet.png"]
    with _OF_RUN.output(this_run, default, written) as folder:
        writers.write_video(folder / written[0], drawn(), _FPS.value)
        sampling.save_picture(folder / "sheet.png", sampling.sheet(rows))
    for name in written:
        print(folder / name)


if __name__ == "__main__":
    command.run(main)
