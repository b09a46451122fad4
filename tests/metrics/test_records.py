"""What a run remembers of its evaluations, and which of its steps is the best."""

import json

import pytest

from lwgan.errors import UserError
from lwgan.metrics.records import (
    FILE,
    add_record,
    best_step,
    figures_of,
    read_records,
    steps_to_keep,
)

WAY = {
    "generator": "ema",
    "data": "d",
    "features": "inception",
    "weights": "w",
    "resize": "clean",
    "background": "white",
    "num_images": 9,
    "mirrored": False,
    "num_reals": 9,
    "num_held_out": 0,
    "seed": 0,
}
METRICS = ("pr", "fid", "kid")


def record(step, **changes):
    return {"step": step, **WAY, **changes}


def test_records_of_one_way_of_measuring_are_merged(tmp_path):
    for each in (
        record(4, fid=3.0),
        record(2, fid=5.0),
        record(4, kid=0.1),
        record(4, features="other", fid=7.0),
        record(4, fid=2.0),
    ):
        add_record(tmp_path, each)
    records = json.loads((tmp_path / FILE).read_text())
    assert [(x["step"], x["features"], x.get("fid"), x.get("kid")) for x in records] == [
        (2, "inception", 5.0, None),
        (4, "inception", 2.0, 0.1),
        (4, "other", 7.0, None),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1 column 1"),
        ("{", "line 1 column 2"),
        ("{}", "this is no list of records"),
        ("[1]", "record 1 is none"),
        ('[{"features": "a", "step": 1}, {"fid": 1}]', "record 2 is none"),
        ('[{"features": "a", "fid": 1}]', "record 1 has no step"),
        ('[{"features": "a", "step": 1, "fid": "low"}]', "record 1 has no number as its fid"),
        ('[{"features": "a", "step": 1, "seed": [1]}]', "record 1 does not say how"),
    ],
)
def test_records_that_cannot_be_read_are_one_line(tmp_path, text, reason):
    (tmp_path / FILE).write_text(text)
    message = rf"^metrics\.json = '.*metrics\.json': cannot be read \(.*{reason}.*\); bring back"
    with pytest.raises(UserError, match=message):
        read_records(tmp_path)


def test_records_of_earlier_versions_are_of_the_ema_generator_beside_no_mirror_images(tmp_path):
    later = ("generator", "mirrored")
    old = {name: value for name, value in record(4, fid=3.0).items() if name not in later}
    (tmp_path / FILE).write_text(json.dumps([old]))
    add_record(tmp_path, record(4, kid=0.5))
    add_record(tmp_path, record(4, fid=1.0, generator="raw"))
    ema, raw = read_records(tmp_path)
    assert (ema["fid"], ema["kid"], raw["fid"]) == (3.0, 0.5, 1.0)
    # The run's own way is that of the EMA generator.
    assert best_step([ema, raw], METRICS, [4], WAY) == 4
    assert figures_of(ema) == {"inception/fid": 3.0, "inception/kid": 0.5}
    assert figures_of(raw) == {"inception/raw/fid": 1.0}


def test_the_best_is_the_lowest_of_the_first_metric_that_chooses():
    records = [record(1, fid=3.0, kid=0.1), record(2, fid=2.0, kid=0.2), record(5, precision=1.0)]
    assert best_step(records, METRICS, [1, 2, 5], WAY) == 2
    assert best_step(records, ("kid", "fid"), [1, 2, 5], WAY) == 1
    assert best_step(records, METRICS, [1, 5], WAY) == 1
    assert best_step(records, METRICS, [5], WAY) is None
    assert best_step(records, ("pr",), [1, 2, 5], WAY) is None
    assert best_step([], METRICS, [1], WAY) is None


@pytest.mark.parametrize("name", WAY)
def test_only_the_runs_own_way_of_measuring_decides(name):
    other = {name: "other" if isinstance(WAY[name], str) else 77}
    records = [record(1, fid=1.0), record(2, fid=2.0), record(2, **other, fid=0.0)]
    assert best_step(records, METRICS, [1, 2], WAY) == 1
    assert steps_to_keep(records, METRICS, [1, 2], WAY) == {1}


def test_where_the_weights_are_gone_the_newest_decide():
    way = {name: value for name, value in WAY.items() if name != "weights"}
    records = [record(1, weights="old", fid=0.0), record(2, fid=1.0), record(3, fid=2.0)]
    assert best_step(records, METRICS, [1, 2, 3], way) == 2


def test_where_nothing_was_measured_so_the_best_of_each_way_stays():
    records = [record(1, fid=1.0), record(2, fid=2.0)]
    records += [record(2, seed=7, fid=5.0), record(3, seed=7, fid=4.0)]
    own = WAY | {"num_images": 50}
    assert best_step(records, METRICS, [1, 2, 3], own) is None
    assert steps_to_keep(records, METRICS, [1, 2, 3], own) == {1, 3}
    assert steps_to_keep(records, METRICS, [4], own) == set()
