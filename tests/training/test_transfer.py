"""Runs that begin from the weights of another."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lwgan.errors import UserError
from lwgan.runs import checkpoint, manifest
from lwgan.runs.directory import read_run, record_start, resolve_run
from lwgan.training import transfer
from lwgan.training.loop import train
from lwgan.training.session import prepare
from lwgan.training.state import build_gan, init_state
from lwgan.training.step import make_update
from tests import tiny


def first_state(config, seed=0):
    gan = build_gan(config)
    return jax.device_get(jax.jit(lambda: init_state(gan, seed))())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with checkpoints 3 and 5, of random weights, and no images that are known."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    tiny.save_run(workdir, (3, 5), tiny.config())
    return workdir


def origin_state(source, step=5, config=None):
    like = jax.eval_shape(lambda: init_state(build_gan(config or tiny.config()), 0))
    return checkpoint.restore(source, step, like)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_same_networks_are_taken_whole(source):
    config = tiny.config(train__seed=7)
    fresh, saved = first_state(config, 7), origin_state(source)
    begun = transfer.start_from(fresh, transfer.read_origin(source, None, config))
    assert_equal(begun.g_params, saved.ema_params)
    assert_equal(begun.ema_params, saved.ema_params)
    assert_equal(begun.g_stats, saved.ema_stats)
    assert_equal(begun.ema_stats, saved.ema_stats)
    assert_equal(begun.d_params, saved.d_params)
    for name in ("step", "recoveries", "g_opt", "d_opt"):
        assert_equal(getattr(begun, name), getattr(fresh, name))
    some = jax.tree.leaves(saved.g_params)[0]
    # The live one's.
    assert not np.array_equal(jax.tree.leaves(begun.g_params)[0], some)


def test_an_older_checkpoint_can_be_asked_for(source):
    begun = transfer.read_origin(source, 3, tiny.config())
    assert_equal(begun.generator, origin_state(source, 3).ema_params)


def test_larger_images_take_the_shared_resolutions(source):
    """Also with new attention: what is new is left as it was initialised, and named."""
    wide = {"data__image_size": 64, "model__attn_resolutions": (16,)}
    fresh, saved = first_state(tiny.config(**wide)), origin_state(source)
    g_params, report = transfer.merge_layers(fresh.g_params, saved.ema_params, {})
    for name in ("initial", "block_8", "block_16", "block_32", "out"):
        assert_equal(g_params[name], saved.ema_params[name])
    for name in ("block_64", "attention_16"):
        assert_equal(g_params[name], fresh.g_params[name])
    assert report.endswith("; left as initialised, not there: attention_16, block_64")
    d_params, report = transfer.merge_layers(fresh.d_params, saved.d_params, {})
    for name in ("block_8", "side_conv", "side_block", "logits_hidden", "decoder"):
        assert_equal(d_params[name], saved.d_params[name])
    # It saw the image there, and sees features here.
    assert_equal(d_params["block_16"]["conv2"], saved.d_params["block_16"]["conv2"])
    assert_equal(d_params["block_16"]["conv1"], fresh.d_params["block_16"]["conv1"])
    assert "block_16/conv1/kernel (1, 1, 12, 8) there, (1, 1, 32, 8) here" in report
    back, report = transfer.merge_layers(saved.d_params, fresh.d_params, {})
    assert report.endswith("; not used: attention_16, block_32")
    assert jax.tree.structure(back) == jax.tree.structure(saved.d_params)


def saved_run(workdir, **settings):
    """A run of random weights at step 5 with these settings."""
    tiny.save_run(workdir, (5,), tiny.config(**settings))
    return workdir


def begin(source, **settings):
    """The first state of a run that begins from another, and the random one beneath it."""
    config = tiny.config(**settings)
    fresh = first_state(config)
    return transfer.start_from(fresh, transfer.read_origin(source, None, config)), fresh


@pytest.mark.parametrize(
    ("there", "here", "sign"),
    [
        ("hinge", "dual_contrastive", -1),
        ("dual_contrastive", "hinge", -1),
        ("hinge", "hinge", 1),
        ("hinge", "relativistic", -1),
        ("relativistic", "dual_contrastive", 1),
        ("dual_contrastive", "dual_contrastive", 1),
    ],
)
def test_a_loss_that_scores_reals_the_other_way_round_gets_negated_logits(
    tmp_path, caplog, there, here, sign
):
    caplog.set_level("INFO", logger="absl")
    source = saved_run(tmp_path / "source", loss__kind=there)
    begun, _ = begin(source, loss__kind=here)
    images = np.random.default_rng(0).uniform(0, 1, (4, 32, 32, 3)).astype(np.float32)
    discriminator = tiny.gan().discriminator
    before, after = (
        discriminator.apply({"params": params}, images, jnp.int32(0))
        for params in (origin_state(source).d_params, begun.d_params)
    )
    assert np.ptp(before.logits) > 1e-3 and np.ptp(before.side_logits) > 1e-3
    np.testing.assert_allclose(after.logits, sign * before.logits, rtol=1e-6)
    np.testing.assert_allclose(after.side_logits, sign * before.side_logits, rtol=1e-6)
    np.testing.assert_array_equal(after.painted, before.painted)
    assert ("logits taken are negated" in caplog.text) == (sign < 0)


def test_logits_that_are_not_taken_are_not_negated(tmp_path):
    wide = {"model__side_channels": 8}
    source = saved_run(tmp_path / "source", **wide)
    begun, fresh = begin(source, loss__kind="dual_contrastive")
    assert_equal(begun.d_params["side_logits"], fresh.d_params["side_logits"])
    saved = origin_state(source, config=tiny.config(**wide)).d_params["logits"]
    assert_equal(begun.d_params["logits"], jax.tree.map(np.negative, saved))


ATTENTIVE = {"model__attn_resolutions": (16,), "model__side_attention": True}


@pytest.mark.parametrize("heads", [4, 2])
def test_other_heads_of_the_same_width_are_not_taken_for_the_same(tmp_path, caplog, heads):
    caplog.set_level("INFO", logger="absl")
    source = saved_run(tmp_path / "source", **ATTENTIVE)
    own = {**ATTENTIVE, "model__attn_heads": heads, "model__attn_head_dim": 8 // heads}
    begun, fresh = begin(source, **own)
    saved = origin_state(source, config=tiny.config(**ATTENTIVE))
    attentions = {"attention_16", "side_attention_16", "side_attention_32"}
    pairs = [
        (begun.g_params, fresh.g_params, saved.ema_params),
        (begun.d_params, fresh.d_params, saved.d_params),
    ]
    for network, random, theirs in pairs:
        for name, module in network.items():
            assert_equal(
                module, random[name] if heads == 4 and name in attentions else theirs[name]
            )
    reason = "model.attn_heads is 2 there and 4 here, model.attn_head_dim is 4 there and 2 here"
    for names in ("attention_16", "attention_16, side_attention_16, side_attention_32"):
        said = f"; left as initialised, {reason}: {names}\n"
        assert (said in caplog.text) == (heads == 4), said


def test_excitation_by_frequencies_is_another(tmp_path, caplog):
    """Three features have as many hidden ones in both kinds."""
    caplog.set_level("INFO", logger="absl")
    large = {"data__image_size": 128, "model__fmap_inverse_coef": 8, "model__fmap_max": 4}
    narrow = {**large, "model__disc_fmap_inverse_coef": 8}
    source = saved_run(tmp_path / "source", **narrow)
    begun, fresh = begin(source, **narrow, model__freq_chan_attn=True)
    for layer in ("squeeze", "excite"):
        assert_equal(
            begun.g_params["excitation_128"][layer], fresh.g_params["excitation_128"][layer]
        )
    reason = "model.freq_chan_attn is False there and True here"
    assert f"; left as initialised, {reason}: excitation_128; not used" in caplog.text


def listing(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        (
            {},
            {"data__image_size": 64, "optim__freeze_d": 2},
            r"optim\.freeze_d = 2: block_32/conv1 would stay random, .* use 0, or another run\.",
        ),
        (
            {},
            {"model__attn_resolutions": (16,), "optim__freeze_d": 2},
            r"optim\.freeze_d = 2: attention_16/\S* would .* use 1, or another run\.",
        ),
        (
            {"model__attn_resolutions": (16,)},
            {
                "model__attn_resolutions": (16,),
                "model__attn_heads": 4,
                "model__attn_head_dim": 2,
                "optim__freeze_d": 2,
            },
            r"optim\.freeze_d = 2: attention_16/\S* would .* use 1, or another run\.",
        ),
    ],
)
def test_blocks_that_are_not_taken_cannot_be_frozen(tmp_path, there, here, message):
    source = saved_run(tmp_path / "source", **there)
    before = listing(tmp_path)
    with pytest.raises(UserError, match=message):
        train(tiny.config(**here), tmp_path / "new", init_from=str(source))
    assert listing(tmp_path) == before
    fewer = tiny.config(**{**here, "optim__freeze_d": 1})
    if "use 1" in message:
        prepare(fewer, tmp_path / "new", init_from=str(source))
    # A run that was cut short before its first save meets the same.
    noted = resolve_run(tiny.config(**here), tmp_path / "new", "abc", accept_new_data=False)
    noted.info.init_from = {"run": "../source", "step": 5}
    with pytest.raises(UserError, match=message):
        transfer.find_origin(noted, None, tiny.config(**here), new=False, begun=False)


def test_whole_blocks_can_be_frozen(source, tmp_path):
    """Whatever else is not taken."""
    config = tiny.config(optim__freeze_d=2, model__recon_size=32, model__side_channels=8)
    session = prepare(config, tmp_path / "new", init_from=str(source))
    assert session.origin.step == 5


def test_random_blocks_cannot_be_frozen(tmp_path):
    config = tiny.config(optim__freeze_d=1)
    with pytest.raises(UserError, match=r"^optim\.freeze_d = 1: .* random, .* --init_from"):
        train(config, tmp_path / "new")
    assert not list(tmp_path.iterdir())
    saved_run(tmp_path / "old")
    with pytest.raises(UserError, match=r"^optim\.freeze_d = 1: .* random, .* --init_from"):
        prepare(config, tmp_path / "old", fresh=True)
    # What it has learnt may be frozen.
    assert prepare(config, tmp_path / "old").step == 5


def test_a_run_begins_from_another_and_the_same_command_continues(source, tmp_path, caplog):
    shutil.copytree(source, tmp_path / "source")
    plan = {"sample__every": 0, "checkpoint__every": 2, "train__seed": 3}
    config, short = tiny.config(**plan), tiny.config(**plan, train__num_steps=2)
    init_from = str(tmp_path / "source")
    caplog.set_level("INFO", logger="absl")
    whole = train(config, tmp_path / "whole", init_from=init_from)
    assert re.search(r"generator: taken (\d+) of \1 arrays", caplog.text)
    assert manifest.saved_steps(tmp_path / "whole") == [0, 2, 4]
    at_0 = origin_state(tmp_path / "whole", 0)
    assert_equal(at_0.g_params, origin_state(source).ema_params)
    assert read_run(tmp_path / "whole").info.init_from == {"run": "../source", "step": 5}

    train(short, tmp_path / "parts", init_from=init_from)
    (tmp_path / "elsewhere").mkdir()
    # Both move together.
    for name in ("source", "parts"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    parts = tmp_path / "elsewhere" / "parts"
    again = train(config, parts, init_from=str(tmp_path / "elsewhere" / "source"))
    assert_equal(jax.device_get(whole), jax.device_get(again))

    with pytest.raises(UserError, match=r"^--init_from = .*: the run in .* began from .*source;"):
        train(config, parts, init_from=str(tmp_path / "whole"))
    shutil.rmtree(tmp_path / "elsewhere" / "source")
    shutil.rmtree(parts / "checkpoints" / "4")
    shutil.rmtree(parts / "checkpoints" / "2")
    # From 0.
    assert_equal(jax.device_get(whole), jax.device_get(train(config, parts)))


def test_a_run_cut_short_before_its_first_save_begins_there_again(source, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    config = tiny.config()
    planned = resolve_run(config, tmp_path / "run", "abc", accept_new_data=False)
    origin = transfer.find_origin(planned, str(tmp_path / "source"), config, new=True, begun=False)
    record_start(planned, config, "abc", 0)
    tiny.save_run(tmp_path / "other", (9,), config)
    shutil.move(tmp_path / "other" / "checkpoints" / "9", tmp_path / "source" / "checkpoints")
    again = read_run(tmp_path / "run")
    for asked in (None, str(tmp_path / "source")):
        found = transfer.find_origin(again, asked, config, new=False, begun=False)
        assert found.step == origin.step == 5
        assert_equal(found.discriminator, origin.discriminator)
    assert transfer.find_origin(again, None, config, new=False, begun=True) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__mode": "grey"}, r"^data\.mode = 'grey': the run of --init_from=.* has 'rgb';"),
        ({"model__latent_dim": 9}, r"^model\.latent_dim = 9: the run of --init_from=.* has 8;"),
    ],
)
def test_other_images_or_latents_are_refused(source, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(tiny.config(**overrides), tmp_path / "new", init_from=str(source))
    assert not list(tmp_path.iterdir())


def test_what_is_no_origin_is_refused(source, tmp_path):
    config = tiny.config()
    with pytest.raises(UserError, match=r"^--init_from = '.*nowhere': there is no run in"):
        train(config, tmp_path / "new", init_from=str(tmp_path / "nowhere"))
    shutil.copytree(source, tmp_path / "source")
    (tmp_path / "source" / "checkpoints" / "5" / "manifest.json").write_text("{}x")
    assert transfer.read_origin(tmp_path / "source", None, config).step == 3
    (tmp_path / "source" / "checkpoints" / "3" / "manifest.json").write_text("{}x")
    with pytest.raises(UserError, match=r"^--init_from = .*: no checkpoint is whole"):
        train(config, tmp_path / "new", init_from=str(tmp_path / "source"))
    shutil.rmtree(tmp_path / "source" / "checkpoints")
    with pytest.raises(UserError, match=r"^--init_from = .*: this run has no checkpoint yet"):
        train(config, tmp_path / "new", init_from=str(tmp_path / "source"))
    with pytest.raises(UserError, match=r"^--init_from = .*: the run in .* began afresh;"):
        train(config, tmp_path / "source", init_from=str(source), accept_new_data=True)
    with pytest.raises(UserError, match=r"^--init_from = .*: is the run that is to start;"):
        train(config, tmp_path / "source", init_from=str(tmp_path / "source"), fresh=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_frozen_blocks_stay_bit_for_bit():
    """The others learn, and the optimizer's state has the shape that it has without."""
    config = tiny.config(optim__freeze_d=1, optim__learning_rate=0.01)
    gan = build_gan(config)
    before = tiny.init(gan)
    unfrozen = jax.eval_shape(lambda: init_state(tiny.gan(), 0))
    shape = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shape(before.d_opt) == shape(unfrozen.d_opt)
    start = jax.device_get(before)
    after = jax.device_get(make_update(gan, tiny.RECIPE)(1, before, tiny.images(1))[0])
    assert shape(after.d_opt) == shape(start.d_opt)
    assert sorted(start.d_params) == [
        "block_16",
        "block_8",
        "decoder",
        "logits",
        "logits_hidden",
        "side_block",
        "side_conv",
        "side_logits",
    ]
    for name, module in start.d_params.items():
        changed = [
            leaf.tobytes() != new.tobytes()
            for leaf, new in zip(
                jax.tree.leaves(module), jax.tree.leaves(after.d_params[name]), strict=True
            )
        ]
        assert all(changed) == any(changed) == (name != "block_16"), name


def test_a_run_may_freeze_later_and_thaw(tmp_path):
    plan = {"sample__every": 0, "checkpoint__every": 1, "checkpoint__keep_last": 9}

    def block(step):
        return origin_state(tmp_path, step).d_params["block_16"]

    train(tiny.config(**plan, train__num_steps=1), tmp_path)
    train(tiny.config(**plan, train__num_steps=3, optim__freeze_d=1), tmp_path)
    train(tiny.config(**plan, train__num_steps=4), tmp_path)
    assert_equal(block(1), block(3))
    assert not np.array_equal(block(3)["conv1"]["kernel"], block(4)["conv1"]["kernel"])
    changes = json.loads((tmp_path / "run.json").read_text())["changes"]
    frozen = [change for change in changes if change["setting"] == "optim.freeze_d"]
    assert [(change["step"], change["to"]) for change in frozen] == [(1, 1), (3, 0)]


def test_labels_of_the_same_name_are_taken_and_new_ones_begin_as_the_mean(tmp_path):
    before, after = ("a", "b", "c"), ("c", "new", "a")
    tiny.save_run(tmp_path / "old", (5,), tiny.config(data__label_names=before))
    config = tiny.config(data__label_names=after)
    saved = origin_state(tmp_path / "old", config=tiny.config(data__label_names=before))
    origin = transfer.read_origin(tmp_path / "old", None, config)
    begun = transfer.start_from(first_state(config), origin)
    for network, path in (
        ("g_params", ("block_8", "norm", "bias_of_label")),
        ("d_params", ("labels", "match_of_label")),
    ):
        rows, old = (
            getattr(begun, network),
            getattr(saved, "ema_params" if network == "g_params" else network),
        )
        for name in path:
            rows, old = rows[name], old[name]
        expected = np.stack([old[2], old.mean(0), old[0]])
        np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert_equal(
        begun.g_params["block_8"]["norm"]["scale"], saved.ema_params["block_8"]["norm"]["scale"]
    )


def test_labels_come_to_a_network_that_had_none(source):
    config = tiny.config(data__label_names=("a", "b"))
    begun = transfer.start_from(first_state(config), transfer.read_origin(source, None, config))
    norm, saved = begun.g_params["block_8"]["norm"], origin_state(source).ema_params
    assert_equal(norm["scale"], saved["block_8"]["norm"]["scale"])
    assert not np.asarray(norm["scale_of_label"]).any()
