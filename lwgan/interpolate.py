"""Films the way from latents to latents and back to the first.

  python -m lwgan.interpolate --workdir=runs/quickstart
  python -m lwgan.interpolate --workdir=runs/quickstart --seeds=1,5,9 --num_images=1 --frames=360
  python -m lwgan.interpolate --workdir=runs/quickstart --num_keyframes=8 --format=webp

Picture i of the grid goes through picture i of each seed, along the sphere and at constant angular speed;
the noise inputs stay those of the first seed. Writes the video, and a sheet with a row from each
seed to the next, into videos/ in the run unless --out says otherwise; nothing is overwritten.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from absl import flags

from lwgan import command
from lwgan.errors import UserError

_OF_RUN = command.OfRun()
_STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest by default.")
_WEIGHTS = flags.DEFINE_enum(
    "weights", "ema", ["ema", "raw"], "The averaged generator, or the live one."
)
_SEEDS = flags.DEFINE_string("seeds", None, "The seeds to go through: 0-7, or 1,5,9.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "The first of --num_keyframes seeds.", lower_bound=0, upper_bound=2**32 - 1
)
_NUM_KEYFRAMES = flags.DEFINE_integer(
    "num_keyframes", 4, "How many seeds to go through, without --seeds.", lower_bound=2
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 4, "Pictures at once.", lower_bound=1)
_NROW = flags.DEFINE_integer("nrow", None, "Pictures in a row of the grid.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 240, "Frames; the last is the first.", lower_bound=3)
_FPS = flags.DEFINE_integer("fps", 30, "Frames per second.", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "mp4", ["mp4", "webp", "gif"], "Of the video.")
_TRUNCATION = flags.DEFINE_float(
    "truncation",
    1.0,
    "Multiplies the latents; 0: the same for all pictures.",
    lower_bound=0.0,
)
_SAVE_FRAMES = flags.DEFINE_bool("save_frames", False, "Also write every frame as PNG.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures drawn at once.", lower_bound=1)

SHEET_COLUMNS = 8


def keyframe_seeds() -> list[int]:
    """The seeds to go through.

    Raises:
      UserError: they name no way that can be gone in so many frames.
    """
    text = _SEEDS.value
    if text is None:
        text = f"{_SEED.value}-{_SEED.value + _NUM_KEYFRAMES.value - 1}"
    seeds = command.seeds("--seeds", text)
    if len(set(seeds)) < 2:
        raise UserError("--seeds", text, "must be two different ones at least", "name more")
    if _FRAMES.value <= len(seeds):
        raise UserError(
            "--frames", _FRAMES.value, f"must be more than the {len(seeds)} seeds", "name more"
        )
    return seeds


def main() -> None:
    """Runs the command with its flags."""
    seeds = keyframe_seeds()
    from tqdm import tqdm

    from lwgan import sampling, writers

    trained = _OF_RUN.load(_STEP.value, _WEIGHTS.value)
    frames, count = _FRAMES.value, _NUM_IMAGES.value
    keyframes = np.stack([trained.latents(seed, count) for seed in seeds], axis=1)  # (B, K, D)
    ways, stops = zip(*(sampling.closed_loop(each, frames) for each in keyframes), strict=True)
    latents = np.stack(ways, axis=1).reshape(frames * count, -1)
    own = sampling.Draws.of_seed(seeds[0], count)
    noise = sampling.Draws(*(np.tile(each, frames) for each in own))
    pictures = trained.stream(latents, noise, _BATCH_SIZE.value, _TRUNCATION.value)

    # The frames of the first picture that the sheet shows, a row from each seed to the next.
    rows = [
        np.linspace(start, stop, SHEET_COLUMNS).round().astype(int)
        for start, stop in itertools.pairwise(stops[0])
    ]
    shown: dict[int, np.ndarray] = {}
    columns = _NROW.value or sampling.square_columns(count)
    name = "-".join(map(str, seeds[:8])) + "-and-more" * (len(seeds) > 8)
    default = f"videos/{trained.step:08d}-seeds{name}-{_WEIGHTS.value}"
    if _TRUNCATION.value != 1:
        default += f"-truncation{_TRUNCATION.value:g}"
    video = f"interpolation.{_FORMAT.value}"
    written = [video, "sheet.png", *["frames"] * _SAVE_FRAMES.value]
    with _OF_RUN.output(trained.run, default, written) as folder:
        if _SAVE_FRAMES.value:
            (folder / "frames").mkdir()

        def drawn() -> Iterator[np.ndarray]:
            for number in tqdm(range(frames), unit="frames", disable=None):
                images = sampling.to_uint8(np.stack(list(itertools.islice(pictures, count))))
                if any(number in row for row in rows):
                    shown[number] = sampling.thumbnails(images[:1])[0]
                frame = sampling.grid(images, columns) if count > 1 else images[0]
                if _SAVE_FRAMES.value:
                    sampling.save_picture(folder / "frames" / f"{number:05d}.png", frame)
                yield frame

        writers.write_video(folder / video, drawn(), _FPS.value)
        titles = [
            f"seed {seed} to {to}" for seed, to in zip(seeds, [*seeds[1:], seeds[0]], strict=True)
        ]
        sheet = {
            title: np.stack([shown[number] for number in row])
            for title, row in zip(titles, rows, strict=True)
        }
        sampling.save_picture(folder / "sheet.png", sampling.sheet(sheet))
    for name in written:
        print(folder / name)


if __name__ == "__main__":
    command.run(main)
