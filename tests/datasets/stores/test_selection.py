import numpy as np
import pytest

from beyonddrive.datasets.stores.selection import (
    SelectionError,
    is_negative,
    select_negatives,
    squared_distance,
)
from beyonddrive.datasets.stores.selectors import (
    NearestNegatives,
    NearestNegativesPerColumn,
    RandomNegatives,
    WorstNegatives,
)
from beyonddrive.registry import SELECTORS

EXPERT = np.zeros((8, 3))


def shifted(*offsets):
    """Plans that differ from the expert by constant offsets (x, y, heading)."""
    return np.stack([np.broadcast_to(np.asarray(offset, float), (8, 3)) for offset in offsets])


def scored(*pdms, column=6):
    scores = np.ones((len(pdms), 7))
    scores[:, column] = pdms
    return scores


def test_distance_is_the_mean_over_time_of_the_sum_of_squares():
    plan = np.zeros((8, 3))
    plan[3] = [1.0, 2.0, 0.5]
    plan[7] = [0.0, -3.0, 0.0]
    assert squared_distance(plan, EXPERT) == pytest.approx((1 + 4 + 0.25 + 9) / 8)


def test_nearest_first_among_failures_only():
    plans = shifted((4, 0, 0), (1, 0, 0), (0, 0, 0), (0, 2, 0), (0, 0, 3))
    scores = scored(0.0, 0.59, 0.9, 0.0, 1.0)
    indices, valid = select_negatives(plans, scores, EXPERT, num=4)
    assert indices.tolist() == [1, 3, 0, 0]
    assert valid.tolist() == [True, True, True, False]


def test_threshold_is_strict_in_both_precisions():
    for threshold in (0.6, 0.7, 0.1):
        for dtype in (np.float32, np.float64):
            scores = scored(threshold, threshold - 1e-4).astype(dtype)
            assert is_negative(scores, "PDMS", threshold).tolist() == [False, True]


def test_no_negative_gives_no_valid_slot():
    indices, valid = select_negatives(shifted((1, 0, 0)), scored(0.6), EXPERT, num=2)
    assert not valid.any()
    assert indices.tolist() == [0, 0]


def test_no_proposals_at_all():
    _, valid = select_negatives(np.zeros((0, 8, 3)), np.zeros((0, 7)), EXPERT)
    assert valid.tolist() == [False]


def test_equal_distances_keep_the_order_of_the_pool():
    plans = shifted((0, 1, 0), (0, -1, 0), (1, 0, 0))
    assert select_negatives(plans, scored(0, 0, 0), EXPERT, num=3).indices.tolist() == [0, 1, 2]


def test_column_decides():
    scores = np.ones((2, 7))
    scores[0, 1] = 0.0  # off the road
    scores[1, 0] = 0.5  # hit something static
    scores[:, 6] = 0.0
    plans = shifted((5, 0, 0), (1, 0, 0))
    assert select_negatives(plans, scores, EXPERT, column="DAC").indices.tolist() == [0]
    assert select_negatives(plans, scores, EXPERT, column="NC").indices.tolist() == [1]
    assert select_negatives(plans, scores, EXPERT).indices.tolist() == [1]
    assert not select_negatives(plans, scores, EXPERT, column="NC", threshold=0.5).valid.any()


def test_wrap_switch_changes_the_choice():
    # A full turn is the expert's heading again; the published distance takes it for 39.5 rad^2.
    plans = shifted((0, 0, 2 * np.pi), (0, 1, 0))
    scores = scored(0, 0)
    assert select_negatives(plans, scores, EXPERT).indices.tolist() == [0]
    assert select_negatives(plans, scores, EXPERT, distance="reference").indices.tolist() == [1]


def test_expert_heading_near_pi_wraps():
    expert = np.zeros((8, 3))
    expert[:, 2] = np.pi - 0.1
    plan = expert.copy()
    plan[:, 2] = -np.pi + 0.1
    assert squared_distance(plan, expert) == pytest.approx(0.04)
    assert squared_distance(plan, expert, "reference") == pytest.approx((2 * np.pi - 0.2) ** 2)


def test_batch_equals_loop():
    rng = np.random.default_rng(0)
    plans, scores = rng.normal(size=(5, 9, 8, 3)), rng.random((5, 9, 7))
    experts = rng.normal(size=(5, 8, 3))
    batch = select_negatives(plans, scores, experts, num=3)
    for row in range(5):
        one = select_negatives(plans[row], scores[row], experts[row], num=3)
        assert one.indices.tolist() == batch.indices[row].tolist()
        assert one.valid.tolist() == batch.valid[row].tolist()


def test_per_column_slots_and_thresholds():
    scores = np.ones((3, 7))
    scores[0, 0] = 0.5
    scores[1, 1] = 0.0
    plans = shifted((1, 0, 0), (2, 0, 0), (3, 0, 0))
    selector = NearestNegativesPerColumn(("NC", "DAC", "TTC"), {"NC": 0.5, "DAC": 0.6, "TTC": 0.6}, num=1)
    indices, valid = selector(plans, scores, EXPERT)
    assert valid.tolist() == [False, True, False]
    assert indices[1] == 1
    assert selector.slot_columns == ("NC", "DAC", "TTC")
    assert NearestNegativesPerColumn(("NC",), 0.6)(plans, scores, EXPERT).indices.tolist() == [0]


def test_built_by_name():
    selector = SELECTORS.build({"type": "NearestNegatives", "num": 4, "column": "TTC"})
    assert (selector.num_slots, selector.column) == (4, "TTC")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "pdms"}, "column: 'pdms'"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"num": 0}, "num"),
        ({"distance": "euclid"}, "distance"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(SelectionError, match=message):
        NearestNegatives(**options)
    with pytest.raises(SelectionError, match=message):
        select_negatives(shifted((1, 0, 0)), scored(0.0), EXPERT, **options)


def test_bad_arrays_are_refused():
    plans, scores = shifted((1, 0, 0)), scored(0.0)
    with pytest.raises(SelectionError, match="scores: must be"):
        select_negatives(plans, scores[:, :6], EXPERT)
    with pytest.raises(SelectionError, match="plans: must be"):
        select_negatives(plans[:, :7], scores, EXPERT)
    with pytest.raises(SelectionError, match="expert: must be"):
        select_negatives(plans, scores, EXPERT[:7])
    with pytest.raises(SelectionError, match="expert: hold NaN"):
        select_negatives(plans, scores, EXPERT * np.nan)
    with pytest.raises(SelectionError, match="scores: hold NaN"):
        select_negatives(plans, scores * np.nan, EXPERT)


def beside(*meters):
    """Failing plans that many metres beside the expert."""
    plans = np.zeros((len(meters), 8, 3))
    plans[:, :, 1] = np.asarray(meters)[:, None]
    return plans, np.zeros((len(meters), 7))


def test_negatives_out_of_range_are_left_out():
    plans, scores = beside(0.2, -0.5, 1.0, 3.0)
    chosen = select_negatives(plans, scores, EXPERT, num=4, min_distance=0.5, max_distance=1.0)
    assert chosen.indices[chosen.valid].tolist() == [1, 2]
    assert not select_negatives(plans, scores, EXPERT, max_distance=0.1).valid.any()


def test_spacing_leaves_out_what_is_near_a_negative_chosen_before():
    plans, scores = beside(0.5, 0.6, -0.4, 1.4, 1.6, 5.0)
    chosen = select_negatives(plans, scores, EXPERT, num=5, spacing=1.0)
    # -0.4 first; 0.5 is only 0.9 from it, 0.6 is 1.0 from it; 1.4 is only 0.8 from 0.6, 1.6 is 1.0 from it.
    assert chosen.indices[chosen.valid].tolist() == [2, 1, 4, 5]
    assert chosen.valid.tolist() == [True] * 4 + [False]


def test_ranges_and_spacing_act_per_column_and_per_scene():
    plans, scores = beside(0.2, 0.6, 0.7, 3.0)
    scores[:, 0] = [0, 1, 0, 0]
    selector = NearestNegativesPerColumn(("NC", "DAC"), num=2, min_distance=0.5, spacing=0.2)
    chosen = selector(np.stack([plans, -plans]), np.stack([scores, scores]), np.zeros((2, 8, 3)))
    assert chosen.indices.tolist() == [[2, 3, 1, 3]] * 2
    assert NearestNegatives(num=2, column="TTC").slot_columns == ("TTC", "TTC")


@pytest.mark.parametrize(
    "distances",
    [
        {"min_distance": -1.0},
        {"max_distance": 0.0},
        {"min_distance": 2.0, "max_distance": 2.0},
        {"spacing": -0.1},
        {"spacing": np.inf},
        {"max_distance": np.nan},
    ],
)
def test_distances_that_leave_nothing_are_refused(distances):
    plans, scores = beside(1.0)
    with pytest.raises(SelectionError, match="wanted 0 <= min_distance < max_distance"):
        select_negatives(plans, scores, EXPERT, **distances)
    with pytest.raises(SelectionError, match="wanted 0 <= min_distance < max_distance"):
        NearestNegatives(**distances)


def test_a_random_failure_is_any_of_them_and_the_same_however_scenes_are_batched():
    scenes = np.random.default_rng(0)
    plans, expert = scenes.normal(size=(500, 6, 8, 3)), np.zeros((500, 8, 3))
    scores = np.ones((500, 6, 7))
    scores[..., 6] = scenes.choice([0.0, 0.5, 1.0], size=(500, 6))
    fails = scores[..., 6] < 0.6
    indices, valid = RandomNegatives(seed=1)(plans, scores, expert)
    assert valid[:, 0].tolist() == fails.any(axis=1).tolist()
    assert np.take_along_axis(fails, indices, axis=1)[valid[:, 0]].all()
    assert np.bincount(indices[valid[:, 0], 0], minlength=6).min() > 0
    alone = [
        RandomNegatives(seed=1)(*scene).indices.item() for scene in zip(plans, scores, expert, strict=True)
    ]
    assert alone == indices[:, 0].tolist()
    assert (indices != RandomNegatives(seed=2)(plans, scores, expert).indices).mean() > 0.3


def test_the_worst_failure_has_the_lowest_score_and_is_the_farthest_of_equal_ones():
    plans = shifted((1, 0, 0), (5, 0, 0), (2, 0, 0), (3, 0, 0), (9, 0, 0))
    indices, valid = WorstNegatives()(plans, scored(0.5, 0.2, 0.0, 0.0, 0.9), EXPERT)
    assert (indices.tolist(), valid.tolist()) == ([3], [True])
    indices, valid = WorstNegatives("DAC")(plans, scored(1.0, 0.0, 1.0, 1.0, 1.0, column=1), EXPERT)
    assert (indices.tolist(), valid.tolist()) == ([1], [True])
    assert WorstNegatives()(plans, scored(0.6, 0.7, 1.0, 1.0, 1.0), EXPERT).valid.tolist() == [False]


@pytest.mark.parametrize("selector", [RandomNegatives, WorstNegatives])
def test_other_rules_refuse_what_the_nearest_one_refuses(selector):
    with pytest.raises(SelectionError, match="threshold"):
        selector(threshold=0.0)
    with pytest.raises(SelectionError, match="NaN"):
        selector()(shifted((np.nan, 0, 0)), scored(0.0), EXPERT)
    assert not selector()(np.zeros((0, 8, 3)), np.zeros((0, 7)), EXPERT).valid.any()
