"""Shows what the discriminator will see: images of a training batch, and each augmentation of them.

  python -m lwgan.preview --config=configs/folder.py --config.data.path=~/photos
  python -m lwgan.preview --config=configs/folder.py --config.data.path=~/photos --check
  python -m lwgan.preview --config=configs/folder.py --image=cat.png

  python -m lwgan.preview --cache

Writes one PNG, and prints what the dataset is like; --check only prints. Nothing is trained.
--cache lists what lwgan keeps in the user's cache, and --cache_clear removes it.
"""

import functools

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from lwgan import cli
from lwgan.errors import UserError


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    of = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "A run, to take its settings instead of --config.", **of)
    out = "The .png or .webp file to write; one there is replaced."
    flags.DEFINE_string("out", "lwgan-preview.png", out, **of)
    flags.DEFINE_string("image", None, "Show this image only, time and again.", **of)
    flags.DEFINE_integer("num_images", 8, "Images in a row.", 1, **of)
    flags.DEFINE_bool("check", False, "Only say what the dataset is like.", **of)
    flags.DEFINE_bool("cache", False, "Only list what the user's cache holds.", **of)
    flags.DEFINE_bool("cache_clear", False, "Only remove what the user's cache holds.", **of)


def augmented_rows(batch: np.ndarray, config: ConfigDict) -> dict[str, np.ndarray]:
    """A training batch as it is, after each augmentation, and after the run's own.

    uint8 (B, S, S, C) each, by what the row shows.
    """
    import jax
    import jax.numpy as jnp

    from lwgan.keys import seed_key
    from lwgan.sampling.sampler import to_uint8
    from lwgan.training.augment import AUGMENTATIONS, augment_images

    keys = jax.random.split(seed_key(config.train.seed), len(batch))
    images = jnp.asarray(batch, jnp.float32) / 255

    @functools.partial(jax.jit, static_argnames=("types", "hflip"))
    def augmented(images: jax.Array, types: tuple[str, ...], hflip: bool) -> jax.Array:
        always = dict(prob=1.0, flip_unaugmented=True)
        return augment_images(images, keys, keys, types=types, hflip=hflip, **always)

    rows = {"training batch": batch}
    for name in AUGMENTATIONS:
        rows[name] = to_uint8(np.asarray(augmented(images, (name,), False)))
    types, hflip = tuple(config.augment.types), config.augment.hflip
    together = " + ".join(["flip"] * hflip + list(types))
    rows[f"all of this run: {together}"] = to_uint8(np.asarray(augmented(images, types, hflip)))
    return rows


def training_batch(config: ConfigDict, count: int, known: str = "") -> np.ndarray:
    """Images of the first steps, uint8 (count, H, W, C); prints what the dataset is like.

    ``known`` is the fingerprint that a run has noted.
    """
    from lwgan.data.batches import drawing_from
    from lwgan.data.cache import load_dataset
    from lwgan.data.doctor import summary
    from lwgan.data.holdout import split
    from lwgan.data.sources import open_source

    dataset = load_dataset(open_source(config.data, known=known), config.data)
    print(summary(dataset))
    seed, positions = config.train.seed, np.arange(count)
    training, _ = split(dataset, config.data.holdout, seed)
    drawn = drawing_from(dataset, training, seed, balanced=config.data.balanced)
    return dataset.take(drawn(positions), seed, positions)


def one_image(path: str, config: ConfigDict, count: int) -> np.ndarray:
    """An image ``count`` times, with the crops of as many positions: uint8 (count, H, W, C).

    Raises:
      UserError: there is no such file, or it does not decode.
    """
    from lwgan.data.decode import crop, read_image
    from lwgan.data.folder import open_image
    from lwgan.runs.files import local_path
    from lwgan.settings.shapes import shape_of

    source = open_image(local_path("--image", path))
    try:
        info, array = read_image(source, 0, config.data)
    except ValueError as error:
        raise UserError("--image", path, f"does not decode ({error})", "name an image") from None
    print(f"{path}: {info.format}, {info.width}×{info.height} px")
    prob, shape = config.data.crop_prob, shape_of(config.data.image_size)
    return np.stack([crop(array, shape, prob, (0, position)) for position in range(count)])


def what_is_kept(*, clear: bool) -> str:
    """What the user's cache holds, or how much of it is removed."""
    from lwgan.data import kept
    from lwgan.runs.files import cache_root

    if not clear:
        return kept.listing()
    return f"{kept.clear() / 2**20:,.1f} MiB removed from {cache_root()}"


def show_batch(values: cli.Flags) -> None:
    """Runs the command."""
    from lwgan.runs.files import local_path, writing
    from lwgan.sampling.image_files import save_image
    from lwgan.sampling.sheets import make_sheet
    from lwgan.training.checks import check_settings, lies_among_images

    if values.cache or values.cache_clear:
        print(what_is_kept(clear=values.cache_clear))
        return
    config = cli.config(values)
    check_settings(config)
    out = local_path("--out", values.out)
    if out.suffix not in (".png", ".webp"):
        raise UserError("--out", str(out), "must end in .png or .webp", "name another")
    if not (values.image or values.check) and lies_among_images(config, out):
        reason = "lies among the images, and would become one of them"
        raise UserError("--out", str(out), reason, "name a place outside of data.path")
    if not out.parent.is_dir():
        raise UserError("--out", str(out), "its folder does not exist", "name another")
    if values.image:
        images = one_image(values.image, config, values.num_images)
    else:
        known = cli.open_run(values).info.fingerprint if values.workdir else ""
        images = training_batch(config, values.num_images, known)
    if not values.check:
        sheet = make_sheet(augmented_rows(images, config))
        with writing(out.parent, "--out"):
            save_image(out, sheet)
        print(f"{out} shows a training batch and its augmentations")


main = functools.partial(cli.run, define_flags, show_batch, takes_config=True)

if __name__ == "__main__":
    main()
