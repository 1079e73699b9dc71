"""Explanations agree with the score, name the right object, place and bound, and read well."""

import re
from dataclasses import replace

import numpy as np
import pytest
import shapely

from beyonddrive.evaluation.pdm import explain, score
from beyonddrive.evaluation.pdm.explain.contact import COMFORT_LIMITS, CORNERS
from beyonddrive.evaluation.pdm.explain.explanation import PRECEDENCE, explain_scores
from beyonddrive.evaluation.pdm.kernels.comfort import COMFORT_BOUNDS, comfort
from beyonddrive.evaluation.pdm.kernels.constants import DDC_COMPLIANT, ROADBLOCK
from beyonddrive.evaluation.pdm.scores.epdms import EPDMS_COLUMNS
from beyonddrive.structures.boxes import OBJECT_TYPES, box_corners, ego_corners
from beyonddrive.structures.plan import SCORE_COLUMNS

UNCOMFORTABLE = re.compile(r"drives uncomfortably at \d\.\d s: [a-z ]+ -?[\d.]+ [a-z/²³]+, limit -?\d+\.\d\d")


@pytest.fixture(scope="module")
def explained(golden_scenes):
    """Per golden scene: its cache, the scores of its plans and what explains them."""
    cases = []
    for item in golden_scenes:
        scores = score(item.cache, item.scores["poses"])
        cases.append((item.cache, scores, explain_scores(item.cache, scores)))
    return cases


def failures_of(explained, column):
    """Cache, states (41, 11) and failure, for every failure of a sub-score."""
    for cache, scores, explanations in explained:
        for n, explanation in enumerate(explanations):
            for failure in explanation.of(column):
                yield cache, scores.simulated[n], failure


def test_a_failure_is_reported_if_and_only_if_a_sub_score_is_below_1(explained):
    seen = set()
    for _, scores, explanations in explained:
        assert len(explanations) == len(scores)
        for n, explanation in enumerate(explanations):
            below = {name for name in PRECEDENCE if scores.column(name)[n] < 1.0}
            assert set(explanation.failed) == below
            assert list(explanation.failed) == [name for name in PRECEDENCE if name in below]
            np.testing.assert_array_equal(explanation.values, scores.values[n])
            seen |= below
    assert seen == set(SCORE_COLUMNS) - {"PDMS"}


def test_every_failure_has_a_time_a_place_and_words(explained):
    for column in PRECEDENCE:
        count = 0
        for _, states, failure in failures_of(explained, column):
            assert 0.0 <= failure.time <= 4.0
            assert failure.position.shape == (2,)
            assert np.hypot(*(failure.position - states[round(failure.time * 10), :2])) < 200.0
            assert failure.words[0].islower() and str(failure) == failure.words
            assert not re.search(r"nan|inf\b|None|_", failure.words)
            count += 1
        assert count > 40, column


def test_collisions_and_their_time_are_those_of_the_score(explained):
    for cache, scores, explanations in explained:
        for column, times, objects in (
            ("NC", scores.nc_time, scores.nc_object),
            ("TTC", scores.ttc_time, scores.ttc_object),
        ):
            for n, explanation in enumerate(explanations):
                for failure in explanation.of(column):
                    assert failure.time == times[n]
                    assert failure.object_token == cache.tracks.tokens[objects[n]]
                    assert failure.object_type == OBJECT_TYPES[cache.tracks.types[objects[n]]]


def test_a_contact_lies_in_both_boxes(explained):
    for cache, states, failure in failures_of(explained, "NC"):
        t, m = round(failure.time * 10), cache.tracks.tokens.index(failure.object_token)
        x, y, cos, sin = cache.tracks.boxes()[t, m]
        other = shapely.Polygon(box_corners([x, y], np.arctan2(sin, cos), *cache.tracks.size[m]))
        ego = shapely.Polygon(ego_corners(states[t, :3]))
        point = shapely.Point(failure.position)
        assert ego.distance(point) < 1e-6 and other.distance(point) < 1e-6
        assert failure.value == pytest.approx(np.hypot(*states[t, 3:5]))


def test_what_comes_too_close_would_be_touched(explained):
    aheads = set()
    for cache, states, failure in failures_of(explained, "TTC"):
        t, m = round(failure.time * 10), cache.tracks.tokens.index(failure.object_token)
        moved = states[t, :3].copy()
        moved[:2] += (
            failure.value * np.hypot(*states[t, 3:5]) * np.array([np.cos(moved[2]), np.sin(moved[2])])
        )
        x, y, cos, sin = cache.tracks.boxes()[t + round(failure.value * 10), m]
        other = shapely.Polygon(box_corners([x, y], np.arctan2(sin, cos), *cache.tracks.size[m]))
        point = shapely.Point(failure.position)
        assert shapely.Polygon(ego_corners(moved)).distance(point) < 1e-6
        assert other.distance(point) < 1e-6
        assert failure.limit == 0.9
        aheads.add(round(failure.value, 9))
    assert aheads == {0.0, 0.3, 0.6, 0.9}


def test_the_corner_that_leaves_the_road_is_off_it(explained):
    seen = set()
    roads = {}
    for cache, states, failure in failures_of(explained, "DAC"):
        if cache.token not in roads:
            shapes = cache.polygons.geometries()
            roads[cache.token] = shapes[np.isin(cache.polygon_types, (ROADBLOCK, 3, 4))]
        t = round(failure.time * 10)
        corners = ego_corners(states[t, :3])
        corner = CORNERS.index(failure.corner)
        np.testing.assert_allclose(failure.position, corners[corner], rtol=0, atol=1e-9)
        road = roads[cache.token]
        held = shapely.contains_xy(road[:, None], *corners.T[:, None]).any(axis=0)
        assert not held[corner] and held[:corner].all()
        if t > 0:
            assert shapely.contains_xy(road[:, None], *ego_corners(states[t - 1, :3]).T[:, None]).any(0).all()
        seen.add(failure.corner)
    assert len(seen) >= 3


def test_comfort_names_the_broken_bounds(explained):
    seen = set()
    scratch = np.empty((8, 41))
    for _, states, failure in failures_of(explained, "C"):
        assert comfort(states, scratch) == 0.0
        low, high = COMFORT_LIMITS[COMFORT_BOUNDS.index(failure.bound)]
        assert failure.limit in (low, high)
        assert failure.value >= high if failure.limit == high else failure.value <= low
        assert UNCOMFORTABLE.fullmatch(failure.words)
        seen.add(failure.bound)
    assert len(seen) >= 5


def test_progress_and_direction_are_measured(explained):
    for _, scores, explanations in explained:
        for n, explanation in enumerate(explanations):
            for failure in explanation.of("EP"):
                assert failure.time == 4.0
                counted = scores.progress[n] * scores.column("NC")[n] * scores.column("DAC")[n]
                assert failure.value == counted
                if failure.limit > 5.0:
                    assert scores.column("EP")[n] == pytest.approx(counted / failure.limit, abs=1e-12)
                else:
                    assert counted == 0.0
            for failure in explanation.of("DDC"):
                assert failure.limit == DDC_COMPLIANT
                assert failure.value > DDC_COMPLIANT - 1e-9
                assert (failure.value > 6.0 - 1e-9) == (scores.column("DDC")[n] == 0.0)


def test_words_say_what_happened(golden):
    item = golden("straight_free")
    scores = score(item.cache, item.scores["poses"])
    said = [str(explanation) for explanation in explain_scores(item.cache, scores)]
    assert said[list(item.scores["names"]).index("human")] == "loses nothing"
    everything = " | ".join(said)
    for words in (
        "hits a vehicle at ",
        "leaves the road at ",
        " with its front right corner",
        "gets too close to a vehicle at ",
        "would touch it in 0.9 s",
        "drives uncomfortably at ",
        "leaves the lanes of its route: ",
        "does not count, because it collides",
        "makes too little progress: ",
    ):
        assert words in everything


def test_the_extended_score_is_explained_by_the_same_rule(golden_scenes):
    seen, words = set(), []
    for item in golden_scenes:
        for human_filter in (True, False):
            plans = item.scores["poses"]
            scores = score(item.cache, plans, version="v2", human_filter=human_filter)
            explanations = explain(item.cache, plans, version="v2", human_filter=human_filter)
            for n, explanation in enumerate(explanations):
                below = {name for name in EPDMS_COLUMNS[:-1] if scores.column(name)[n] < 1.0}
                assert set(explanation.failed) == below
                seen |= below
                words.append(str(explanation))
                for failure in explanation.failures:
                    assert np.isfinite(failure.position).all()
                    assert failure.column == "HC" or 0.0 <= failure.time <= 4.0
                for failure in explanation.of("EP"):
                    assert scores.column("EP")[n] == pytest.approx(failure.value / failure.limit, abs=1e-12)
                for failure in explanation.of("LK"):
                    assert failure.time == scores.lk_time[n] >= 1.9
                    assert failure.value > failure.limit == 0.5
                for failure in explanation.of("TLC"):
                    assert failure.time == scores.tlc_time[n]
                    light = item.cache.extended.light_ids[scores.tlc_light[n]]
                    assert (failure.object_token, failure.object_type) == (str(light), "red_light")
                for failure in explanation.of("DDC"):
                    assert (failure.value > 6.0 - 1e-9) == (scores.column("DDC")[n] == 0.0)
    assert seen == set(EPDMS_COLUMNS[:-1])
    everything = " | ".join(words)
    assert "keeps off its lane: more than 0.5 m beside the centre line for 2 s, " in everything
    assert "is on a stretch with a red light at " in everything


def test_comfort_of_the_extended_score_looks_at_the_past(golden):
    item = golden("straight_free")
    history = item.cache.extended.history.copy()
    history[:, 5] = [9.0, -9.0, 9.0, history[-1, 5]]
    shaken = replace(item.cache, extended=replace(item.cache.extended, history=history))
    (explanation,) = explain(shaken, item.scene.expert_plan[None], "v2")
    times = [failure.time for failure in explanation.of("HC")]
    assert min(times) < 0.0 and times == sorted(times)


def test_explaining_is_scoring_and_explaining(golden):
    item = golden("cross_left")
    plans = item.scores["poses"][:40]
    again = explain_scores(item.cache, score(item.cache, plans))
    assert [str(e) for e in explain(item.cache, plans)] == [str(e) for e in again]
    assert explain(item.cache, np.zeros((0, 8, 3))) == []
    with pytest.raises(ValueError, match="version must be"):
        explain(item.cache, plans, version="v3")


def test_pooled_progress_is_explained_by_the_best_of_the_batch(golden):
    item = golden("straight_free")
    plans = item.scores["poses"]
    scores = score(item.cache, plans, progress="pooled")
    explanations = explain_scores(item.cache, scores, progress="pooled")
    limits = {failure.limit for explanation in explanations for failure in explanation.of("EP")}
    assert len(limits) == 1
    for n, explanation in enumerate(explanations):
        assert bool(explanation.of("EP")) == (scores.column("EP")[n] < 1.0)
