"""What a run survives: kill -9, damaged checkpoints, losses that are not finite, a second trainer,
a full disk.
"""

import itertools
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lwgan.errors import UserError
from lwgan.models.build import build_generator, generator_shapes
from lwgan.runs import checkpoint, manifest, tracking
from lwgan.runs.directory import read_run
from lwgan.sampling import image_files
from lwgan.sampling.sampler import Sampler
from lwgan.training import session
from lwgan.training.compiling import Compiling
from lwgan.training.loop import train
from lwgan.training.state import build_gan, init_state
from tests import kill_training, tiny
from tests.house import ROOT


@pytest.mark.slow(minutes=3)
@pytest.mark.parametrize(("number", "kills"), [(signal.SIGKILL, 3), (signal.SIGTERM, 2)])
def test_kills_change_nothing(tmp_path, number, kills):
    outcome = kill_training.survive(tmp_path, kills, seed=0, number=number)
    assert outcome.kills == kills
    assert number != signal.SIGKILL or outcome.in_the_midst >= 1
    assert outcome.bytes_compared > 10_000 and outcome.lines_compared == 8 * (kills + 1)


@pytest.mark.slow(minutes=3)
def test_kills_in_the_midst_of_something_leave_no_gap(tmp_path):
    outcome = kill_training.survive(tmp_path, 9, seed=0, during=kill_training.MOMENTS)
    assert outcome.in_the_midst >= 7
    # Every scalar of 80 steps, of 40 grids and of 27 evaluations, once.
    assert outcome.bytes_compared > 10_000 and outcome.lines_compared == 80 + 40 + 27


def test_checkpoints_may_lie_on_another_disk(whole, tmp_path):
    """Behind a link; a damaged one is then copied to where it is set aside."""
    elsewhere = pathlib.Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    with tempfile.TemporaryDirectory(dir=elsewhere) as disk:
        target = pathlib.Path(disk) / "checkpoints"
        shutil.move(copy / "checkpoints", target)
        (copy / "checkpoints").symlink_to(target)
        truncate(next((target / "4").glob("training/d/*")))
        last = train(read_run(copy).config, copy)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(last), whole[1])
        assert manifest.saved_steps(copy) == [2, 4] and not manifest.damage(copy, 4)
        assert [path.name for path in (copy / "damaged").iterdir()] == ["4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps with checkpoints at 2 and 4, and its state at 4."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    last = train(tiny.config(checkpoint__every=2, sample__every=0, train__log_every=1), workdir)
    return workdir, jax.device_get(last)


def test_the_probability_of_augmentation_goes_on_exactly(tmp_path):
    """It is part of the state: two and two steps are four, to the bit."""
    settings = tiny.config(
        augment__target=0.6,
        augment__adapt_over=0.05,
        checkpoint__every=2,
        sample__every=0,
    )
    at_once = jax.device_get(train(settings, tmp_path / "whole"))
    assert 0 < at_once.adaptive.prob < 0.8 and at_once.adaptive.sign != 0
    settings.train.num_steps = 2
    train(settings, tmp_path / "parts")
    settings.train.num_steps = 4
    last = jax.device_get(train(settings, tmp_path / "parts"))
    jax.tree.map(np.testing.assert_array_equal, last, at_once)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip, os.remove])
def test_damage_to_any_file_of_a_checkpoint_is_found(whole, tmp_path, harm):
    for path in sorted((whole[0] / "checkpoints" / "4").rglob("*")):
        if path.is_file() and path.stat().st_size:
            copy = tmp_path / "run"
            shutil.copytree(whole[0], copy)
            name = path.relative_to(whole[0])
            harm(copy / name)
            assert manifest.damage(copy, 4), name
            assert manifest.resolve_step(copy, None) == 2
            with pytest.raises(UserError, match=r"^--step = 4: is damaged"):
                manifest.resolve_step(copy, 4)
            there, reasons = manifest.examine(copy)
            assert there == [2] and list(reasons) == [4]
            manifest.set_damaged_aside(copy, reasons)
            assert (copy / "damaged" / "4").is_dir()
            shutil.rmtree(copy)
    assert not manifest.damage(whole[0], 4)


@pytest.mark.parametrize(
    "file",
    [
        "training/d/*",
        *(
            pytest.param(file, marks=pytest.mark.slow)
            for file in ("training/_METADATA", "sampler/ocdbt.process_0/d/*", "meta/metadata")
        ),
    ],
)
def test_a_run_goes_on_before_its_damaged_checkpoint(whole, tmp_path, file):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    flip(next((copy / "checkpoints" / "4").glob(file)))
    (copy / "checkpoints" / "6").mkdir()
    last = train(read_run(copy).config, copy)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(last), whole[1])
    assert kill_training.series(copy) == kill_training.series(whole[0])
    assert manifest.saved_steps(copy) == [2, 4] and not manifest.damage(copy, 4)
    assert sorted(path.name for path in (copy / "damaged").iterdir()) == ["4", "6"]


def test_without_a_whole_checkpoint_nothing_is_moved(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    for step in (2, 4):
        (copy / "checkpoints" / str(step) / manifest.MANIFEST).unlink()
    with pytest.raises(UserError, match="no checkpoint is whole") as caught:
        train(read_run(copy).config, copy)
    assert "\n" not in str(caught.value)
    assert manifest.saved_steps(copy) == [2, 4] and not (copy / "damaged").exists()


def test_a_run_whose_first_save_was_cut_short_begins_again(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    (copy / "checkpoints" / "2" / manifest.MANIFEST).unlink()
    last = train(read_run(copy).config, copy)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(last), whole[1])
    assert kill_training.series(copy) == kill_training.series(whole[0])


def poisoned(monkeypatch, when):
    """Training whose generator becomes not a number after the updates that ``when`` names, one by
    one.
    """
    make_update = session.make_update

    def broken(gan, recipe):
        advance = make_update(gan, recipe)

        def update(step, current, images):
            current, metrics = advance(step, current, images)
            if next(when, None) == step:
                bad = jax.tree.map(lambda leaf: leaf * jnp.nan, current.g_params)
                current = current.replace(g_params=bad)
            return current, metrics

        return update

    monkeypatch.setattr(session, "make_update", broken)


def test_a_state_that_is_not_finite_goes_back_and_on(tmp_path, monkeypatch, whole):
    config = tiny.config(checkpoint__every=2, sample__every=0, train__log_every=1)
    # The third update of all.
    poisoned(monkeypatch, iter([0, 0, 3]))
    last = jax.device_get(train(config, tmp_path / "run"))
    assert (last.step, last.recoveries) == (4, 1)
    assert [line["step"] for line in kill_training.series(tmp_path / "run")] == [1, 2, 3, 4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last))
    assert manifest.saved_steps(tmp_path / "run") == [2, 4]
    two, other = (kill_training.series(w) for w in (tmp_path / "run", whole[0]))
    # Other random numbers from there on.
    assert two[:2] == other[:2] and two[2] != other[2]


def test_programs_made_ahead_take_the_state_of_a_checkpoint(tmp_path, monkeypatch):
    """They are for one layout of the state, and going back makes another state."""
    calls, call = itertools.count(1), Compiling.__call__

    def broken(self, state, images, augment_prob):
        state, terms = call(self, state, images, augment_prob)
        if next(calls) == 3:
            bad = jax.tree.map(lambda leaf: leaf * jnp.nan, state.g_params)
            state = state.replace(g_params=bad)
        return state, terms

    monkeypatch.setattr(Compiling, "__call__", broken)
    config = tiny.config(checkpoint__every=2, sample__every=0, train__log_every=1)
    last = train(config, tmp_path / "run")
    assert (int(last.step), int(last.recoveries), next(calls)) == (4, 1, 6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_that_are_not_finite_cost_the_way_back_to_a_checkpoint(
    tmp_path, monkeypatch, precision
):
    """Then all goes on as from that checkpoint with one recovery more."""
    batches = session.read_batches
    bad_steps = iter([])

    def floats(dataset, among, layout, *, start_step, **options):
        steps = itertools.count(start_step + 1)
        for images in batches(dataset, among, layout, start_step=start_step, **options):
            images = images.astype(np.float32)
            if next(steps) == 3 and next(bad_steps, None):
                images[0, 0, 0, 0, 5, 7] = np.nan
            yield images

    def settings(num_steps):
        return tiny.config(
            train__num_steps=num_steps,
            train__precision=precision,
            checkpoint__every=2,
            sample__every=0,
            train__log_every=1,
        )

    texts = []
    create_writer = tracking.create_writer

    def overheard(*arguments):
        writer = create_writer(*arguments)
        monkeypatch.setattr(writer, "write_texts", lambda *text: texts.append(text))
        return writer

    monkeypatch.setattr(session, "read_batches", floats)
    # Not compiled ahead, which would be for bytes.
    make_update = session.make_update
    monkeypatch.setattr(session, "make_update", lambda *of: make_update(*of).__call__)
    two = jax.device_get(train(settings(2), tmp_path / "other"))
    (tmp_path / "other" / "checkpoints" / "2").rename(tmp_path / "without a recovery")
    with checkpoint.Saver(tmp_path / "other", settings(2).checkpoint) as saver:
        saver.save(two.replace(recoveries=np.int32(1)), {}, settings(2))
    other = jax.device_get(train(settings(4), tmp_path / "other"))

    bad_steps = iter([True])
    monkeypatch.setattr(tracking, "create_writer", overheard)
    last = jax.device_get(train(settings(4), tmp_path / "run"))
    assert last.recoveries == 1
    jax.tree.map(np.testing.assert_array_equal, last, other)
    ((step, event),) = [text for text in texts if "train/not_finite" in text[1]]
    assert step == 3 and "d/adversarial" in event["train/not_finite"]


def test_a_run_that_is_never_finite_stops_with_advice(tmp_path, monkeypatch):
    class Always:
        def __next__(self):
            return 3

    poisoned(monkeypatch, Always())
    config = tiny.config(
        checkpoint__every=2, sample__every=0, train__log_every=50, train__max_recoveries=2
    )
    with pytest.raises(
        UserError, match=r"not finite at step 4, 3 times since step 2.*learning_rate"
    ):
        train(config, tmp_path / "run")
    assert manifest.saved_steps(tmp_path / "run") == [2]
    assert not manifest.damage(tmp_path / "run", 2)


def test_a_second_trainer_is_refused_while_the_first_lives(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    code = (
        "from lwgan.runs.locks import alone; import pathlib\n"
        f"with alone(pathlib.Path({str(copy)!r})): print(1, flush=True); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    first.stdout.readline()
    with pytest.raises(UserError, match="another process is training there"):
        train(read_run(copy).config, copy)
    with pytest.raises(UserError, match="another process is training there"):
        train(read_run(copy).config, copy, fresh=True)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert train(read_run(copy).config, copy).step == 4


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    workdir = tmp_path / "runs" / "run"
    kill_training.finish(kill_training.start(workdir, 2))
    before = (workdir / "checkpoints" / "2" / manifest.MANIFEST).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond this: inherited by the process.
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        process = kill_training.start(workdir, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2, errors
    assert "cannot be written to" in errors.splitlines()[-1]
    assert (workdir / "checkpoints" / "2" / manifest.MANIFEST).read_bytes() == before
    assert not manifest.damage(workdir, 2)
    kill_training.finish(kill_training.start(workdir, 6))
    assert manifest.resolve_step(workdir, None) == 6


def test_samples_that_cannot_be_written_are_a_warning(tmp_path, monkeypatch, caplog):
    def full(path, image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_files, "save_image", full)
    last = train(tiny.config(train__num_steps=2, sample__every=1), tmp_path / "run")
    assert last.step == 2
    for step in (1, 2):
        assert f"The samples of step {step} failed; going on: [Errno 28] No space" in caplog.text


def test_checkpoints_of_the_first_format_are_still_read(whole, tmp_path):
    """They have no manifest, and their settings do not say that they should."""
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    folder = copy / "checkpoints" / "4"
    (folder / manifest.MANIFEST).unlink()
    assert manifest.damage(copy, 4) == "manifest.json is missing"
    meta = json.loads((folder / "meta" / "metadata").read_text())
    del meta["manifest"]
    (folder / "meta" / "metadata").write_text(json.dumps(meta))
    assert manifest.resolve_step(copy, None) == 4
    like = jax.eval_shape(lambda: init_state(build_gan(read_run(copy).config), 0))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(copy, 4, like), whole[1])


def test_a_run_directory_of_each_format_keeps_its_meaning(tmp_path):
    """Written by the first lwgan that could be installed: its settings lack what came later."""
    copy = tmp_path / "run"
    shutil.copytree(ROOT / "tests" / "fixtures" / "format1", copy)
    config = read_run(copy).config
    generator = build_generator(config)
    step = manifest.resolve_step(copy, None)
    like = generator_shapes(generator)
    ema = checkpoint.restore_generator(copy, step, like, "ema")
    sampler = Sampler(generator, ema["params"], ema["batch_stats"])
    drawn = sampler(sampler.latents(0, 2), 0, batch_size=2)
    np.testing.assert_allclose(drawn, np.load(copy / "samples.npy"), atol=1e-5)

    before = (copy / "metrics.jsonl").read_text()
    config.train.num_steps = step + 1
    # The font may be a newer one.
    last = train(config, copy, accept_new_data=True)
    assert (step, int(last.step), manifest.saved_steps(copy)) == (4, 5, [4, 5])
    assert (copy / "metrics.jsonl").read_text().startswith(before)


TWICE = """
import os, signal
# A test may be started where the interrupt is ignored, in the background for example.
signal.signal(signal.SIGINT, signal.default_int_handler)
import main
from lwgan.training import session, signals

signals._ONCE = 0
make_update = session.make_update

def twice_at_3(gan, recipe):
    advance = make_update(gan, recipe)
    def update(step, *arguments):
        if step == 3:
            os.kill(os.getpid(), signal.{name})
            os.kill(os.getpid(), signal.{name})
        return advance(step, *arguments)
    return update

session.make_update = twice_at_3
main.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(tmp_path, number):
    program = ("-c", TWICE.format(name=number.name))
    process = kill_training.start(tmp_path / "run", 4, program=program)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == -number, errors
    assert "Traceback" not in errors
    assert "again to stop at once" in errors.splitlines()[-1]
    assert not manifest.saved_steps(tmp_path / "run")


@pytest.mark.slow
def test_a_signal_while_programs_compile_ends_in_order(tmp_path):
    """The compiler may be at work yet when the process ends."""
    log = tmp_path / "run" / "log.txt"
    process = kill_training.start(tmp_path / "run", 4)
    while not (log.exists() and "kept in memory" in log.read_text()):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert errors.splitlines()[-1] == (
        "interrupted: nothing to save yet; the same command continues"
    )
    kill_training.finish(kill_training.start(tmp_path / "run", 4))


@pytest.mark.slow
def test_of_two_trainers_started_at_once_one_trains(tmp_path):
    started = [kill_training.start(tmp_path / "run", 4) for _ in range(2)]
    errors = [process.communicate(timeout=600)[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 2], errors
    (refused,) = [text for process, text in zip(started, errors, strict=True) if process.returncode]
    assert refused.count("\n") == 1 and "another process " in refused
    assert manifest.resolve_step(tmp_path / "run", None) == 4
