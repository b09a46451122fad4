"""Shows how a generator has learnt: the same latents through every checkpoint that the run keeps.

  python -m lwgan.progress --workdir=runs/quickstart
  python -m lwgan.progress --workdir=runs/quickstart --seed=7 --num_images=9 --fps=2 --format=gif

Writes a video with a frame for each checkpoint, and a sheet with a row for each, into videos/ in
the run unless --out says otherwise; nothing is overwritten. Checkpoints that are damaged are named
and left out.
"""

import functools
from collections.abc import Iterator

import numpy as np
from absl import flags

from lwgan import cli

SHEET_COLUMNS = 8


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    cli.define_run_flags(values)
    of = {"flag_values": values}
    weights = "The EMA generator, or the live one."
    flags.DEFINE_enum("weights", "ema", ["ema", "raw"], weights, **of)
    flags.DEFINE_integer("seed", 0, "Of latents and noise.", 0, 2**32 - 1, **of)
    label = "The label's name or number; without, one is drawn for each image."
    flags.DEFINE_string("label", None, label, **of)
    flags.DEFINE_integer("num_images", 16, "Images in a frame.", 1, **of)
    flags.DEFINE_integer("nrow", None, "Images in a row of the grid.", 1, **of)
    flags.DEFINE_integer("fps", 4, "Checkpoints per second.", 1, **of)
    flags.DEFINE_enum("format", "mp4", ["mp4", "webp", "gif"], "Of the video.", **of)
    flags.DEFINE_integer("batch_size", 16, "Images drawn at once.", 1, **of)


def show_progress(values: cli.Flags) -> None:
    """Runs the command."""
    from tqdm import tqdm

    from lwgan.runs import manifest
    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.labels import label_suffix, one_label
    from lwgan.sampling.sampler import to_uint8
    from lwgan.sampling.sheets import make_grid, make_sheet, square_columns, thumbnails
    from lwgan.sampling.trained import load_step
    from lwgan.sampling.video import write_video

    run, seed, count = cli.open_run(values), values.seed, values.num_images
    steps = manifest.whole_steps(run.workdir)
    columns = values.nrow or square_columns(count)
    rows: dict[str, np.ndarray] = {}

    def frames() -> Iterator[np.ndarray]:
        for step in tqdm(steps, unit="checkpoints", disable=None):
            sampler = load_step(run, step, values.weights)
            latents, labels = sampler.latents(seed, count), None
            if values.label is not None:
                labels = one_label(values.label, sampler.label_names, count)
            images = to_uint8(sampler(latents, seed, values.batch_size, labels=labels))
            rows[f"step {step}"] = thumbnails(images[:SHEET_COLUMNS])
            yield make_grid(images, columns)

    name = f"{steps[-1]:08d}-progress-seed{seed}-{values.weights}{label_suffix(values.label)}"
    video = f"progress.{values.format}"
    written = [video, "sheet.png"]
    with cli.output(values, run.workdir / "videos" / name, written) as folder:
        write_video(folder / video, frames(), values.fps)
        save_image(folder / "sheet.png", make_sheet(rows))
    for name in written:
        print(folder / name)


main = functools.partial(cli.run, define_flags, show_progress)

if __name__ == "__main__":
    main()
