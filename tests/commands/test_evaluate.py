"""The command: a run's checkpoints and two folders, the table, metrics.json, the sheet, and its
errors.
"""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from lwgan.data.sources import open_source
from lwgan.metrics.records import read_records
from lwgan.runs import checkpoint
from lwgan.runs.directory import read_run, record_start, resolve_run
from lwgan.settings.files import to_json
from tests import drawn, tiny
from tests.calling import call


def command(*arguments):
    return call("lwgan.evaluate", *arguments)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of tiny networks with checkpoints at 0 and 4, of other weights each."""
    config = tiny.config()
    root = tmp_path_factory.mktemp("runs") / "tiny"
    fingerprint = open_source(config.data).fingerprint
    record_start(
        resolve_run(config, root, fingerprint, accept_new_data=False), config, fingerprint, 0
    )
    first = tiny.init(tiny.gan())
    with checkpoint.Saver(root, config.checkpoint) as saver:
        for step in (0, 4):
            params = jax.tree.map(lambda x, step=step: x * (1 + step / 4), first.ema_params)
            saver.save(first.replace(step=np.int32(step), ema_params=params), {}, config)
    return root


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


LITE = ("--features=efficientnet_lite0", "--num_images=24")


def test_a_run_is_measured(workdir):
    ended = command(f"--workdir={workdir}", "--step=all", *LITE)
    assert ended.returncode == 0, ended.stderr
    sheets = sheets_of(workdir)
    names = [path.parent.name for path in sheets]
    for step, name in zip((0, 4), names, strict=True):
        assert re.fullmatch(
            rf"{step:08d}-seed0-24-of106-efficientnet_lite0-data[0-9a-f]{{8}}-weights[0-9a-f]{{8}}",
            name,
        )
    lines = ended.stdout.splitlines()
    assert lines[:2] == [str(path) for path in sheets]
    lines = lines[2:]
    assert lines[0].split() == [
        "step",
        "kid",
        "kid_stderr",
        "fid",
        "precision",
        "recall",
        "closer",
        "closer_if_new",
        "copies",
    ]
    assert [line.split()[0] for line in lines[1:3]] == ["0", "4"]
    assert "efficientnet_lite0 features, resize clean, 24 images beside 106 real" in lines[3]
    assert "biased" in lines[4]
    records = json.loads((workdir / "metrics.json").read_text())
    assert [record["step"] for record in records] == [0, 4]
    assert records[0]["features"] == "efficientnet_lite0" and records[0]["num_images"] == 24
    assert records[0]["fid"] != records[1]["fid"]
    for path in sheets:
        with Image.open(path) as sheet:
            assert sheet.size == (4 * 34 + 2, 16 * 34 + 2)

    again = command(f"--workdir={workdir}", "--metrics=kid", "--noreport", *LITE)
    assert again.stdout.splitlines()[0].split() == ["step", "kid", "kid_stderr"]
    updated = json.loads((workdir / "metrics.json").read_text())
    # The same figures, and those not asked for are still there.
    assert updated == records


def sheets_of(folder):
    return sorted((folder / "generated").glob("*/nearest.png"))


def test_sheets_are_named_by_what_they_depend_on(workdir, tmp_path):
    """So that none is written over another, nor again and again beside it."""
    run = tmp_path / "run"
    shutil.copytree(workdir, run, ignore=lambda *_: ["generated", "metrics.json"])
    first = command(f"--workdir={run}", "--metrics=kid", *LITE)
    assert first.returncode == 0, first.stderr
    (sheet,) = sheets_of(run)
    before = sheet.stat()
    again = command(f"--workdir={run}", "--metrics=kid", *LITE)
    assert again.stdout == first.stdout and sheets_of(run) == [sheet]
    assert sheet.stat().st_mtime_ns == before.st_mtime_ns
    raw = command(f"--workdir={run}", "--metrics=kid", "--weights=raw", *LITE)
    assert len(sheets_of(run)) == 2 and raw.stdout.splitlines()[0].split("/")[-2] == (
        f"{sheet.parent.name}-raw"
    )
    assert "of the live generator, efficientnet_lite0 features" in raw.stdout
    ema_record, raw_record = read_records(run)
    assert (ema_record["generator"], raw_record["generator"]) == ("ema", "raw")
    # Elsewhere, other runs' figures are not mixed with these.
    for folder in ("out", "out.1"):
        command(f"--workdir={run}", "--metrics=kid", f"--out={tmp_path / 'out'}", *LITE)
        assert len(sheets_of(tmp_path / folder)) == 1
        assert len(read_records(tmp_path / folder)) == 1
    assert len(read_records(run)) == 2


def test_a_run_with_held_out_images_is_measured_beside_both(workdir, tmp_path):
    held = tmp_path / "run"
    shutil.copytree(workdir, held, ignore=lambda *_: ["generated", "metrics.json"])
    config = read_run(held).config
    config.data.holdout = 0.25
    (held / "config.json").write_text(to_json(config))
    ended = command(f"--workdir={held}", "--metrics=kid", "--noreport", *LITE)
    assert ended.stdout.splitlines()[0].split() == [
        "step",
        "kid",
        "kid_stderr",
        "kid_held_out",
        "kid_stderr_held_out",
        "realness_trained",
        "realness_held_out",
    ], ended.stderr
    (record,) = json.loads((held / "metrics.json").read_text())
    assert record["num_reals"] + record["num_held_out"] == 106 and record["num_held_out"] >= 8
    assert record["kid"] != record["kid_held_out"]
    assert record["realness_trained"] != record["realness_held_out"]
    assert not (held / "generated").exists()


def test_two_folders_are_compared(tmp_path):
    for name, seeds in (("a", range(10)), ("b", range(10, 20))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            drawn.noise(seed, (40, 33 + seed % 2)).save(tmp_path / name / f"{seed}.png")
    drawn.noise(3, mode="RGBA").save(tmp_path / "a" / "rgba.png")
    drawn.noise(3, mode="L").save(tmp_path / "a" / "grey.png")
    file = tmp_path / "figures.json"
    folders = f"--images={tmp_path / 'a'}", f"--reference={tmp_path / 'b'}"
    ended = command(*folders, "--features=efficientnet_lite0", f"--json={file}")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(file.read_text())
    assert {"fid", "kid", "kid_stderr", "precision", "recall"} <= set(figures)
    assert figures["features"] == "efficientnet_lite0"
    assert (figures["num_images"], figures["num_reals"]) == (12, 10)
    path, table, *_ = ended.stdout.splitlines()
    assert path == str(file) and table.split()[0] == "kid"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--workdir = None: must name a run directory, or --images and --reference"),
        (("--workdir={tmp}",), "there is no run in this directory"),
        (("--workdir={run}", "--step=7"), "--step = 7: has no checkpoint; choose from 0, 4"),
        (("--workdir={run}", "--step=last"), "--step = 'last': must be a step or latest"),
        (("--workdir={run}", "--metrics=fid,foo"), "--metrics = 'foo': must be of fid, kid, pr"),
        (("--workdir={run}", "--features=vgg"), "must be of inception, efficientnet_lite0"),
        (("--workdir={run}", "--num_images=2"), "num_images"),
        (("--workdir={run}", "--features_weights={tmp}/none"), "weights = '{tmp}/none': No such"),
        (("--workdir={run}", "--weights=both"), "--weights = 'both': value should be one of <ema"),
        (
            ("--images={tmp}", "--reference={tmp}", "--weights=raw"),
            "--weights = 'raw': is of a run",
        ),
        (("--images={tmp}", "--reference={tmp}", "--step=2"), "--step = '2': is of a run"),
        (("--images={tmp}", "--reference={tmp}", "--out=x"), "--out = 'x': is of a run"),
        (("--images={tmp}/none", "--reference={tmp}"), "--images = '{tmp}/none': there is no such"),
        (
            ("--images={tmp}/few", "--reference={tmp}/few"),
            "--images = '1 images': at least 8 are needed",
        ),
        (("--images={tmp}/few", "--json={tmp}/few/one.png"), "one.png': is there already"),
        (("--images={tmp}/few", "--json={tmp}/none/x"), "its folder does not exist"),
        (("--images={tmp}/few", "--workdir={run}"), "--workdir = '{run}': is of a run, not of"),
        (("--workdir={run}", "--json={tmp}/x"), "--json = '{tmp}/x': is for --images"),
        (("--images={tmp}/few",), "--reference = '': there is no such folder"),
    ],
)
def test_errors_are_one_line(workdir, tmp_path, arguments, message):
    (tmp_path / "few").mkdir()
    drawn.noise(0).save(tmp_path / "few" / "one.png")
    before = sorted(workdir.rglob("*"))
    named = {"tmp": tmp_path, "run": workdir}
    ended = command(*(argument.format(**named) for argument in arguments))
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and message.format(**named) in line
    assert sorted(workdir.rglob("*")) == before


def test_images_that_do_not_decode_are_left_out_and_counted(tmp_path, caplog):
    """Of each folder, for any of its images may be damaged."""
    for name, seed in (("a", 0), ("b", 100)):
        (tmp_path / name).mkdir()
        for number in range(12):
            drawn.noise(seed + number).save(tmp_path / name / f"{number:02d}.png")
    figures = [f"--reference={tmp_path / 'b'}", "--features=efficientnet_lite0", "--metrics=kid"]
    whole = command(f"--images={tmp_path / 'a'}", *figures)
    drawn.noise(50).save(tmp_path / "a" / "x.png")
    content = (tmp_path / "a" / "x.png").read_bytes()
    (tmp_path / "a" / "x.png").write_bytes(content[:900])
    (tmp_path / "a" / "y.png").write_bytes(b"")
    (tmp_path / "a" / "z.jpg").write_text("<html>")
    ended = command(f"--images={tmp_path / 'a'}", *figures)
    assert ended.returncode == 0, ended.stderr
    for part in ("Left out: x.png", "y.png (is empty)", "--images: 3 of 15 files left out"):
        assert part in caplog.text
    assert ended.stdout == whole.stdout
    for number in range(8):
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(b"")
    ended = command(f"--images={tmp_path / 'a'}", *figures)
    assert ended.returncode == 2
    assert "11 of 15 images do not decode" in ended.stderr.splitlines()[-1]
