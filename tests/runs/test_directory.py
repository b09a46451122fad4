"""Run directories: what starts, what continues, what is refused, and what is written."""

import json

import flax
import jax
import pytest

import lwgan
from configs import default
from lwgan.errors import UserError
from lwgan.runs.directory import FORMAT, is_run, read_run, record_start, resolve_run


def config_with(**train):
    config = default.get_config()
    config.train.update(train)
    return config


def start(workdir, config=None, fingerprint="abc"):
    config = config or default.get_config()
    planned = resolve_run(config, workdir, fingerprint, accept_new_data=False)
    record_start(planned, config, fingerprint, 0)
    return planned


def listing(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_new_run_says_what_it_is(tmp_path):
    workdir = tmp_path / "runs" / "new"
    config = config_with(num_steps=7)
    assert not is_run(workdir)
    start(workdir, config)
    assert sorted(p.name for p in workdir.iterdir()) == ["config.json", "run.json"]
    assert json.loads((workdir / "run.json").read_text()) == {
        "fingerprint": "abc",
        "format": 1,
        "versions": {
            "lwgan": lwgan.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
        },
        "aim_run": None,
        "changes": [],
        "init_from": None,
        "aspect": None,
        "labelling": None,
    }
    again = read_run(workdir)
    assert again.config == config and again.info.fingerprint == "abc"


def test_planning_writes_nothing(tmp_path):
    resolve_run(default.get_config(), tmp_path / "new", "abc", accept_new_data=False)
    assert listing(tmp_path) == {}
    start(tmp_path / "old")
    before = listing(tmp_path)
    resolve_run(config_with(num_steps=7), tmp_path / "old", "other", accept_new_data=True)
    assert listing(tmp_path) == before


def test_changed_settings_are_recorded_with_their_step(tmp_path):
    start(tmp_path / "a")
    for step, num_steps in ((0, 150_000), (30, 7), (40, 7), (50, 9)):
        config = config_with(num_steps=num_steps)
        planned = resolve_run(config, tmp_path / "a", "abc", accept_new_data=False)
        record_start(planned, config, "abc", step)
    assert read_run(tmp_path / "a").config.train.num_steps == 9
    assert read_run(tmp_path / "a").info.changes == [
        {"step": 30, "setting": "train.num_steps", "from": 150_000, "to": 7},
        {"step": 50, "setting": "train.num_steps", "from": 7, "to": 9},
    ]


def test_run_may_be_moved_and_keeps_its_aim_run(tmp_path):
    first = start(tmp_path / "a")
    first.info.aim_run = "0123"
    first.write()
    assert str(tmp_path) not in (tmp_path / "a" / "run.json").read_text()
    (tmp_path / "a").rename(tmp_path / "b")
    assert start(tmp_path / "b").info.aim_run == "0123"


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("model", "fmap_max", 64, r"^model\.fmap_max = 64: the run in .*/a has 512; .*--fresh"),
        ("model", "attn_resolutions", (), r"^model\.attn_resolutions = \(\): .* has \(32,\);"),
        ("optim", "name", "adabelief", r"^optim\.name = 'adabelief': .* has 'adam';"),
    ],
)
def test_another_architecture_is_refused_with_both_values(tmp_path, group, name, value, message):
    start(tmp_path / "a")
    config = default.get_config()
    config[group][name] = value
    with pytest.raises(UserError, match=message):
        resolve_run(config, tmp_path / "a", "abc", accept_new_data=True)


def test_other_images_are_refused_unless_accepted(tmp_path):
    start(tmp_path / "a")
    config = default.get_config()
    config.data.path = "elsewhere"
    resolve_run(config, tmp_path / "a", "abc", accept_new_data=False)
    with pytest.raises(UserError, match=r"^data = 'elsewhere': .*--accept_new_data"):
        resolve_run(config, tmp_path / "a", "xyz", accept_new_data=False)
    planned = resolve_run(config, tmp_path / "a", "xyz", accept_new_data=True)
    record_start(planned, config, "xyz", 20)
    info = read_run(tmp_path / "a").info
    assert info.fingerprint == "xyz"
    change = {"step": 20, "setting": "fingerprint", "from": "abc", "to": "xyz"}
    assert change in info.changes


@pytest.mark.parametrize("content", ["image.png", "config.json", ".hidden"])
def test_directory_that_is_no_run_is_refused(tmp_path, content):
    (tmp_path / content).write_text("{}")
    with pytest.raises(UserError, match=r"^--workdir = .*: holds something that is not a run"):
        resolve_run(default.get_config(), tmp_path, "abc", accept_new_data=False)
    with pytest.raises(UserError, match=r"^--workdir = .*: there is no run in this directory"):
        read_run(tmp_path)


def test_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--workdir = .*file': holds something that is not a run"):
        resolve_run(default.get_config(), tmp_path / "file", "abc", accept_new_data=False)


def test_directory_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--workdir = .*file/run': cannot be made"):
        start(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [[], ["run.json"], ["lost+found"]])
def test_empty_or_barely_begun_directory_takes_a_new_run(tmp_path, content):
    for name in content:
        (tmp_path / name).write_text('{"fingerprint": "of an interrupted start"}')
    start(tmp_path)
    assert read_run(tmp_path).info.fingerprint == "abc"


def test_newer_format_is_refused(tmp_path):
    start(tmp_path)
    info = json.loads((tmp_path / "run.json").read_text())
    info |= {"format": FORMAT + 1, "something": "new"}
    (tmp_path / "run.json").write_text(json.dumps(info))
    for read in (
        lambda: read_run(tmp_path),
        lambda: resolve_run(default.get_config(), tmp_path, "abc", accept_new_data=False),
    ):
        with pytest.raises(
            UserError,
            match=rf"has format {FORMAT + 1}, .* up to {FORMAT}; install a newer lwgan",
        ):
            read()
