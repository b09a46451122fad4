"""Every setting, said once: its default, what it means, and what its type alone does not say.

The defaults are lightweight-gan's where it has the setting. What a setting means names its unit,
and what a special value stands for; a negative number leaves the choice to the data.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict, FieldReference

from lwgan.settings.rules import (
    ABOVE_ZERO,
    ANY,
    BELOW_ONE,
    Rule,
    at_least,
    between,
    one_of,
    power_of_two,
    tuple_of,
)
from lwgan.settings.shapes import IMAGE_SIZE, KINDS


class Setting(NamedTuple):
    """A setting; the type of its default is the type of all its values, unless ``kind`` is."""

    default: Any
    meaning: str
    rule: Rule = ANY
    # Whether it stays as it is as long as a run lives.
    fixed: bool = False
    kind: type | tuple[type, ...] | None = None

    @property
    def type(self) -> "type | tuple[type, ...]":
        """Of its values."""
        return self.kind or type(self.default)


SIZES = tuple_of(int, "sizes in pixels such as (32,64), or ()")
AUGMENTATION_NAMES = tuple_of(str, "names such as ('cutout','translation'), or ()")
METRIC_NAMES = tuple_of(str, "names such as ('kid','fid')")
NAMES = Rule(
    lambda names: all(type(name) is str for name in names) and len(set(names)) == len(names),
    "names such as ('boats','cars'), each once, or ()",
)
LABELS = Rule(
    lambda value: value in ("none", "folders", "tfds") or value.endswith((".json", ".csv")),
    "none, folders, tfds, or a .json or .csv file",
)
ROWS_AND_COLUMNS = Rule(
    lambda value: value == () or ([type(n) for n in value] == [int, int] and min(value) >= 1),
    "(rows, columns), or ()",
)
SIDE_CHANNELS = Rule(lambda value: value == 0 or value >= 2, "{kind} of at least 2, or 0")

SETTINGS: dict[str, dict[str, Setting]] = {
    "data": {
        "source": Setting(
            "folder",
            "where images come from: files (folder), TensorFlow Datasets (tfds), a font of emoji",
        ),
        "path": Setting("", "folder: a folder of images at any depth, or a zip or tar of one"),
        "name": Setting("", "tfds: the dataset, perhaps with a configuration and a version"),
        "split": Setting("train", "tfds: also a part, train[:10%], or several, train+test"),
        "data_dir": Setting("", "tfds: where prepared datasets lie; empty: ~/tensorflow_datasets"),
        "subset": Setting("faces", "openmoji: which emoji"),
        "image_size": Setting(256, "pixels of each side", IMAGE_SIZE, fixed=True, kind=KINDS),
        "fit": Setting(
            "crop",
            "how images of another shape come to it: their middle, or the whole amid white (pad) "
            "or stretched, which lwgan.sample undoes",
            fixed=True,
        ),
        "labels": Setting(
            "none",
            "what says which kind each image is: its folder (folders), a .json or .csv file of "
            "names and labels, or TensorFlow Datasets (tfds)",
            LABELS,
        ),
        "label_names": Setting(
            (), "the labels in their order; (): all, kept from the first start on", NAMES
        ),
        "balanced": Setting(False, "as many images of each label, however few it has", fixed=True),
        "mode": Setting("rgb", "channels of the images", one_of("rgb", "rgba", "grey"), fixed=True),
        "crop_prob": Setting(
            0.0, "probability of a random-resized crop instead of the centre", between(0, 1)
        ),
        "cache": Setting(
            "auto",
            "decoded images are kept in memory, in a file (disk), or decoded at each use (none); "
            "auto: what fits",
            one_of("auto", "memory", "disk", "none"),
        ),
        "holdout": Setting(
            0.0,
            "about this share of the images is held out, for evaluation alone",
            BELOW_ONE,
            fixed=True,
        ),
        "num_threads": Setting(
            -1, "threads that read images; negative: one a core", at_least(1, negative=True)
        ),
    },
    "model": {
        "latent_dim": Setting(256, "size of a latent", at_least(1), fixed=True),
        "fmap_max": Setting(512, "channels of the widest layer", at_least(1), fixed=True),
        "fmap_inverse_coef": Setting(
            12,
            "2 to this power, divided by pixels, is a layer's width up to fmap_max",
            between(1, 30),
            fixed=True,
        ),
        "disc_fmap_inverse_coef": Setting(
            -1,
            "the same for the discriminator; negative: the generator's",
            between(-1, 30),
            fixed=True,
        ),
        "min_channels": Setting(
            -1,
            "width of layers of 512 px and more; negative: the image's channels, at least 3",
            at_least(1, negative=True),
            fixed=True,
        ),
        "attn_resolutions": Setting(
            (32,), "pixels at which both networks attend", SIZES, fixed=True
        ),
        "attn_heads": Setting(8, "heads of each attention", at_least(1), fixed=True),
        "attn_head_dim": Setting(64, "channels of a head", at_least(1), fixed=True),
        "freq_chan_attn": Setting(
            False, "skip-layer excitation by frequencies (FCANet)", fixed=True
        ),
        "antialias": Setting(False, "blur before each change of size", fixed=True),
        "icnr_init": Setting(True, "upsampling starts free of checkerboards", fixed=True),
        "output": Setting(
            "linear", "the generator's last layer, or tanh: no value outside of [0, 1]", fixed=True
        ),
        "disc_output_size": Setting(
            1, "1 logit for an image, or 5 for 5×5: art rather than faces", one_of(1, 5), fixed=True
        ),
        "side_channels": Setting(
            0, "width of the discriminator's 32 px head; 0: 64", SIDE_CHANNELS, fixed=True
        ),
        "side_attention": Setting(True, "attention in that head", fixed=True),
        "recon_size": Setting(
            128, "pixels of the decoders' output", power_of_two(16, 1024), fixed=True
        ),
        "remat": Setting(
            False, "compute activations twice instead of keeping them: less memory, more time"
        ),
    },
    "loss": {
        "kind": Setting("hinge", "the adversarial loss", fixed=True),
        "gp_weight": Setting(10.0, "weight of the gradient penalty; 0: none", at_least(0)),
        "gp_every": Setting(
            4, "steps from one penalty to the next; the weight is not scaled by it", at_least(1)
        ),
        "aux_weight": Setting(
            1.0, "weight of the discriminator's reconstructions; 0: none", at_least(0)
        ),
    },
    "augment": {
        "prob": Setting(
            -1.0,
            "probability of DiffAugment; negative: from the number of images",
            between(-1, 1),
        ),
        "target": Setting(
            0.0,
            "the probability adapts until d/sign_of_reals is this, and augment.prob is where it "
            "begins (negative: 0); 0: it stays",
            BELOW_ONE,
            fixed=True,
        ),
        "adapt_over": Setting(
            100.0, "thousands of images in which it may go from 0 to 1", ABOVE_ZERO
        ),
        "types": Setting(
            ("cutout", "translation"),
            "augmentations of DiffAugment, applied in this order; what moves in is 0",
            AUGMENTATION_NAMES,
        ),
        "per_example": Setting(True, "a coin for each image; False: for each micro-batch"),
        "hflip": Setting(True, "mirror half of the real images"),
    },
    "optim": {
        "name": Setting("adam", "the optimizer of both networks", fixed=True),
        "learning_rate": Setting(2e-4, "of both networks", ABOVE_ZERO),
        "b1": Setting(0.5, "decay of the gradients' mean", BELOW_ONE),
        "b2": Setting(0.9, "decay of the mean of their squares", BELOW_ONE),
        "ttur_mult": Setting(
            1.0,
            "the discriminator's learning rate is this many times the generator's",
            ABOVE_ZERO,
        ),
        "warmup": Setting(
            0,
            "first steps of a run, in which the learning rates grow",
            at_least(0),
        ),
        "decay": Setting(
            0.0,
            "share of the run, at its end, in which the learning rates fall to 0, as a cosine",
            between(0, 1),
        ),
        "freeze_d": Setting(
            0,
            "the discriminator's first blocks, of highest resolution, that stay as they are",
            at_least(0),
        ),
    },
    "ema": {
        "schedule": Setting(
            "ramp", "ramp: every step from the start; reference: lightweight-gan's"
        ),
        "half_life": Setting(10.0, "of the EMA generator, thousands of images (ramp)", ABOVE_ZERO),
    },
    "train": {
        "num_steps": Setting(150_000, "updates of both networks", at_least(1)),
        "batch_size": Setting(
            40, "real images of a step, over all devices and micro-batches", at_least(1)
        ),
        "grad_accum": Setting(
            4,
            "micro-batches of a step; negative: as few as fit into the memory, for good",
            at_least(1, negative=True),
        ),
        "precision": Setting(
            "auto",
            "of matrix products and convolutions; auto: what the device is best at",
            one_of("auto", "float32", "tf32", "bfloat16"),
        ),
        "seed": Setting(0, "of everything random", between(0, 2**32 - 1), fixed=True),
        "log_every": Setting(50, "steps", at_least(1)),
        "max_recoveries": Setting(
            3,
            "times in a row that training goes back from a loss that is not finite before it stops",
            at_least(0),
        ),
    },
    "checkpoint": {
        "every": Setting(1000, "steps", at_least(1)),
        "keep_last": Setting(3, "newest checkpoints that are kept", at_least(1)),
        "keep_every": Setting(
            10_000, "steps; checkpoints at its multiples stay for good; 0: none", at_least(0)
        ),
    },
    "sample": {
        "every": Setting(1000, "steps; 0: never", at_least(0)),
        "grid": Setting((), "rows, columns; (): 8×8, from 512 px on 4×4", ROWS_AND_COLUMNS),
        "format": Setting(
            "auto",
            "of the grids' files; auto: png, from 512 px on jpg (rgba: webp)",
            one_of("auto", "png", "jpg", "webp"),
        ),
    },
    "eval": {
        "every": Setting(
            0, "steps; 0: never; the checkpoint with the best figure is kept", at_least(0)
        ),
        "metrics": Setting(
            ("kid", "fid", "pr"),
            "what is measured; the first of kid and fid chooses the best checkpoint",
            METRIC_NAMES,
        ),
        "num_images": Setting(
            2048,
            "samples; of real images, all count for fid, and as many (or 10,000) for kid and pr",
            at_least(8),
        ),
        "features": Setting("inception", "the network whose features are compared"),
        "weights": Setting("", "a file of its weights; empty: the published one"),
        "resize": Setting("clean", "how images come to its size"),
        "background": Setting("white", "what lies under rgba images", one_of("white", "black")),
    },
    "track": {
        "aim": Setting(True, "track with Aim where it is installed"),
        "repo": Setting("", "folder of the Aim repository; empty: the one that holds the run"),
        "experiment": Setting("", "name in Aim; empty: the run directory's"),
        "tensorboard": Setting(False, "TensorBoard files in the run as well (always without Aim)"),
    },
}


def default_config() -> ConfigDict:
    """All settings with their defaults, as ``lwgan.train`` takes them."""
    return config_of(
        {
            group: {name: setting.default for name, setting in settings.items()}
            for group, settings in SETTINGS.items()
        }
    )


def config_of(values: dict[str, dict[str, Any]]) -> ConfigDict:
    """Groups of settings as a ConfigDict, which refuses values of another type."""
    data = values.get("data", {})
    if isinstance(size := data.get("image_size"), KINDS):
        values = values | {"data": data | {"image_size": FieldReference(size, field_type=KINDS)}}
    return ConfigDict(values)


def reference_config() -> ConfigDict:
    """lightweight-gan 1.2.1's networks, losses and steps exactly, their quirks included."""
    config = default_config()
    # A literal 3, also for rgba and grey.
    config.model.min_channels = 3
    # Meant there, but overwritten.
    config.model.icnr_init = False
    # One coin for a whole micro-batch; flips of augmented images only.
    config.augment.per_example = False
    # Copies of the live generator until step 24,002.
    config.ema.schedule = "reference"
    config.train.precision = "float32"
    return config


def by_full_name() -> dict[str, Setting]:
    """Every setting by its full name, e.g. ``data.image_size``."""
    return {
        f"{group}.{name}": setting
        for group, settings in SETTINGS.items()
        for name, setting in settings.items()
    }


def flatten(config: ConfigDict) -> dict[str, Any]:
    """The value of every setting by its full name, e.g. ``data.image_size``."""
    return {
        f"{group}.{name}": value
        for group, settings in config.items()
        for name, value in settings.items()
    }
