"""Aggregation of two stages: what is incomplete or contradictory is refused, by token."""

import numpy as np
import pytest

from beyonddrive.evaluation.pdm.scores.two_stage import (
    Group,
    SceneResult,
    TwoStageError,
    follow_up_weights,
    read_groups,
    two_stage_score,
)

GROUPS = [Group("a", "b", (("a1", "b1"), ("a2", "b2"))), Group("c", "d", (("c1", "d1"),))]
LATER = ("a", "c", "a1", "a2", "c1")


def result(token, value=1.0):
    states = np.zeros((41, 11))
    states[:, 0] = 5.0 * 0.1 * np.arange(41)
    states[:, 3] = 5.0
    return SceneResult(np.full(8, value), states, 10.5 if token in LATER else 10.0, np.zeros(2), np.zeros(2))


def run(**changes):
    return {token: result(token) for group in GROUPS for token in group.tokens} | changes


def test_a_perfect_run_scores_one():
    scores = two_stage_score(run(), GROUPS)
    assert scores.epdms == 1.0 and scores.combined.tolist() == [1.0] * 10


def test_stages_multiply_per_half_group_before_the_mean():
    scores = two_stage_score(run(a=result("a", 0.0), b1=result("b1", 0.0), b2=result("b2", 0.0)), GROUPS)
    # group 1: now fails at once, previous in its follow-ups; group 2 is whole
    assert scores.epdms == 0.5
    assert scores.stage_one[9] == 0.75 and scores.stage_two[9] == 0.75


def test_follow_ups_near_the_end_of_the_plan_count():
    starts = np.array([[0.0, 0.0], [0.5, 0.0], [40.0, 0.0]])
    weights = follow_up_weights(np.zeros(2), starts)
    assert weights[0] > weights[1] > weights[2] >= 0 and weights.sum() == pytest.approx(1.0)
    assert follow_up_weights(np.array([100.0, 0.0]), starts).tolist() == [1 / 3] * 3
    assert follow_up_weights(np.array([np.nan, 0.0]), starts).tolist() == [1 / 3] * 3


def test_a_group_without_any_score_is_left_out():
    partial = {token: scene for token, scene in run().items() if token not in GROUPS[1].tokens}
    assert len(two_stage_score(partial, GROUPS).groups) == 1


@pytest.mark.parametrize(
    "results, message",
    [
        ({token: scene for token, scene in run().items() if token != "b2"}, r"1 scenes .* no score: b2"),
        (run(x=result("x")), "in no group of the table: x"),
        ({}, "no scene of any group"),
    ],
)
def test_incomplete_runs_are_refused(results, message):
    with pytest.raises(TwoStageError, match=message):
        two_stage_score(results, GROUPS)


def test_a_swapped_pair_is_refused():
    swapped = [Group("b", "a", (("a1", "b1"), ("a2", "b2")))]
    with pytest.raises(TwoStageError, match=r"pair b, a: the first starts -0\.500 s after"):
        two_stage_score({t: s for t, s in run().items() if t in swapped[0].tokens}, swapped)


@pytest.mark.parametrize("gap", [0.0, 0.04])
def test_a_pair_at_the_same_time_is_refused_by_name(gap):
    close = result("b1")._replace(time=10.5 - gap)
    with pytest.raises(TwoStageError, match=rf"pair a1, b1: the first starts {gap:.3f} s after"):
        two_stage_score(run(b1=close), GROUPS)


@pytest.mark.parametrize(
    "table, message",
    [
        ([["a", "b", []]], "group of a has no follow-up"),
        ([["a", "b", [["a1", "a"]]]], "a is there twice"),
        ([["a", "b"]], "expected"),
        ("text", "expected"),
        (None, "expected"),
    ],
)
def test_tables_of_pairs_are_checked(table, message):
    with pytest.raises(TwoStageError, match=message):
        read_groups(table, "split.json")
