"""Shows what the discriminator will see: pictures of a training batch, and each augmentation of them.

  python -m lwgan.preview --config=configs/folder.py --config.data.path=~/photos
  python -m lwgan.preview --config=configs/folder.py --config.data.path=~/photos --check
  python -m lwgan.preview --config=configs/folder.py --image=cat.png

Writes one PNG, and prints what the data set is like; --check only prints. Nothing is trained.
"""

import pathlib

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from lwgan import command
from lwgan.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "A run, to take its settings instead of --config.")
_OUT = flags.DEFINE_string(
    "out", "lwgan-preview.png", "The .png or .webp file to write; one there is replaced."
)
_IMAGE = flags.DEFINE_string("image", None, "Show this picture only, time and again.")
_COUNT = flags.DEFINE_integer("num_images", 8, "Pictures in a row.", lower_bound=1)
_CHECK = flags.DEFINE_bool("check", False, "Only say what the data set is like.")

Rows = dict[str, np.ndarray]  # what a row shows -> uint8 (B, S, S, C)


def rows(images: np.ndarray, config: ConfigDict) -> Rows:
    """A training batch, uint8 (B, S, S, C), as it is, after each augmentation, and after the run's own."""
    import functools

    import jax
    import jax.numpy as jnp

    from lwgan.augment import AUGMENTATIONS, augment
    from lwgan.keys import seed_key
    from lwgan.sampling import to_uint8

    keys = jax.random.split(seed_key(config.train.seed), len(images))

    @functools.partial(jax.jit, static_argnames=("types", "hflip"))
    def augmented(images: jax.Array, types: tuple[str, ...], hflip: bool) -> jax.Array:
        always = dict(prob=1.0, flip_unaugmented=True)
        return augment(images, keys, keys, types=types, hflip=hflip, **always)

    pictures = jnp.asarray(images, jnp.float32) / 255
    found = {"training batch": images}
    for name in AUGMENTATIONS:
        found[name] = to_uint8(np.asarray(augmented(pictures, (name,), False)))
    types = tuple(config.augment.types)
    together = " + ".join(["flip"] * config.augment.hflip + list(types))
    found[f"all of this run: {together}"] = to_uint8(
        np.asarray(augmented(pictures, types, config.augment.hflip))
    )
    return found


def training_batch(config: ConfigDict, count: int) -> np.ndarray:
    """Pictures of the first steps, uint8 (count, S, S, C); prints what the data set is like."""
    from lwgan import data, doctor, pictures, sources

    source = sources.open_source(config.data)
    kept = pictures.load(source, config.data)
    print(doctor.summary(kept))
    positions = np.arange(count)
    trained, _ = data.split(len(kept.names), config.data.holdout, config.train.seed)
    indices = trained[data.indices_at(config.train.seed, positions, len(trained))]
    return kept.take(indices, config.train.seed, positions)


def one_picture(path: str, config: ConfigDict, count: int) -> np.ndarray:
    """A picture ``count`` times, with the crops of as many positions: uint8 (count, S, S, C).

    Raises:
      UserError: there is no such file, or it does not decode.
    """
    from lwgan import pictures, sources

    source = sources.open_picture(pathlib.Path(path).expanduser())
    try:
        info, array = pictures.read(source, 0, config.data)
    except ValueError as error:
        raise UserError("--image", path, f"does not decode ({error})", "name a picture") from None
    print(f"{path}: {info.format}, {info.width}×{info.height} px")
    prob, size = config.data.crop_prob, config.data.image_size
    return np.stack([pictures.crop(array, size, prob, (0, i)) for i in range(count)])


def main() -> None:
    """Runs the command with its flags."""
    from lwgan import run, sampling, settings

    config = command.config()
    settings.check(config)
    out = pathlib.Path(_OUT.value).expanduser()
    if out.suffix not in (".png", ".webp"):
        raise UserError("--out", str(out), "must end in .png or .webp", "name another")
    if not out.parent.is_dir():
        raise UserError("--out", str(out), "its folder does not exist", "name another")
    if _IMAGE.value:
        images = one_picture(_IMAGE.value, config, _COUNT.value)
    else:
        images = training_batch(config, _COUNT.value)
    if not _CHECK.value:
        sheet = sampling.sheet(rows(images, config))
        with run.writing(out.parent, "--out"):
            sampling.save_picture(out, sheet)
        print(f"{out} shows a training batch and its augmentations")


if __name__ == "__main__":
    command.run(main, takes_config=True)
