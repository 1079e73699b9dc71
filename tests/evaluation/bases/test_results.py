"""Results of all bases from records of scenes: what contradicts itself, and what is counted."""

import csv
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
from beyonddrive.evaluation.bases.places import TwoStageData
from beyonddrive.evaluation.bases.results import LEFT_OUT
from beyonddrive.evaluation.bases.run import BasesScoring
from beyonddrive.evaluation.bases.scenes import SceneRecord
from beyonddrive.evaluation.bases.tables import format_bases, table_rows, write_bases
from beyonddrive.evaluation.pdm.scores.two_stage import read_groups
from beyonddrive.evaluation.score_labels import parse_bases

GOLDEN = Path(__file__).parents[2] / "data/golden"
DATA, MAPS = GOLDEN / "two_stage/data", GOLDEN / "pdms/data/maps"


@pytest.fixture(scope="module")
def split():
    return TwoStageSplit.read(DATA / "two_stage_split.json")


@pytest.fixture(scope="module")
def groups(split):
    """The two smallest groups."""
    return sorted(read_groups(split.pairs), key=lambda group: len(group.pairs))[:2]


@pytest.fixture
def scoring(split, groups):
    """PDMS, EPDMS of one stage and of two, of plans for two groups."""
    data = TwoStageData(split, DATA, DATA / "synthetic_scene_pickles", MAPS)
    plans = {token: np.zeros((1, 8, 3)) for group in groups for token in group.tokens}
    bases = parse_bases("pdms,epdms,two-stage-logged")
    return BasesScoring(NavsimRoot(DATA, MAPS), "two_stage", plans, "plans.npz", bases, data)


@pytest.fixture
def records(split, groups):
    """Scenes in which everything went well; each pair has a log and a time of its own."""
    logs = split.log_names
    found = {}
    for number, group in enumerate(groups):
        pairs = [(group.now, group.previous), *group.pairs]
        for row, pair in enumerate(pairs):
            for token, time, half in zip(pair, (10.5, 10.0), pairs[0], strict=True):
                arrays = {
                    "pdms": np.ones((1, 7)),
                    "logged": np.ones((1, 8)),
                    "logged_human": np.ones(8),
                    "motion": np.zeros((1, 41, 3)),
                    "time": np.array(time + 100 * row),
                    "end": np.zeros((1, 2)),
                    "start": np.zeros(2),
                }
                found[token] = SceneRecord(token, logs[number], arrays, {}, f"end of {half}")
    return found


def at(record, time):
    return record._replace(arrays={**record.arrays, "time": np.array(time)})


def test_records_without_a_fault_have_results_on_every_basis(scoring, records):
    assert [result.means[""][-1] for result in scoring.results(records)] == [1.0, 1.0, 1.0]


def test_a_pair_at_the_same_time_costs_the_bases_of_two_stages_alone(scoring, records, groups):
    later, earlier = groups[1].pairs[0]
    records[later] = at(records[later], records[earlier].arrays["time"] + 0.02)
    pdms, epdms, two_stages = scoring.results(records)
    assert pdms.means[""][-1] == epdms.means[""][-1] == 1.0
    assert not two_stages.means and f"pair {later}, {earlier}: the first starts 0.020 s" in two_stages.note


def test_two_scenes_of_a_log_at_the_same_time_do_not_cost_pdms(scoring, records, groups):
    now, previous = groups[0].now, groups[0].previous
    records[now] = at(records[now], records[previous].arrays["time"] + 0.02)
    pdms, epdms, two_stages = scoring.results(records)
    assert pdms.means[""][-1] == 1.0
    assert not epdms.means and now in epdms.note and previous in epdms.note
    assert not two_stages.means and f"pair {now}, {previous}" in two_stages.note
    assert [row["note"] == "" for row in table_rows([pdms, epdms])] == [True, False]


def test_scenes_of_a_group_that_is_left_out_are_counted_and_listed(scoring, records, groups, tmp_path):
    bad, tokens = groups[0].pairs[0][1], [token for group in groups for token in group.tokens]
    records[bad] = SceneRecord(bad, records[bad].log_name, {}, {"logged": "no map"})
    result = scoring.results(records)[-1]
    assert set(result.rows) == set(groups[1].tokens) and result.causes == {bad: "no map"}
    assert result.failures == {token: "no map" if token == bad else LEFT_OUT for token in groups[0].tokens}
    assert "1 of 2 groups are left out, because 1 of their scenes have no score" in result.note
    assert {row["num_failed"] for row in table_rows([result])} == {len(groups[0].tokens)}
    assert f" {len(groups[1].tokens)}/{len(tokens)}\n" in format_bases([result])
    write_bases(tmp_path / "table", [result], tmp_path / "plans.npz", ())
    rows = csv.DictReader((tmp_path / "table_scenes/two-stage-logged.csv").read_text().splitlines())
    assert {row["token"]: row["error"] for row in rows} == {
        token: result.failures.get(token, "") for token in tokens
    }


def test_follow_ups_of_windows_that_are_not_of_the_split_have_no_score(scoring, records, groups):
    strange, tokens = groups[0].pairs[0][1], groups[0].tokens
    records[strange] = records[strange]._replace(window_end="another")
    pdms, epdms, two_stages = scoring.results(records)
    assert pdms.means[""][-1] == epdms.means[""][-1] == 1.0
    assert set(two_stages.rows) == set(groups[1].tokens) and set(two_stages.failures) == set(tokens)
    assert list(two_stages.causes) == [strange]
    assert "a window that ends with frame another (corresponding_original_scene)" in two_stages.note


def test_an_original_scene_that_cannot_be_read_is_the_only_cause(scoring, records, groups):
    broken = groups[0].previous
    records[broken] = SceneRecord(broken, "", {}, {"logged": "cut off"})
    assert scoring.results(records)[-1].causes == {broken: "cut off"}


def test_follow_ups_may_be_of_the_window_of_another_group(scoring, records, groups):
    """As the official loader has it, which asks for any window of the split."""
    token = groups[0].pairs[0][0]
    records[token] = records[token]._replace(window_end=records[groups[1].now].window_end)
    assert not scoring.results(records)[-1].failures


def test_records_come_back_from_a_store(records):
    for token, record in records.items():
        back = SceneRecord.from_arrays(token, record.to_arrays())
        assert back[:2] == record[:2] and back[3:] == record[3:]
        assert all(np.array_equal(back.arrays[name], array) for name, array in record.arrays.items())
