import json

import numpy as np
import pytest
from mmengine.config import Config

from beyonddrive.datasets.stores.negative_pool import (
    NegativePool,
    NegativeRecord,
    PoolDescription,
    hash_tokens,
    open_writer,
)
from beyonddrive.datasets.stores.selection import SelectionError, displacement
from beyonddrive.generators.coverage import CoverageCounter, measure_coverage, write_report
from beyonddrive.generators.mining_job import report_pool

EXPERT = np.zeros((8, 3), np.float32)


def record(scores, sideways):
    plans = np.zeros((len(sideways), 8, 3), np.float32)
    plans[:, :, 1] = np.asarray(sideways)[:, None]
    rows = np.ones((len(sideways), 7), np.float32)
    for (plan, column), value in scores.items():
        rows[plan, column] = value
    return NegativeRecord(plans, rows, EXPERT, np.where(rows < 1, np.float32(2.0), np.float32(np.inf)))


# three plans at 1, 2 and 4 m beside the expert: the first leaves the road, the second hits something static
FAILS = record({(0, 1): 0.0, (0, 6): 0.0, (1, 0): 0.5, (1, 6): 0.3}, [1.0, -2.0, 4.0])
FAILS_FAR = record({(2, 1): 0.0, (2, 6): 0.0}, [0.0, 0.0, 3.0])
SAFE = record({}, [0.5, 0.5, 0.5])


def test_figures_by_hand():
    counter = CoverageCounter()
    for item in (FAILS, FAILS_FAR, SAFE):
        counter.add(item)
    report = counter.report(num_failed=2)
    assert (report.num_scenes, report.num_failed, report.num_proposals) == (3, 2, 9)
    assert report.scenes_with_negative == pytest.approx(2 / 3)
    assert report.proposals_negative == pytest.approx(3 / 9)
    assert report.proposals_failing["DAC"] == pytest.approx(2 / 9)
    assert report.scenes_failing["DAC"] == pytest.approx(2 / 3)
    assert report.proposals_failing["NC"] == pytest.approx(1 / 9)
    assert report.scenes_failing["NC"] == pytest.approx(1 / 3)
    assert report.proposals_failing["TTC"] == report.scenes_failing["TTC"] == 0
    assert report.nearest_negative_mean == pytest.approx((1 + 3) / 2)
    assert report.nearest_negative_median == pytest.approx(2)
    assert report.expert_distance_mean == pytest.approx((1 + 2 + 4 + 0 + 0 + 3 + 1.5) / 9)
    # pairs of the scenes: (3, 3, 6), (0, 3, 3), (0, 0, 0); of negatives: only the first scene has a pair, 3 m
    assert report.proposal_diversity == pytest.approx((12 / 3 + 6 / 3 + 0) / 3)
    assert report.negative_diversity == pytest.approx(3.0)


def test_another_column_and_threshold():
    counter = CoverageCounter(column="NC", threshold=0.5)
    counter.add(FAILS)
    assert counter.report().scenes_with_negative == 0
    counter = CoverageCounter(column="NC", threshold=0.51)
    counter.add(FAILS)
    report = counter.report()
    assert report.scenes_with_negative == 1
    assert report.nearest_negative_mean == pytest.approx(2)
    with pytest.raises(SelectionError, match="column"):
        CoverageCounter(column="x")


def test_displacement_is_the_mean_over_poses():
    plan = np.zeros((8, 3))
    plan[7] = [3.0, 4.0, 1.0]
    assert displacement(plan, np.zeros((8, 3))) == pytest.approx(5 / 8)
    plans = np.zeros((2, 8, 3))
    plans[0, :, :2] = 3.0, 4.0
    plans[1, 4:, 1] = 2.0
    plans[:, :, 2] = 1.0  # (headings do not count)
    assert displacement(plans, np.zeros((2, 8, 3))).tolist() == [5.0, 1.0]


def test_an_empty_pool_has_no_figures():
    report = CoverageCounter().report()
    assert report.num_scenes == 0
    assert report.scenes_with_negative is None
    assert report.nearest_negative_median is None
    assert " - " in report.table() or "-\n" in report.table()


@pytest.fixture
def pool(tmp_path):
    description = PoolDescription(
        "train", {"name": "g"}, {}, 0, "pair", 3, hash_tokens(["a", "b", "c"]), shard_size=1
    )
    writer = open_writer(tmp_path, description, "a test")
    writer.write("shard-00000", {"a": FAILS._asdict()})
    writer.write("shard-00001", {"b": SAFE._asdict()}, {"c": "SceneError: no route"})
    return NegativePool(tmp_path)


def test_report_of_a_pool_on_disk(pool):
    seen = []

    def progress(tokens):
        for token in tokens:
            seen.append(token)
            yield token

    report = measure_coverage(pool, progress=progress)
    assert seen == ["a", "b"]
    assert (report.num_scenes, report.num_failed) == (2, 1)
    assert report.scenes_with_negative == 0.5
    path = write_report(pool, report)
    assert path == pool.root / "coverage.json"
    written = json.loads(path.read_text())
    assert written["failures"] == {"c": "SceneError: no route"}
    assert written["scenes_failing"]["DAC"] == 0.5
    assert written["nearest_negative_mean"] == pytest.approx(1.0)
    assert len(NegativePool(pool.root)) == 2  # the report beside the shards does not disturb the pool


NC_AND_DAC = {"type": "NearestNegativesPerColumn", "columns": ["NC", "DAC"]}


@pytest.mark.parametrize(
    ("selection", "given", "rule", "scenes", "proposals", "nearest"),
    [
        ({}, {}, "PDMS < 0.6", 1 / 2, 2 / 6, 1.0),
        ({"max_distance": 0.5}, {}, "PDMS < 0.6", 0, 2 / 6, None),  # negatives, but none so near is selected
        ({"min_distance": 1.5}, {}, "PDMS < 0.6", 1 / 2, 2 / 6, 2.0),
        ({"min_distance": 1.5}, {"threshold": 0.2}, "PDMS < 0.2", 0, 1 / 6, None),
        ({**NC_AND_DAC, "columns": ["NC"]}, {}, "NC < 0.6", 1 / 2, 1 / 6, 2.0),
        (NC_AND_DAC, {}, "NC, DAC < 0.6", 1 / 2, 2 / 6, 1.0),
        (NC_AND_DAC, {"column": "DAC", "threshold": 0.5}, "DAC < 0.5", 1 / 2, 1 / 6, 1.0),
        ({**NC_AND_DAC, "threshold": {"NC": 0.4, "DAC": 1}}, {}, "NC < 0.4, DAC < 1", 1 / 2, 1 / 6, 1.0),
    ],
)
def test_negatives_are_those_that_the_config_selects(
    pool, selection, given, rule, scenes, proposals, nearest
):
    report = report_pool(pool, Config({"negative_selection": selection}), **given)
    assert f"negative: {rule}\n" in report.table()
    assert report.scenes_with_negative == pytest.approx(scenes)
    assert report.proposals_negative == pytest.approx(proposals)
    assert report.nearest_negative_mean == (None if nearest is None else pytest.approx(nearest))
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_table_shows_every_figure(pool):
    table = measure_coverage(pool).table()
    rows = {line[:28].strip(): line[28:].split() for line in table.splitlines()}
    assert rows["with a negative / negative"] == ["50.0", "%", "33.3", "%"]
    assert rows["DAC < 0.6"] == ["50.0", "%", "16.7", "%"]
    assert rows["nearest negative"] == ["1.00", "m", "1.00", "m"]
    assert rows["negatives"] == ["3.00", "m"]
    assert "failed 1" in table
