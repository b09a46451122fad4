"""Films the way from latents to latents and back to the first.

  python -m lwgan.interpolate --workdir=runs/quickstart
  python -m lwgan.interpolate --workdir=runs/quickstart --seeds=1,5,9 --num_images=1 --frames=360
  python -m lwgan.interpolate --workdir=runs/quickstart --num_keyframes=8 --format=webp

Image i of the grid goes through image i of each seed, along the sphere and at constant angular
speed; the noise inputs stay those of the first seed, and labels are mixed on the way. Writes the
video, and a sheet with a row from each seed to the next, into videos/ in the run unless --out says
otherwise; nothing is overwritten.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from lwgan import cli
from lwgan.errors import UserError

if TYPE_CHECKING:
    from lwgan.sampling.trained import Trained

SHEET_COLUMNS = 8


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    cli.define_run_flags(values)
    cli.define_checkpoint_flags(values)
    of = {"flag_values": values}
    flags.DEFINE_string("seeds", None, "The seeds to go through: 0-7, or 1,5,9.", **of)
    label = "The label's name or number, or several with commas, which the seeds have in turn."
    flags.DEFINE_string("label", None, label, **of)
    flags.DEFINE_integer("seed", 0, "The first of --num_keyframes seeds.", 0, 2**32 - 1, **of)
    keyframes = "How many seeds to go through, without --seeds."
    flags.DEFINE_integer("num_keyframes", 4, keyframes, 2, **of)
    flags.DEFINE_integer("num_images", 4, "Images at once.", 1, **of)
    flags.DEFINE_integer("nrow", None, "Images in a row of the grid.", 1, **of)
    flags.DEFINE_integer("frames", 240, "Frames; the last is the first.", 3, **of)
    flags.DEFINE_integer("fps", 30, "Frames per second.", 1, **of)
    flags.DEFINE_enum("format", "mp4", ["mp4", "webp", "gif"], "Of the video.", **of)
    flags.DEFINE_float(
        "truncation", 1.0, "Multiplies the latents; 0: the same for all images.", 0.0, **of
    )
    flags.DEFINE_bool("save_frames", False, "Also write every frame as PNG.", **of)
    flags.DEFINE_integer("batch_size", 16, "Images drawn at once.", 1, **of)


def keyframe_seeds(values: cli.Flags) -> list[int]:
    """The seeds to go through.

    Raises:
      UserError: they name no way that can be gone in so many frames.
    """
    text = values.seeds
    if text is None:
        text = f"{values.seed}-{values.seed + values.num_keyframes - 1}"
    seeds = cli.parse_seeds("--seeds", text)
    if len(set(seeds)) < 2:
        raise UserError("--seeds", text, "must be two different ones at least", "name more")
    if values.frames <= len(seeds):
        reason = f"must be more than the {len(seeds)} seeds"
        raise UserError("--frames", values.frames, reason, "name more")
    return seeds


def draw_frames(
    values: cli.Flags,
    trained: "Trained",
    latents: np.ndarray,
    labels: np.ndarray | None,
    noise_seed: int,
) -> Iterator[np.ndarray]:
    """The images of each frame, uint8 (num_images, H, W, C), of latents (frames, num_images, D).

    ``labels`` (frames, num_images, K), None without.
    """
    from lwgan.sampling.sampler import Draws, to_uint8

    frames, count, _ = latents.shape
    own = Draws.of_seed(noise_seed, count)
    noise = Draws(*(np.tile(each, frames) for each in own))
    flat = latents.reshape(frames * count, -1)
    flat_labels = None if labels is None else labels.reshape(frames * count, -1)
    images = trained.stream(flat, noise, values.batch_size, values.truncation, labels=flat_labels)
    for _ in range(frames):
        yield to_uint8(np.stack(list(itertools.islice(images, count))))


def labels_of_keyframes(
    values: cli.Flags, trained: "Trained", seeds: Sequence[int]
) -> np.ndarray | None:
    """The labels at the seeds, (num_images, seeds, K): --label's in turn, or drawn ones.

    None without labels.

    Raises:
      UserError: the run has no such label.
    """
    from lwgan.sampling.labels import chosen_labels, labels_at
    from lwgan.sampling.sampler import Draws

    names, count = trained.label_names, values.num_images
    if values.label is not None:
        places = chosen_labels(values.label, names)
        if len(places) > len(seeds):
            reason = f"names {len(places)} labels, and there are {len(seeds)} seeds"
            raise UserError("--label", values.label, reason, f"use --num_keyframes={len(places)}")
        turns = np.resize(places, len(seeds))
        return np.tile(labels_at(turns, names), (count, 1, 1))
    if not names:
        return None
    return np.stack([trained.drawn_labels(Draws.of_seed(seed, count)) for seed in seeds], axis=1)


def sheet_rows(seeds: Sequence[int], stops: np.ndarray) -> dict[str, np.ndarray]:
    """The frames that each row of the sheet shows: a row from each seed to the next."""
    titles = (f"seed {a} to {b}" for a, b in itertools.pairwise([*seeds, seeds[0]]))
    return {
        title: np.linspace(start, stop, SHEET_COLUMNS).round().astype(int)
        for title, (start, stop) in zip(titles, itertools.pairwise(stops), strict=True)
    }


def default_name(values: cli.Flags, step: int, seeds: Sequence[int]) -> str:
    """The directory in videos/ of what the flags ask for."""
    from lwgan.sampling.labels import label_suffix

    of_seeds = "-".join(map(str, seeds[:8])) + "-and-more" * (len(seeds) > 8)
    name = f"{step:08d}-seeds{of_seeds}-{values.weights}{label_suffix(values.label)}"
    return name if values.truncation == 1 else f"{name}-truncation{values.truncation:g}"


def film(values: cli.Flags) -> None:
    """Runs the command."""
    seeds = keyframe_seeds(values)
    from tqdm import tqdm

    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.paths import closed_loop, mixed_loop
    from lwgan.sampling.sheets import make_grid, make_sheet, square_columns, thumbnails
    from lwgan.sampling.video import write_video

    trained = cli.load_trained(values)
    count = values.num_images
    # (B, K, D).
    keyframes = np.stack([trained.latents(seed, count) for seed in seeds], axis=1)
    ways, stops = zip(*(closed_loop(each, values.frames) for each in keyframes), strict=True)
    labels = labels_of_keyframes(values, trained, seeds)
    if labels is not None:
        labels = np.stack([mixed_loop(*each) for each in zip(labels, stops, strict=True)], axis=1)
    # The sheet shows the first image.
    rows = sheet_rows(seeds, stops[0])
    on_sheet = {int(number) for row in rows.values() for number in row}
    shown: dict[int, np.ndarray] = {}
    columns = values.nrow or square_columns(count)
    video = f"interpolation.{values.format}"
    written = [video, "sheet.png", *["frames"] * values.save_frames]
    default = trained.run.workdir / "videos" / default_name(values, trained.step, seeds)
    with cli.output(values, default, written) as folder:
        if values.save_frames:
            (folder / "frames").mkdir()

        def frames() -> Iterator[np.ndarray]:
            drawn = draw_frames(values, trained, np.stack(ways, axis=1), labels, seeds[0])
            for number, images in enumerate(
                tqdm(drawn, total=values.frames, unit="frames", disable=None)
            ):
                if number in on_sheet:
                    shown[number] = thumbnails(images[:1])[0]
                frame = make_grid(images, columns) if count > 1 else images[0]
                if values.save_frames:
                    save_image(folder / "frames" / f"{number:05d}.png", frame)
                yield frame

        write_video(folder / video, frames(), values.fps)
        sheet = {title: np.stack([shown[n] for n in row]) for title, row in rows.items()}
        save_image(folder / "sheet.png", make_sheet(sheet))
    for name in written:
        print(folder / name)


main = functools.partial(cli.run, define_flags, film)

if __name__ == "__main__":
    main()
