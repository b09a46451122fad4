"""``train.grad_accum`` of -1: as few micro-batches as fit, for good; and programs made ahead."""

import concurrent.futures
import dataclasses
import time
import types

import jax
import numpy as np
import pytest

from lwgan.errors import UserError, device_errors
from lwgan.runs.directory import read_run
from lwgan.training import compiling, devices, micro_batches
from lwgan.training.compiling import Compiling, compiled_ahead, lower
from lwgan.training.loop import train
from lwgan.training.micro_batches import resolve, step_bytes
from lwgan.training.recipes import images_shape, recipe_of
from lwgan.training.session import prepare
from lwgan.training.state import first_state, init_state
from lwgan.training.step import make_update
from tests import tiny


@pytest.mark.parametrize(
    ("limit", "number"), [(1000, 1), (400, 3), (999, 2), (101, 10), (100, 10), (334, 3)]
)
def test_as_few_as_fit(monkeypatch, limit, number):
    """Of the divisors of a device's share: 30 of 120 images."""
    tried = []

    def needed(config):
        tried.append(config.train.grad_accum)
        return 1000 / config.train.grad_accum

    monkeypatch.setattr(micro_batches, "_needed", needed)
    monkeypatch.setattr(micro_batches, "memory_limit", lambda: limit)
    config = tiny.config(train__batch_size=120, train__grad_accum=-1)
    assert resolve(config, None).train.grad_accum == number
    assert config.train.grad_accum == -1 and tried[0] == 1
    # What is far too much is not compiled.
    assert len(tried) <= 3


def test_where_not_even_one_image_fits_it_is_one_line(monkeypatch):
    monkeypatch.setattr(micro_batches, "_needed", lambda config: 3 * 2**20)
    monkeypatch.setattr(micro_batches, "memory_limit", lambda: 2**20)
    with pytest.raises(UserError, match=r"one image at a time needs more than the 1 MiB"):
        resolve(tiny.config(train__grad_accum=-1), None)


def test_a_number_that_is_said_or_that_the_run_has_stays(monkeypatch):
    monkeypatch.setattr(micro_batches, "_needed", None)
    begun = tiny.config(train__grad_accum=4, train__batch_size=16, train__precision="tf32")
    said = tiny.config(train__grad_accum=2, train__precision="bfloat16")
    settled = resolve(said, begun).train
    assert (settled.grad_accum, settled.precision) == (2, "bfloat16")
    settled = resolve(tiny.config(train__grad_accum=-1, train__batch_size=16), begun).train
    assert (settled.grad_accum, settled.precision) == (4, "tf32")
    settled = resolve(tiny.config(train__grad_accum=1), None).train
    assert (settled.grad_accum, settled.precision) == (1, "float32")


def test_less_memory_is_needed_with_more_micro_batches():
    needed = [
        micro_batches._needed(
            tiny.config(train__batch_size=32, train__grad_accum=number, loss__gp_weight=0.0)
        )
        for number in (1, 4)
    ]
    assert needed[1] < needed[0] < np.inf


def test_within_a_run_the_number_stays(tmp_path, monkeypatch):
    """Also where more would fit at the next start."""
    config = tiny.config(train__grad_accum=-1, train__num_steps=1, sample__every=0)
    monkeypatch.setattr(micro_batches, "_needed", lambda own: 10 / own.train.grad_accum)
    monkeypatch.setattr(micro_batches, "memory_limit", lambda: 6)
    train(config, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.config.train.grad_accum, run.config.train.precision) == (2, "float32")
    assert run.info.changes == []
    monkeypatch.setattr(micro_batches, "memory_limit", lambda: 60)
    assert prepare(config, tmp_path / "run").config.train.grad_accum == 2
    assert prepare(config, tmp_path / "other").config.train.grad_accum == 1


def test_a_run_on_other_devices_is_offered_micro_batches_that_keep_its_batch(tmp_path):
    config = tiny.config(train__grad_accum=1, train__batch_size=8)
    tiny.save_run(tmp_path / "run", (1,), config)
    config.train.grad_accum = 4
    with pytest.raises(UserError, match=r"keep it with train.grad_accum=2"):
        prepare(config, tmp_path / "run")


def test_programs_do_not_depend_on_how_many_images_there_are():
    """Which decide how many are augmented, and nothing is compiled anew for one more."""
    config, networks = tiny.config(augment__prob=-1.0), tiny.gan()
    few, many = (make_update(networks, recipe_of(config, count)) for count in (100, 50_000))
    assert few.augment_prob != many.augment_prob
    texts = [lower(update.plain, networks, config).as_text() for update in (few, many)]
    assert texts[0] == texts[1]


def test_programs_made_ahead_do_the_same(monkeypatch):
    """Bit for bit, and are those that were made."""
    config, networks = tiny.config(), tiny.gan()
    update = make_update(networks, recipe_of(config, 100))
    images = np.zeros(images_shape(config).shape, np.uint8)
    with compiled_ahead(update, networks, config) as ahead:
        first = jax.device_get(tiny.init(networks, jax.device_count()))
    assert all(step_bytes(program.compiled()) > 0 for program, _ in ahead.programs().values())
    ours, theirs = (tiny.init(networks, jax.device_count()) for _ in range(2))
    for step in (1, 2, 3):
        (ours, our_terms), (theirs, terms) = (
            one(step, state, images) for one, state in ((ahead, ours), (update, theirs))
        )
        jax.tree.map(np.testing.assert_array_equal, (ours, our_terms), (theirs, terms))
    assert (int(first.step), int(ours.step)) == (0, 3)


def test_whoever_waits_for_a_program_is_told(monkeypatch, caplog):
    caplog.set_level("INFO")
    future = concurrent.futures.Future()
    program = Compiling("plain", time.monotonic() - 60, future)
    rounds = iter([False, False, True])

    def wait(futures, seconds):
        assert seconds == compiling._PAUSE
        if next(rounds):
            future.set_result("compiled")
        return types.SimpleNamespace(done=future.done())

    monkeypatch.setattr(compiling.concurrent.futures, "wait", wait)
    assert program.compiled() == "compiled"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Compiling the plain step: 60 s so far"] * 2 + ["Compiled the plain step"]


def test_the_first_state_is_that_of_a_plain_program():
    ours, plain = first_state(tiny.gan(), 3), jax.jit(lambda: init_state(tiny.gan(), 3))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), ours, plain)


@pytest.mark.parametrize(
    ("platform", "capability", "precision"),
    [
        ("cpu", None, "float32"),
        ("tpu", None, "bfloat16"),
        ("gpu", "7.5", "float32"),
        ("gpu", "8.0", "bfloat16"),
        ("gpu", "10.0", "bfloat16"),
        ("gpu", "gfx942", "bfloat16"),
        ("gpu", None, "float32"),
    ],
)
def test_auto_is_what_the_device_is_best_at(monkeypatch, platform, capability, precision):
    device = types.SimpleNamespace(platform=platform)
    if capability:
        device.compute_capability = capability
    monkeypatch.setattr(devices.jax, "local_devices", lambda: [device])
    config = tiny.config()
    assert config.train.precision == "auto" and devices.precision_of(config) == precision
    config.train.precision = "tf32"
    assert devices.precision_of(config) == "tf32"


def test_what_does_not_fit_is_one_line():
    much = "Out of memory while trying to allocate 17179869184 bytes."
    with (
        pytest.raises(UserError, match=r"train.grad_accum = 4: does not fit .*17179869184 bytes"),
        device_errors("train.grad_accum", 4, "use more"),
    ):
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {much}\nBufferAssignment: …")
    with pytest.raises(UserError, match="JAX_PLATFORMS=cpu"), device_errors("x", 1, "use less"):
        raise RuntimeError("Unable to initialize backend 'cuda': INTERNAL: no device")
    for held in (
        "FAILED_PRECONDITION: DNN library initialization failed.",
        "CUDA_ERROR_OUT_OF_MEMORY",
    ):
        with pytest.raises(UserError, match="JAX_PLATFORMS=cpu"), device_errors("x", 1, "use less"):
            raise jax.errors.JaxRuntimeError(held)
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="other"),
        device_errors("x", 1, "use less"),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: other")


def test_activations_that_are_computed_again_change_nothing():
    """But the memory; with the penalty, whose gradients are of second order."""
    results = []
    for remat in (False, True):
        networks = tiny.gan(1e-3, model__remat=remat, model__attn_resolutions=(16,))
        recipe = dataclasses.replace(tiny.RECIPE, gp_weight=0.1)
        state = tiny.init(networks)
        results.append(jax.device_get(make_update(networks, recipe)(1, state, tiny.images(1))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), *results)


def test_a_device_that_does_not_say_how_much_it_has_is_one_line(monkeypatch):
    """The memory of the host is not its own."""
    silent = types.SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    monkeypatch.setattr(devices.jax, "local_devices", lambda: [silent])
    with pytest.raises(UserError, match="does not say how much memory it has"):
        devices.memory_limit()


def test_the_smallest_of_several_cards_counts(monkeypatch):
    cards = [
        types.SimpleNamespace(
            platform="gpu", device_kind=kind, memory_stats=lambda size=size: {"bytes_limit": size}
        )
        for kind, size in (("large", 24 * 2**30), ("small", 12 * 2**30), ("large", 24 * 2**30))
    ]
    monkeypatch.setattr(devices.jax, "local_devices", lambda: cards)
    monkeypatch.setattr(devices.jax, "device_count", lambda: 3)
    assert devices.memory_limit() == int(0.9 * 12 * 2**30)
    assert devices.describe_devices() == "3 × large or small, which has 12,288 MiB for JAX"


def test_the_search_for_micro_batches_says_what_it_does(tmp_path, monkeypatch, capsys, caplog):
    """It takes minutes on a GPU; what begins, and where, is said before."""
    caplog.set_level("INFO")

    def needed(config):
        assert "Starting the run in" in capsys.readouterr().out
        raise KeyError(config.train.grad_accum)

    monkeypatch.setattr(micro_batches, "_needed", needed)
    monkeypatch.setattr(micro_batches, "memory_limit", lambda: 6)
    with pytest.raises(KeyError):
        prepare(tiny.config(train__grad_accum=-1), tmp_path / "run")
    assert "train.grad_accum: trying 1 micro-batches" in caplog.text


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda: 9000)
    alone = devices.memory_limit()
    monkeypatch.setattr(devices.processes, "beside", lambda: 3)
    assert (alone, devices.memory_limit()) == (9000 * 0.9 // 4, 9000 * 0.9 // 12)


def test_other_errors_of_the_compiler_are_no_want_of_memory(monkeypatch):
    def fail(*arguments):
        raise jax.errors.JaxRuntimeError(reason)

    monkeypatch.setattr(compiling, "lower", fail)
    reason = "RESOURCE_EXHAUSTED: No space left on device"
    with pytest.raises(jax.errors.JaxRuntimeError, match="No space"):
        micro_batches._needed(tiny.config())
    reason = "RESOURCE_EXHAUSTED: too much"
    assert micro_batches._needed(tiny.config()) == np.inf
    reason = "INTERNAL: no ptxas"
    with pytest.raises(jax.errors.JaxRuntimeError, match="no ptxas"):
        micro_batches._needed(tiny.config())
