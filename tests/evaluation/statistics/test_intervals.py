"""Intervals over seeds and scenes: known cases, coverage, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from beyonddrive.evaluation.statistics import intervals
from beyonddrive.evaluation.statistics.intervals import (
    StatisticsError,
    estimate,
    estimates,
    paired_difference,
)
from beyonddrive.evaluation.statistics.spread import Spread, spread_of


def _differences(rng, effect, seeds, scenes, num_seeds, num_scenes, rest=1.0):
    by_seed = rng.normal(0.0, seeds, (num_seeds, 1))
    by_scene = rng.normal(0.0, scenes, (1, num_scenes))
    return effect + by_seed + by_scene + rng.normal(0.0, rest, (num_seeds, num_scenes))


def _width(interval):
    return interval[1] - interval[0]


def test_the_interval_over_scenes_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3.0, 2.0, (1, 900))
    found = estimate(values)
    error = values.std(ddof=1) / np.sqrt(900)
    assert found.mean == pytest.approx(values.mean())
    assert (
        found.interval
        == found.bootstrap
        == pytest.approx((found.mean - 1.96 * error, found.mean + 1.96 * error), abs=0.1 * error)
    )
    assert found.error_scenes == pytest.approx(error)
    assert np.isnan(found.std)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(1)
    alike = estimate(_differences(rng, 1.0, 0.0, 1.0, 5, 400))
    apart = estimate(_differences(rng, 1.0, 1.0, 1.0, 5, 400))
    assert _width(apart.bootstrap) > 3.0 * _width(alike.bootstrap)
    assert _width(apart.interval) > _width(apart.bootstrap)  # few seeds: Student knows better
    assert _width(apart.interval) > 3.0 * _width(alike.interval)


def test_the_interval_joins_students_over_seeds_with_the_normal_one_over_scenes():
    rng = np.random.default_rng(8)
    values = _differences(rng, 1.0, 1.0, 4.0, 3, 50)
    found = estimate(values)
    student = stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval()
    scenes = 1.96 * np.sqrt(spread_of(values).scenes / 50)
    half = np.hypot(found.mean - student.low, scenes)
    assert found.interval == pytest.approx((found.mean - half, found.mean + half), rel=1e-4)
    same = estimate(np.tile([[1.0], [2.0], [4.0]], 50))  # nothing varies with the scene
    assert same.interval == pytest.approx(stats.ttest_1samp([1.0, 2.0, 4.0], 0.0).confidence_interval())


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = held_by_bootstrap = 0
    for _ in range(200):
        found = estimate(_differences(rng, 0.5, 0.3, 2.0, 5, 100), resamples=299)
        held += found.interval[0] <= 0.5 <= found.interval[1]
        held_by_bootstrap += found.bootstrap[0] <= 0.5 <= found.bootstrap[1]
    assert held >= 185
    assert 170 <= held_by_bootstrap <= 200  # five seeds: a little less than 95 of 100


def test_pairing_takes_away_what_scenes_have_in_common():
    rng = np.random.default_rng(3)
    hardness = rng.normal(0.0, 30.0, (1, 300))
    base = hardness + rng.normal(0.0, 1.0, (3, 300))
    better = hardness + 1.0 + rng.normal(0.0, 1.0, (3, 300))
    found = paired_difference(better, base)
    assert found.is_above_zero and not found.is_below_zero
    assert _width(found.interval) < 0.5 < _width(estimate(better).interval)
    assert _width(found.bootstrap) < 0.5 < _width(estimate(better).bootstrap)
    assert paired_difference(base, better).is_below_zero


def test_scores_that_share_their_draws_have_the_intervals_that_they_have_alone(monkeypatch):
    rng = np.random.default_rng(5)
    scores = [rng.normal(size=shape) for shape in ((3, 40), (1, 40), (3, 40), (1, 1), (2, 7), (3, 40))]
    together = estimates(scores, resamples=499)
    for values, found in zip(scores, together, strict=True):
        monkeypatch.setattr(intervals, "_INTERVALS", intervals._Intervals())  # nothing is known
        assert repr(estimate(values, resamples=499)) == repr(found)


def test_the_interval_over_scenes_and_seeds_is_that_of_the_means_drawn_one_by_one():
    values = np.random.default_rng(6).normal(size=(2, 9))
    rng = np.random.default_rng(0)
    seeds, scenes = rng.integers(0, 2, (199, 2)), rng.integers(0, 9, (199, 9))
    means = [values[np.ix_(*drawn)].mean() for drawn in zip(seeds, scenes, strict=True)]
    found = estimate(values, resamples=199)
    assert found.bootstrap == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), rel=1e-9)


def test_an_untrained_baseline_stands_for_every_seed():
    rng = np.random.default_rng(4)
    scores, untrained = rng.random((3, 50)), rng.random((1, 50))
    assert paired_difference(scores, untrained).mean == pytest.approx(scores.mean() - untrained.mean())


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(5).random((3, 80))
    assert estimate(values, seed=7) == estimate(values, seed=7)
    assert estimate(values, seed=7) != estimate(values, seed=8)


def test_seeds_that_are_alike_leave_the_scenes_and_one_scene_has_no_interval():
    found = estimate(np.tile([0.0, 1.0], (3, 4)))
    assert found.std == 0.0
    half = 1.96 * np.sqrt(0.25 * 8 / 7 / 8)  # eight scenes, all seeds alike
    assert found.interval == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)
    assert estimate(np.full((3, 8), 0.5)).interval == (0.5, 0.5)
    assert np.isnan([*estimate([[0.5]]).interval, *estimate([[0.5], [0.7]]).interval]).all()


@pytest.mark.parametrize(
    ("scores", "words"),
    [([0.1, 0.2], r"shape \(seeds, scenes\)"), ([[0.1, np.nan]], "1 of 2"), (np.empty((0, 3)), "shape")],
)
def test_odd_scores_are_refused(scores, words):
    with pytest.raises(StatisticsError, match=words):
        estimate(scores)


def test_other_seeds_or_scenes_are_no_pair():
    with pytest.raises(StatisticsError, match="same seeds"):
        paired_difference(np.zeros((3, 4)), np.zeros((2, 4)))
    with pytest.raises(StatisticsError, match="same seeds"):
        paired_difference(np.zeros((3, 4)), np.zeros((3, 5)))


def test_the_spread_of_a_pilot_foretells_the_interval():
    rng = np.random.default_rng(6)
    spread = spread_of(_differences(rng, 0.0, 0.5, 2.0, 40, 3000, rest=3.0))
    assert (spread.seeds, spread.scenes, spread.rest) == pytest.approx((0.25, 4.0, 9.0), rel=0.5)
    found = estimate(_differences(rng, 0.0, 0.0, 2.0, 5, 500, rest=3.0))
    foretold = Spread(0.0, 4.0, 0.0).half_width(5, 500)
    known = _width(found.bootstrap)
    assert known / 2.0 == pytest.approx(np.hypot(foretold, 1.96 * 3.0 / np.sqrt(5 * 500)), rel=0.2)


@pytest.mark.parametrize("num_seeds", [2, 3, 10])
def test_as_many_of_a_hundred_intervals_as_they_say_are_half_a_width_from_the_truth(num_seeds):
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        values = _differences(rng, 1.0, 0.5, 3.0, num_seeds, 60, rest=3.0)
        width = spread_of(values).half_width(num_seeds, 60)
        held += abs(values.mean() - 1.0) <= width
    assert held >= 370


def test_seeds_needed():
    spread = Spread(seeds=0.5, scenes=100.0, rest=100.0)
    seeds = spread.seeds_for(0.5, 3000)
    assert seeds is not None
    assert spread.half_width(seeds, 3000) <= 0.5 < spread.half_width(seeds - 1, 3000)
    assert spread.seeds_for(0.5, 1500) is None  # the scenes alone leave more
    assert Spread(0.0, 100.0, 0.0).seeds_for(0.5, 3000) == 1  # every seed gives the same
    assert np.isinf(spread.half_width(1, 3000))


def test_scenes_needed_and_seeds_too_few():
    spread = Spread(seeds=0.1, scenes=100.0, rest=200.0)
    scenes = spread.scenes_for(1.0, num_seeds=5)
    assert scenes is not None
    assert spread.half_width(5, scenes) <= 1.0 < spread.half_width(5, scenes - 1)
    assert spread.scenes_for(0.5, num_seeds=1) is None
    with pytest.raises(StatisticsError, match="two seeds"):
        spread_of(np.zeros((1, 9)))
