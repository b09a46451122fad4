"""Damage to the files of a run: it goes on as if nothing had happened, or says what is damaged."""

import json
import shutil

import pytest

from lwgan.errors import UserError
from lwgan.metrics import evaluator
from lwgan.runs.directory import read_run
from lwgan.runs.tracking import METRICS, tracked
from lwgan.runs.writers import JsonLinesWriter
from tests import fuzz_files, tiny
from tests.calling import call
from tests.fuzz_files import Damage
from tests.metrics.test_evaluator import Means

DAMAGES = [
    Damage("cut", "config.json"),
    Damage("unreadable", "config.json"),
    Damage("directory", "config.json"),
    Damage("removed", "run.json"),
    Damage("directory", "run.json"),
    Damage("emptied", "metrics.json"),
    Damage("directory", "metrics.json"),
    Damage("cut", "metrics.jsonl"),
    Damage("directory", "log.txt"),
    Damage("directory", ".metrics.json.lock"),
    Damage("unreadable", "samples/00000004.png"),
    Damage("flipped", "checkpoints/4/meta/metadata"),
    Damage("emptied", "checkpoints/4/manifest.json"),
    Damage("directory", "checkpoints/2/_CHECKPOINT_METADATA"),
]


@pytest.mark.slow(minutes=2)
def test_damage_to_a_file_changes_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluator, "open_features", lambda name, weights, resize: Means())
    whole = fuzz_files.make_undamaged(tmp_path)
    assert {damage.kind for damage in DAMAGES} == set(fuzz_files.KINDS)
    for number, damage in enumerate(DAMAGES):
        survived = fuzz_files.survive(whole, damage, tmp_path / str(number))
        assert not survived.violations, damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with a checkpoint."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    tiny.save_run(workdir, (4,), tiny.config(checkpoint__keep_last=1))
    return workdir


def with_other(values):
    """Replaces values in a JSON file; None takes one out."""

    def harm(path):
        said = json.loads(path.read_text()) | values
        kept = {name: value for name, value in said.items() if value is not None}
        path.write_text(json.dumps(kept))

    return harm


def in_train(values):
    """The same in the settings of training."""

    def harm(path):
        said = json.loads(path.read_text())
        train = {**said["train"], **values}
        said["train"] = {name: value for name, value in train.items() if value is not None}
        path.write_text(json.dumps(said))

    return harm


def directory(path):
    path.unlink()
    path.mkdir()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


EITHER = [
    (lambda path: path.write_text(""), "Expecting value"),
    (cut, "line "),
    (lambda path: path.write_bytes(b"\xff" + path.read_bytes()), "can't decode byte 0xff"),
    (lambda path: path.write_text("[1]"), "it has no |these are no settings"),
    (directory, "Is a directory"),
]
HARM = [
    *(("config.json", *each) for each in EITHER),
    *(("run.json", *each) for each in EITHER),
    ("config.json", with_other({"data": 3}), "'data' is no group of settings: '3'"),
    ("config.json", with_other({"other": {"x": 1}}), "other"),
    ("config.json", in_train({"seed": None}), "train.seed"),
    ("config.json", in_train({"x": 1}), "train.x"),
    ("config.json", in_train({"num_steps": "many"}), "train.num_steps = 'many'"),
    ("run.json", with_other({"changes": 3}), "'changes' is '3'"),
    ("run.json", with_other({"fingerprint": None}), "it has no fingerprint"),
    ("run.json", with_other({"x": 1}), "'x' is not known here"),
]


@pytest.mark.parametrize(("name", "harm", "reason"), HARM)
def test_a_damaged_file_comes_from_the_newest_checkpoint(
    saved, tmp_path, caplog, name, harm, reason
):
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    harm(copy / name)
    said, whole = read_run(copy), read_run(saved)
    assert said.config == whole.config and said.info == whole.info
    (warning,) = caplog.messages
    assert warning.startswith(f"{copy / name}: ")
    assert warning.endswith("; taken from checkpoint 4 instead")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match=reason) as caught:
        read_run(copy)
    assert str(caught.value).startswith(f"{name} = {str(copy / name)!r}: cannot be read (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "run.json"])
def test_a_removed_file_comes_from_the_newest_checkpoint(saved, tmp_path, caplog, name):
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    (copy / name).unlink()
    said, whole = read_run(copy), read_run(saved)
    assert said.config == whole.config and said.info == whole.info
    expected = f"{copy / name}: No such file or directory; taken from checkpoint 4 instead"
    assert caplog.messages == [expected]
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="there is no run in this directory"):
        read_run(copy)


@pytest.mark.parametrize(
    "bad",
    [
        b'{"step": 2, "d/\xff": 1.0}\n',
        b'{"d/adversarial": 1.0}\n',
        b"[1, 2]\n",
        b"null\n",
        b"\n",
        b'{"step": "2"}\n',
        b'{"step": 2, "d/adv\n',
    ],
)
def test_a_damaged_line_of_metrics_costs_itself(tmp_path, bad):
    path = tmp_path / METRICS
    one, two = b'{"step": 1, "a": 0.5}\n', b'{"step": 2, "b": 0.25}\n'
    path.write_bytes(one + bad + two)
    assert tracked(tmp_path, 2) == {"step", "b"}
    writer = JsonLinesWriter(path, 2)
    assert path.read_bytes() == one + two
    writer.write_scalars(3, {"c": 1.0})
    assert path.read_bytes() == one + two + b'{"step": 3, "c": 1.0}\n'


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("data", "source", "opgnmoji"),
        ("data", "subset", "fases"),
        ("loss", "kind", "hioge"),
        ("optim", "name", "adem"),
        ("model", "disc_fmap_inverse_coef", 1),
    ],
)
@pytest.mark.parametrize("command", ["lwgan.sample", "lwgan.evaluate", "main"])
def test_impossible_settings_are_one_line(saved, tmp_path, command, group, name, value):
    """They are those of ``config.json`` after a flipped bit."""
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    said = json.loads((copy / "config.json").read_text())
    said[group][name] = value
    (copy / "config.json").write_text(json.dumps(said))
    ended = call(command, f"--workdir={copy}")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"error: {group}.{name} = {value!r}: ")


@pytest.mark.parametrize(
    ("name", "value"), [("latent_dim", 9), ("side_channels", 6), ("attn_resolutions", [16])]
)
def test_other_networks_are_one_line_before_anything_is_written(saved, tmp_path, name, value):
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    said = json.loads((copy / "config.json").read_text())
    said["model"][name] = value
    (copy / "config.json").write_text(json.dumps(said))
    before = fuzz_files.contents(copy)
    ended = call("main", f"--workdir={copy}", "--accept_new_data", "--config.train.num_steps=5")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"error: config.json = {str(copy / 'config.json')!r}: ")
    assert "checkpoint 4 is of other networks than the settings: " in ended.stderr
    assert fuzz_files.contents(copy) == before


@pytest.mark.parametrize("name", ["log.txt", METRICS, "run.json", "config.json"])
def test_what_cannot_be_written_is_named_before_anything_is_written(saved, tmp_path, name):
    copy = tmp_path / "run"
    shutil.copytree(saved, copy)
    (copy / name).unlink(missing_ok=True)
    (copy / name).mkdir()
    before = fuzz_files.contents(copy)
    ended = call("main", f"--workdir={copy}", "--accept_new_data")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    said = f"error: --workdir = {str(copy / name)!r}: cannot be written to (Is a directory)"
    assert ended.stderr.startswith(said)
    assert fuzz_files.contents(copy) == before
