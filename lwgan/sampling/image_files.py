"""Images to files as they come."""

import contextlib
import io
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from lwgan.runs.files import replacing
from lwgan.sampling.sampler import to_uint8
from lwgan.sampling.sheets import make_grid, square_columns

# Of a grid at most: it is held in memory.
GRID_PIXELS = 2**24

_SAVE_OPTIONS = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """A file of uint8 (H, W, C): .png, .webp (lossless) or .jpg.

    C is 1 (grey), 3 (rgb) or 4 (rgba, which a .jpg cannot hold).
    """
    file = io.BytesIO()
    kind = Image.registered_extensions()[suffix]
    plain = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    plain.save(file, kind, **_SAVE_OPTIONS.get(suffix, {}))
    return file.getvalue()


def save_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 (H, W, C) whole or not at all, as ``encode_image`` does by the name's suffix."""
    with replacing(path) as part:
        part.write_bytes(encode_image(image, path.suffix))


def write_images(
    images: Iterator[np.ndarray],
    folder: pathlib.Path,
    names: Sequence[str],
    *,
    extension: str | None,
    npy: bool,
    columns: int | None,
    finish: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Writes float32 (H, W, C) images, one for each name, and ``grid.png`` of the first of them.

    Without an extension (png, webp, jpg) there are no files of single images. ``npy`` adds
    ``samples.npy``, float32 (B, H, W, C), before clipping. ``columns`` are the grid's, which is
    nearly square without. ``finish`` makes uint8 (H, W, C) what is to be seen.
    """
    first = next(images)
    in_grid = max(1, GRID_PIXELS // (first.shape[0] * first.shape[1]))
    of_grid = []
    with contextlib.ExitStack() as stack:
        if npy:
            shape = (len(names), *first.shape)
            array = stack.enter_context(_npy(folder / "samples.npy", shape))
        every = zip(names, itertools.chain([first], images), strict=True)
        for name, image in tqdm(every, total=len(names), unit="images", disable=None):
            if npy:
                array.write(image.astype("<f4").tobytes())
            rounded = finish(to_uint8(image))
            if extension:
                save_image(folder / f"{name}.{extension}", rounded)
            if len(of_grid) < in_grid:
                of_grid.append(rounded)
    columns = columns or square_columns(len(of_grid))
    save_image(folder / "grid.png", make_grid(np.stack(of_grid), columns))


@contextlib.contextmanager
def _npy(path: pathlib.Path, shape: tuple[int, ...]) -> Iterator:
    """A file that becomes a float32 array of this shape. (A mapped one dies of a full disk.)"""
    with replacing(path) as part, part.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
