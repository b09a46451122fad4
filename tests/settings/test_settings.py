"""What settings may be, and what is said of those that may not."""

import importlib
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import lwgan
from configs import default
from lwgan.data import decode
from lwgan.errors import UserError
from lwgan.models.build import CHANNELS
from lwgan.settings.checks import allowed, holds, with_choices
from lwgan.settings.defaults import by_full_name, flatten
from lwgan.settings.files import changes, fixed_change, from_json, to_json
from lwgan.training.checks import IDLE, NAMES, check_devices, check_settings, without_effect
from lwgan.training.state import build_gan, init_state
from tests.house import ROOT

CONFIGS = sorted(p for p in pathlib.Path(default.__file__).parent.glob("*.py") if p.stem[0] != "_")

NAN, INF = float("nan"), float("inf")


def with_settings(**changes):
    """The default settings with others, whatever their kind: ``data__image_size=48``."""
    groups = default.get_config().to_dict()
    for name, value in changes.items():
        group, _, setting = name.partition("__")
        groups[group][setting] = value
    return ConfigDict(groups)


def test_the_package_and_the_config_file_have_the_same_settings():
    assert default.get_config() == lwgan.default_config()
    assert by_full_name().keys() == flatten(lwgan.default_config()).keys()


def test_every_default_is_allowed():
    for name, setting in by_full_name().items():
        assert holds(setting, setting.default), name


def test_the_list_of_settings_says_each_with_its_meaning_and_what_is_allowed():
    ended = subprocess.run(
        [sys.executable, "-m", "lwgan.settings"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    for name, setting in by_full_name().items():
        place = lines.index(f"{name} = {setting.default!r}")
        choices = NAMES.get(name, ())
        assert setting.meaning in lines[place + 1]
        assert allowed(with_choices(setting, choices)) in lines[place + 1]
        assert all(re.search(rf"\b{choice}\b", lines[place + 1]) for choice in choices)
    assert "whole number from 1; cannot change within a run" in ended.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_files_are_right_and_say_how_to_run_them(path):
    module = importlib.import_module(f"configs.{path.stem}")
    check_settings(module.get_config())
    if path.stem != "default":
        assert f"python main.py --config=configs/{path.name}" in module.__doc__


@pytest.mark.parametrize("size", ["512", "1024"])
def test_ffhq_takes_a_size(size):
    config = importlib.import_module("configs.ffhq").get_config(size)
    check_settings(config)
    assert config.data.image_size == int(size)


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("data.source", ["disk", "", 3], "folder"),
        ("data.path", [None, 3], "text"),
        ("data.subset", ["birds"], "animals"),
        ("data.image_size", [0, -64, 16, 48, 2048, 64.5, "64"], "power of two from 32 to 1024"),
        ("data.mode", ["RGB", "cmyk"], "grey, rgb, rgba"),
        ("data.crop_prob", [-0.1, 1.1, NAN, "half"], "from 0 to 1"),
        ("data.cache", ["file", True], "auto, disk, memory, none"),
        ("data.holdout", [-0.1, 1.0, NAN], "at least 0 and below 1"),
        ("data.num_threads", [0, "two"], "at least 1, or negative"),
        ("model.latent_dim", [0, -1, 1.5, True], "whole number from 1"),
        ("model.fmap_max", [0], "from 1"),
        ("model.fmap_inverse_coef", [0, 31], "from 1 to 30"),
        ("model.disc_fmap_inverse_coef", [-2, 31], "from -1 to 30"),
        ("model.min_channels", [0, "3"], "at least 1, or negative"),
        ("model.attn_resolutions", [32, [32], ("32",), (32.0,), (True,)], r"\(32,64\), or \(\)"),
        ("model.attn_heads", [0], "from 1"),
        ("model.attn_head_dim", [0], "from 1"),
        ("model.freq_chan_attn", [1, "yes", None], "True or False"),
        ("model.disc_output_size", [0, 2, 25, (5,)], "1, 5"),
        ("model.side_channels", [1, -1], "at least 2, or 0"),
        ("model.recon_size", [8, 100, 2048], "power of two from 16 to 1024"),
        ("loss.kind", ["wasserstein", ["hinge"]], "hinge"),
        ("loss.gp_weight", [-1.0, NAN, INF], "number from 0"),
        ("loss.gp_every", [0], "from 1"),
        ("loss.aux_weight", [-0.5, INF], "number from 0"),
        ("augment.prob", [-1.5, 1.01, NAN], "from -1 to 1"),
        ("augment.types", ["color", ["color"], (1,)], r"\('cutout','translation'\), or \(\)"),
        ("augment.hflip", [0.5], "True or False"),
        ("optim.name", ["sgd"], "adam"),
        ("optim.learning_rate", [0.0, -1e-4, NAN, INF, None], "above 0"),
        ("optim.b1", [-0.1, 1.0, NAN], "below 1"),
        ("optim.b2", [1.0], "below 1"),
        ("optim.ttur_mult", [0.0], "above 0"),
        ("ema.schedule", ["linear"], "ramp"),
        ("ema.half_life", [0.0], "above 0"),
        ("train.num_steps", [0], "from 1"),
        ("train.batch_size", [0, -8], "from 1"),
        ("train.grad_accum", [0], "of at least 1, or negative"),
        ("train.precision", ["float16"], "bfloat16, float32, tf32"),
        ("train.seed", [-1, 2**32], "from 0"),
        ("train.log_every", [0], "from 1"),
        ("checkpoint.every", [0], "from 1"),
        ("checkpoint.keep_last", [0], "from 1"),
        ("checkpoint.keep_every", [-1], "from 0"),
        ("sample.every", [-1], "from 0"),
        (
            "sample.grid",
            [8, (8,), (8, 8, 8), (0, 8), (8, -1), ("a", "b"), (1.5, 2)],
            r"\(rows, columns\), or \(\)",
        ),
        ("eval.every", [-1], "from 0"),
        ("eval.metrics", ["kid", (1,)], r"\('kid','fid'\)"),
        ("eval.num_images", [7], "from 8"),
        ("eval.features", ["vgg"], "inception"),
        ("eval.resize", ["nearest"], "clean"),
        ("eval.background", ["red"], "black, white"),
        ("track.aim", ["no"], "True or False"),
        ("track.repo", [None], "text"),
    ],
)
def test_bad_value_is_refused_with_what_is_allowed(name, values, allowed):
    for value in values:
        with pytest.raises(UserError, match=rf"^{name} = .*: m(ay|ust) be .*{allowed}") as caught:
            check_settings(with_settings(**{name.replace(".", "__"): value}))
        assert str(caught.value).startswith(f"{name} = {value!r}: ")
        assert f"set it with --config.{name}=" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__attn_resolutions": (32, 512)},
            r"model\.attn_resolutions = 512: .* 256 px; choose from 4, 8, 16, 32, 64, 128, 256",
        ),
        (
            {"model__attn_resolutions": (64,), "data__image_size": 32},
            r"model\.attn_resolutions = 64: .* 32 px; choose from 4, 8, 16, 32\.",
        ),
        (
            {"optim__freeze_d": 6},
            r"optim\.freeze_d = 6: the discriminator has 5 blocks .* 256 px; use 5 or less",
        ),
        ({"model__attn_resolutions": (33,)}, r"model\.attn_resolutions = 33"),
        (
            {"loss__kind": "dual_contrastive", "model__disc_output_size": 5},
            r"model\.disc_output_size = 5: dual_contrastive .*; use 1, or loss\.kind=hinge",
        ),
        (
            {"augment__types": ("cutout", "colour")},
            r"augment\.types = 'colour': .*; choose from color, color_alpha, cutout",
        ),
        ({"eval__metrics": ("kid", "is")}, r"eval\.metrics = 'is': .*; choose from fid, kid, pr"),
        (
            {"model__fmap_inverse_coef": 6, "model__disc_fmap_inverse_coef": 12},
            r"model\.fmap_inverse_coef = 6: leaves no channel at 128 px; use 7 or more",
        ),
        (
            {"model__disc_fmap_inverse_coef": 7, "data__image_size": 512},
            r"model\.disc_fmap_inverse_coef = 7: leaves no channel at 256 px; use 8 or more",
        ),
        (
            # Enough for the generator.
            {"model__fmap_inverse_coef": 7, "data__image_size": 512},
            r"model\.fmap_inverse_coef = 7: leaves no channel at 256 px; use 8 or more",
        ),
        (
            {"model__fmap_max": 6},
            r"model\.recon_size = 128: .* 6 channels .*; use 64 or less, .*model\.fmap_max",
        ),
        (
            {"model__disc_fmap_inverse_coef": 4, "data__image_size": 32},
            r"model\.recon_size = 128: .* 2 channels .*; use 32 or less",
        ),
        (
            {
                "model__disc_fmap_inverse_coef": 8,
                "data__image_size": 1024,
                "model__recon_size": 512,
            },
            r"model\.recon_size = 512: .* 16 channels .*; use 256 or less",
        ),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(UserError, match=message):
        check_settings(with_settings(**changes))


SMALL = {"data__image_size": 64}
# A setting, beside what it has no effect, why, and beside what it has one.
WITHOUT_EFFECT = [
    (
        ("model.freq_chan_attn", True),
        SMALL,
        "images of 64 px have no layer that it changes (128 px and more)",
        {"data__image_size": 128},
    ),
    (
        ("model.min_channels", 8),
        {},
        "images of 256 px have no layer that it changes (512 px and more)",
        {"data__image_size": 512},
    ),
    (
        ("augment.hflip", True),
        {"augment__prob": 0.0, "augment__per_example": False},
        "only augmented images are mirrored, for augment.per_example is False, and augment.prob "
        "is 0",
        {"augment__prob": 0.0, "augment__per_example": False, "augment__target": 0.6},
    ),
    (("augment.adapt_over", 20.0), {}, "augment.target is 0", {"augment__target": 0.6}),
    (("data.path", "a"), {"data__source": "openmoji"}, "data.source is openmoji", {}),
    (("data.balanced", True), {}, "data.labels is none", {"data__labels": "folders"}),
    (("data.label_names", ("a", "b")), {}, "data.labels is none", {"data__labels": "folders"}),
    (("data.name", "a"), {}, "data.source is folder", {"data__source": "tfds"}),
    (("data.split", "test"), {}, "data.source is folder", {"data__source": "tfds"}),
    (
        ("data.data_dir", "a"),
        {"data__source": "openmoji"},
        "data.source is openmoji",
        {"data__source": "tfds"},
    ),
    (
        ("data.subset", "all"),
        {"data__source": "tfds"},
        "data.source is tfds",
        {"data__source": "openmoji"},
    ),
]


@pytest.mark.parametrize(("setting", "beside", "why", "otherwise"), WITHOUT_EFFECT)
def test_a_setting_that_was_chosen_and_has_no_effect_is_named(setting, beside, why, otherwise):
    name, value = setting
    chosen = {name.replace(".", "__"): value}
    expected = f"{name}={value!r} has no effect: {why}"
    assert without_effect(with_settings(**beside, **chosen)) == [expected]
    assert without_effect(with_settings(**otherwise, **chosen)) == []
    # It was not chosen.
    without = without_effect(with_settings(**beside))
    assert without == ([expected] if name == "augment.hflip" else [])


def test_every_setting_that_may_have_no_effect_is_tested():
    tested = {setting[0] for setting, *_ in WITHOUT_EFFECT}
    assert tested == {name for idle in IDLE for name in idle.names} <= by_full_name().keys()


def test_what_lightweight_gan_fixes_was_not_chosen():
    assert without_effect(with_settings(model__min_channels=3)) == []
    assert without_effect(with_settings(augment__prob=0.0, augment__hflip=False)) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_files_choose_nothing_without_effect(path):
    module = importlib.import_module(f"configs.{path.stem}")
    sizes = [("1024",), ("512",)] if path.stem == "ffhq" else []
    for arguments in [(), *sizes]:
        assert without_effect(module.get_config(*arguments)) == []


@pytest.mark.parametrize(
    ("batch", "accum", "devices", "near", "keeping"),
    [
        (40, 4, 3, 36, None),
        (10, 4, 1, 8, 5),
        (3, 2, 4, 8, None),
        (1, 1, 8, 8, None),
        (22, 1, 8, 24, None),
        (40, 4, 4, 32, 5),
        (40, 4, 8, 32, 5),
        (40, -1, 3, 39, None),
    ],
)
def test_batch_that_does_not_divide_is_refused_with_the_nearest(
    batch, accum, devices, near, keeping
):
    config = with_settings(train__batch_size=batch, train__grad_accum=accum)
    kept = f", or keep it with train.grad_accum={keeping}" if keeping else ""
    words = rf"{devices} devices × {max(1, accum)} micro.*; use {near}{kept}\."
    with pytest.raises(UserError, match=rf"train\.batch_size = {batch}: .*{words}"):
        check_devices(config, devices)
    check_devices(with_settings(train__batch_size=near, train__grad_accum=accum), devices)
    if keeping:
        check_devices(with_settings(train__batch_size=batch, train__grad_accum=keeping), devices)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 6, 8])
def test_ffhq_divides_over_the_usual_numbers_of_devices(devices):
    config = importlib.import_module("configs.ffhq").get_config()
    check_devices(config, devices)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("train__bach_size", "train.batch_size"),
        ("data__imagesize", "data.image_size"),
        ("data__qqqq", "python -m lwgan.settings lists them all"),
    ],
)
def test_misspelt_setting_suggests_the_near_one(name, near):
    full = name.replace("__", r"\.")
    with pytest.raises(UserError, match=rf"^{full} = 3: there is no such setting; .*{near}\.$"):
        check_settings(with_settings(**{name: 3}))


def test_missing_setting_and_stray_value_are_named():
    config = default.get_config()
    del config.train.seed
    with pytest.raises(UserError, match=r"train\.seed .*missing"):
        check_settings(config)
    config = default.get_config()
    config.seed = 3
    with pytest.raises(UserError, match=r"config\.seed = 3: must be a group"):
        check_settings(config)


def test_two_hundred_random_bad_settings_are_each_refused_in_one_line():
    rng = np.random.default_rng(0)

    def word():
        return "".join(rng.choice(list("abc \n\t'é\x00"), rng.integers(1, 12))) + "z"

    def bad(value):
        """Something that no setting whose default is ``value`` may be."""
        kinds = [None, {}, [1], (1.5, word()), word().encode()]
        if not isinstance(value, str):
            kinds.append(word())
        if isinstance(value, bool):
            kinds += [1.0, int(rng.integers(2, 99))]
        elif isinstance(value, int | float):
            kinds.append(NAN if value < 0 else -0.5 - int(rng.integers(1, 2**40)))
        return kinds[rng.integers(len(kinds))]

    values = flatten(default.get_config())
    for name in rng.choice(list(values), 200):
        value = bad(values[name])
        with pytest.raises(UserError) as caught:
            check_settings(with_settings(**{name.replace(".", "__"): value}))
        assert len(str(caught.value).splitlines()) == 1, name
        assert str(caught.value).startswith(str(name))


def test_numbers_of_numpy_are_numbers():
    check_settings(
        with_settings(
            optim__learning_rate=np.float64(1e-4), data__crop_prob=0, data__split=np.str_("test")
        )
    )


def test_whatever_is_allowed_can_be_built():
    rng = np.random.default_rng(0)
    choices = {
        "data__image_size": [32, 64, 256, 512, 1024],
        "data__mode": list(CHANNELS),
        "model__latent_dim": [1, 30],
        "model__fmap_max": [1, 2, 5, 7, 40],
        "model__fmap_inverse_coef": [4, 7, 8, 9, 30],
        "model__disc_fmap_inverse_coef": [-1, 4, 7, 8, 30],
        "model__min_channels": [-1, 1],
        "model__attn_resolutions": [(), (4, 8, 16, 32)],
        "model__attn_heads": [1, 2],
        "model__attn_head_dim": [1, 3],
        "model__freq_chan_attn": [False, True],
        "model__antialias": [False, True],
        "model__icnr_init": [False, True],
        "model__output": ["linear", "tanh"],
        "model__disc_output_size": [1, 5],
        "model__side_channels": [0, 2, 3],
        "model__side_attention": [False, True],
        "model__recon_size": [16, 32, 128, 1024],
    }
    allowed = []
    while len(allowed) < 8:
        config = with_settings(**{k: v[rng.integers(len(v))] for k, v in choices.items()})
        try:
            check_settings(config)
        except UserError:
            continue
        allowed.append(config)
    for config in allowed:
        jax.eval_shape(lambda config=config: init_state(build_gan(config), 0))


def test_settings_survive_json():
    config = with_settings(model__attn_resolutions=(), augment__types=("color",), data__path="é\n")
    again = from_json(to_json(config))
    assert again == config
    for name, value in flatten(config).items():
        assert type(flatten(again)[name]) is type(value), name
    assert fixed_change(config, again) is None
    assert changes(config, again) == {}


# How activations are kept is no part of what is learnt.
FIXED = {name for name in by_full_name() if name.startswith("model.")} - {"model.remat"} | {
    "data.balanced",
    "data.fit",
    "data.holdout",
    "data.image_size",
    "data.mode",
    "loss.kind",
    "optim.name",
    "augment.target",
    "train.seed",
}


@pytest.mark.parametrize("name", by_full_name())
def test_what_a_run_is_made_of_cannot_change(name):
    old = default.get_config()
    value = flatten(old)[name]
    new = with_settings(**{name.replace(".", "__"): "other"})
    expected = (name, value, "other")
    assert fixed_change(old, new) == (expected if name in FIXED else None)
    assert changes(old, new) == {name: expected[1:]}


def test_changes_of_several_settings():
    old = default.get_config()
    new = with_settings(train__num_steps=7, sample__grid=(2, 3), data__path="new")
    assert changes(old, new) == {
        "train.num_steps": (150_000, 7),
        "sample.grid": ((), (2, 3)),
        "data.path": ("", "new"),
    }


def test_modes_of_data_and_networks_are_the_same():
    assert decode.PIL_MODES.keys() == CHANNELS.keys()
    for mode, pil_mode in decode.PIL_MODES.items():
        assert len(pil_mode) == CHANNELS[mode]
