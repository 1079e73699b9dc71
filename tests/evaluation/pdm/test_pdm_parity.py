"""From log and map to scores, against results of the official code, stage by stage."""

import numpy as np
import pytest

from beyonddrive.evaluation.pdm import score
from beyonddrive.evaluation.pdm.kernels import constants
from beyonddrive.evaluation.pdm.kernels.plan_states import (
    plan_knots,
    plan_references,
    plan_stamps,
    proposal_stamps,
    sample_poses,
    sampling,
)
from beyonddrive.structures.boxes import OBJECT_TYPES, box_corners
from beyonddrive.structures.plan import SCORE_COLUMNS

FEATURES = (
    "straight_free",
    "straight_offlane",
    "straight_cutroute",
    "curve_free",
    "curve_nulllimit",
    "curve2_gap",
    "cross_left",
    "cross_right_redinside",
    "cross_straight_red",
    "grid_long",
    "grid_loop",
    "grid_wrongarm",
)
POSITION = 1e-8  # m, of coordinates of some 1e6 m
STATE = 1e-10
BACKWARDS = "heading_pi"
"""Plans with headings of exactly pi. Which way the ego turns there hangs on the last bit, and that on how a
processor rounds sines and arc tangents; those of numpy are others with AVX-512 than without."""
BIT = np.spacing(np.pi)


@pytest.fixture(params=FEATURES)
def item(request, golden):
    return golden(request.param)


def test_scores_equal_the_official_ones(item):
    poses = item.scores["poses"]
    values = score(item.cache, poses).values
    turned = item.scores["names"] == BACKWARDS
    if turned.any():
        values[turned] = nearest_within_a_bit(item.cache, poses[turned], item.scores["scores"][turned])
    stable = item.scores["stable"]
    difference = np.abs(values - item.scores["scores"])[stable]
    assert stable.sum() >= len(stable) - 2
    worst = np.unravel_index(difference.argmax(), difference.shape)
    name = item.scores["names"][stable][worst[0]]
    assert difference.max() <= 1e-6, f"{SCORE_COLUMNS[worst[1]]} of {name}"
    # All but progress and what it enters are multiples of 0.5.
    exact = [SCORE_COLUMNS.index(column) for column in ("NC", "DAC", "TTC", "C", "DDC")]
    assert (difference[:, exact] == 0).all()


def nearest_within_a_bit(cache, poses, official):
    """Scores of plans with headings as they are, or a bit more or less, whichever are nearest."""
    nudged = [poses + np.array([0.0, 0.0, turn]) for turn in (0.0, BIT, -BIT)]
    found = np.stack([score(cache, plans).values for plans in nudged])
    return found[np.abs(found - official).max(axis=(1, 2)).argmin()]


def test_every_golden_row_was_compared(golden_scenes):
    assert {item.scene.log_name.split("veh-g_")[1] for item in golden_scenes} == set(FEATURES)
    assert sum(len(item.scores["scores"]) for item in golden_scenes) == 2028
    assert sum(item.scores["stable"].sum() for item in golden_scenes) == 2024


def test_metric_cache_stages(item):
    cache, stages = item.cache, item.stages
    assert cache.time_us == stages["ego_time_us"]
    np.testing.assert_allclose(cache.ego_state, stages["ego_state"], rtol=0, atol=1e-12)
    assert [str(id) for id in cache.route_ids] == stages["route_lane_ids"].tolist()
    assert [str(id) for id in cache.polygon_ids] == stages["map_tokens"].tolist()
    types = [constants.POLYGON_TYPES[kind] for kind in cache.polygon_types]
    assert types == stages["map_types"].tolist()
    np.testing.assert_allclose(cache.centerline, stages["centerline"], rtol=0, atol=POSITION)
    np.testing.assert_allclose(cache.proposal, stages["pdm_states"][:, :3], rtol=0, atol=POSITION)
    np.testing.assert_array_equal(proposal_stamps(cache.time_us), stages["pdm_time_us"])


def test_observation(item):
    tracks, stages = item.cache.tracks, item.stages
    assert list(tracks.tokens) == stages["obs_tokens"].tolist()
    assert [OBJECT_TYPES[kind] for kind in tracks.types] == stages["obs_types"].tolist()
    np.testing.assert_allclose(tracks.velocity, stages["obs_first_velocity"], rtol=0, atol=1e-12)
    boxes = tracks.boxes()
    np.testing.assert_array_equal(np.isfinite(boxes[..., 0]), stages["obs_present"])
    corners = box_corners(boxes[..., :2], np.arctan2(boxes[..., 3], boxes[..., 2]), *tracks.size.T)
    np.testing.assert_allclose(corners, stages["obs_corners"], rtol=0, atol=POSITION)


def test_score_stages(item):
    cache, stages = item.cache, item.stages
    plans = item.scores["poses"][stages["detail_index"]]
    knots = plan_knots(plans, cache.ego_state)
    references = plan_references(knots, *sampling(cache.time_us, plan_stamps(cache.time_us)))
    np.testing.assert_allclose(references, stages["reference_states"][..., :3], rtol=0, atol=1e-12)
    result = score(cache, plans)
    np.testing.assert_allclose(result.simulated, stages["simulated_states"], rtol=0, atol=STATE)
    bits = (constants.MULTIPLE_LANES, constants.NON_DRIVABLE, constants.ONCOMING)
    areas = np.stack([result.areas & bit != 0 for bit in bits], axis=-1)
    np.testing.assert_array_equal(areas, stages["ego_areas"])
    np.testing.assert_allclose(result.progress, stages["progress_raw"], rtol=0, atol=2e-8)
    for time, index in ((result.nc_time, "nc_time_index"), (result.ttc_time, "ttc_time_index")):
        np.testing.assert_array_equal(np.round(time / constants.STEP), stages[index])


def test_reference_planner_row(item):
    cache, stages = item.cache, item.stages
    reference = np.empty((41, 3))
    stamps = proposal_stamps(cache.time_us)
    sample_poses(cache.proposal.copy(), *sampling(cache.time_us, stamps), reference)
    np.testing.assert_allclose(reference, stages["pdm_reference_states"][:, :3], rtol=0, atol=POSITION)
    # The masked progress is all that the row contributes; here it has neither collided nor left the road.
    if np.isinf(stages["pdm_nc_time_index"]) and not stages["pdm_ego_areas"][:, 1].any():
        progress = cache.prepared.reference_progress
        assert progress == pytest.approx(stages["pdm_progress_raw"], abs=2e-8)


@pytest.mark.av2
def test_scores_on_real_logs(av2_scenes):
    assert sum(len(item.scores["scores"]) for item in av2_scenes) == 3000
    for item in av2_scenes:
        difference = np.abs(score(item.cache, item.scores["poses"]).values - item.scores["scores"])
        assert difference.max() <= 1e-6, item.scene.token
