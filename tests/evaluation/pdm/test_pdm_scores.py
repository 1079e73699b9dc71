"""What holds for any plan: independence of its batch, bounds, odd but defined scenes, clear errors."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.evaluation.pdm import MetricCache, score
from beyonddrive.evaluation.pdm.inputs.tracks import Tracks
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings, concatenate
from beyonddrive.structures.plan import SCORE_COLUMNS, PlanError
from beyonddrive.structures.se2 import rotate, wrap_angle

NC, DAC, EP, TTC, C, DDC, PDMS = range(7)


def empty_tracks():
    return Tracks((), np.zeros(0, np.int8), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((11, 0, 3)))


def test_a_batch_is_the_loop_over_its_plans(golden):
    item = golden("grid_long")
    plans = item.scores["poses"][:64]
    batch = score(item.cache, plans)
    for n, plan in enumerate(plans):
        alone = score(item.cache, plan[None])
        np.testing.assert_array_equal(alone.values[0], batch.values[n])
        np.testing.assert_array_equal(alone.simulated[0], batch.simulated[n])
    shuffled = score(item.cache, plans[::-1])
    np.testing.assert_array_equal(shuffled.values[::-1], batch.values)


def test_threads_change_nothing(golden):
    item = golden("cross_left")
    plans = item.scores["poses"]
    alone = score(item.cache, plans).values
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: score(item.cache, plans).values, range(8)))
    for values in together:
        np.testing.assert_array_equal(values, alone)


def test_pooled_progress_divides_by_the_largest_of_the_batch(golden):
    item = golden("straight_free")
    plans = item.scores["poses"]
    pair, pooled = score(item.cache, plans), score(item.cache, plans, progress="pooled")
    others = [NC, DAC, TTC, C, DDC]
    np.testing.assert_array_equal(pair.values[:, others], pooled.values[:, others])
    raw = pair.progress * pair.values[:, NC] * pair.values[:, DAC]
    largest = max(raw.max(), item.cache.prepared.reference_progress)
    assert largest > 5
    np.testing.assert_allclose(pooled.values[:, EP], raw / largest, rtol=0, atol=1e-15)
    assert (pooled.values[:, EP] < pair.values[:, EP] - 0.01).any()


def test_what_explains_a_score(golden):
    item = golden("cross_left")
    result = score(item.cache, item.scores["poses"])
    assert set(result.nc_object[np.isinf(result.nc_time)]) == {-1}
    assert (result.nc_object[np.isfinite(result.nc_time)] >= 0).all()
    np.testing.assert_array_equal(np.isfinite(result.nc_time), result.column("NC") < 1)
    np.testing.assert_array_equal(np.isfinite(result.ttc_time), result.column("TTC") < 1)
    assert result.nc_object.max() < len(item.cache.tracks.tokens)
    with pytest.raises(KeyError, match="no score 'EPDMS'"):
        result.column("EPDMS")
    assert len(result) == len(item.scores["poses"]) and len(SCORE_COLUMNS) == result.values.shape[1]


def test_no_plans_give_no_scores(golden):
    result = score(golden("curve_free").cache, np.zeros((0, 8, 3)), progress="pooled")
    assert result.values.shape == (0, 7) and result.simulated.shape == (0, 41, 11)


def test_scene_without_objects(golden):
    item = golden("grid_loop")
    plans = item.scores["poses"]
    before = score(item.cache, plans).values
    after = score(replace(item.cache, tracks=empty_tracks()), plans).values
    assert (after[:, [NC, TTC]] == 1).all()
    np.testing.assert_array_equal(before[:, [DAC, C, DDC]], after[:, [DAC, C, DDC]])


def test_more_drivable_area_never_lowers_dac(golden):
    item = golden("curve2_gap")
    plans = item.scores["poses"]
    x, y = item.cache.ego_state[:2]
    square = np.array(
        [[x - 30, y - 30], [x + 30, y - 30], [x + 30, y + 30], [x - 30, y + 30], [x - 30, y - 30]]
    )
    lot = PolygonRings(square, np.array([0, 5]), np.array([0, 1]))
    wider = replace(
        item.cache,
        polygons=concatenate([item.cache.polygons, lot]),
        polygon_ids=np.append(item.cache.polygon_ids, -7),
        polygon_types=np.append(item.cache.polygon_types, np.int8(4)),
    )
    before, after = score(item.cache, plans).column("DAC"), score(wider, plans).column("DAC")
    assert (after >= before).all() and after.sum() > before.sum()


@pytest.mark.parametrize("feature", ["straight_offlane", "cross_right_redinside", "grid_wrongarm"])
def test_moving_and_turning_the_world_changes_nothing(golden, feature):
    item = golden(feature)
    cache, angle, shift = item.cache, 0.7310, np.array([310.0, -125.0])

    def moved(xy):
        return rotate(xy - cache.ego_state[:2], angle) + cache.ego_state[:2] + shift

    def poses(array):
        return np.concatenate([moved(array[..., :2]), wrap_angle(array[..., 2:] + angle)], axis=-1)

    ego = cache.ego_state.copy()
    ego[:3] = poses(ego[None, :3])[0]
    tracks = replace(
        cache.tracks, velocity=rotate(cache.tracks.velocity, angle), poses=poses(cache.tracks.poses)
    )
    polygons = replace(cache.polygons, vertices=moved(cache.polygons.vertices))
    elsewhere = replace(
        cache,
        ego_state=ego,
        proposal=poses(cache.proposal),
        centerline=poses(cache.centerline),
        polygons=polygons,
        tracks=tracks,
    )
    # Plans on a decision boundary, and headings of exactly half a turn, hang on the last bit.
    names = item.scores["names"]
    steady = np.array([not name.startswith(("edge_", "heading_pi", "alternating")) for name in names])
    plans = item.scores["poses"][steady]
    np.testing.assert_allclose(score(elsewhere, plans).values, score(cache, plans).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_wild_plans_have_scores_between_0_and_1(golden, scale):
    rng = np.random.default_rng(3)
    plans = rng.normal(0, scale, (200, 8, 3))
    values = score(golden("grid_long").cache, plans).values
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        (np.zeros((8, 3)), r"shape \(N, 8, 3\)"),
        (np.zeros((2, 9, 3)), r"shape \(N, 8, 3\)"),
        (np.full((1, 8, 3), np.nan), "NaN or infinity"),
        (np.full((1, 8, 3), np.inf), "NaN or infinity"),
        (np.full((1, 8, 3), 1e200), "too far off"),
        (np.array([["x"]]), "must be numbers"),
        ([[0.0, 1.0], [0.0]], "must be one array"),
    ],
)
def test_bad_plans(golden, plans, message):
    item = golden("curve_free")
    with pytest.raises(PlanError, match=message) as caught:
        score(item.cache, plans)
    assert item.scene.token in str(caught.value)


def test_unknown_progress(golden):
    with pytest.raises(ValueError, match="'pair' or 'pooled'"):
        score(golden("curve_free").cache, np.zeros((1, 8, 3)), progress="mean")


def test_integers_and_float32_are_plans(golden):
    cache = golden("straight_free").cache
    plan = np.zeros((1, 8, 3))
    plan[0, :, 0] = np.arange(1, 9) * 4
    expected = score(cache, plan).values
    for dtype in (np.float32, np.int64):
        np.testing.assert_array_equal(score(cache, plan.astype(dtype)).values, expected)


def test_a_stored_cache_gives_the_same_bits(golden):
    item = golden("grid_wrongarm")
    arrays = item.cache.to_arrays()
    assert all(array.dtype.kind in "iuf" for array in arrays.values())
    again = MetricCache.from_arrays(arrays)
    assert (again.token, again.log_name) == (item.scene.token, item.scene.log_name)
    assert again.tracks.tokens == item.cache.tracks.tokens
    plans = item.scores["poses"]
    np.testing.assert_array_equal(score(again, plans).values, score(item.cache, plans).values)
