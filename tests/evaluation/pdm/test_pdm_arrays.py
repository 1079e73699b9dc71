"""Scenes given as arrays: the scores of log and map, and a clear error for what cannot be scored."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from beyonddrive.evaluation.pdm import MetricCache, MetricCacheError, explain, metric_cache_from_arrays, score
from beyonddrive.evaluation.pdm.kernels.constants import (
    CARPARK_AREA,
    INTERSECTION,
    LANE,
    LANE_CONNECTOR,
    ROADBLOCK,
)
from beyonddrive.structures.boxes import OBJECT_TYPES
from beyonddrive.structures.plan import PlanError

LANES = [[(-20, -2), (80, -2), (80, 2), (-20, 2)], [(-20, 2), (80, 2), (80, 6), (-20, 6)]]


def scene(**changes):
    """A straight road of two lanes; the ego in the right one at 10 m/s."""
    arguments = {
        "ego": [0.0, 0.0, 0.0, 10.0, 0.0, 0.0, 0.0],
        "centerline": [(-20, 0), (80, 0)],
        "lanes": LANES,
        "on_route": [True, False],
    }
    return metric_cache_from_arrays(**(arguments | changes))


def car(x, y, count=1, **changes):
    """Arguments for a standing car that is seen in the first ``count`` frames."""
    poses = np.full((11, 1, 3), np.nan)
    poses[:count] = (x, y, 0.0)
    return {"agent_poses": poses, "agent_sizes": [[4.0, 1.8]], "agent_types": ["vehicle"]} | changes


def straight(speed=10.0, side=0.0):
    plan = np.zeros((1, 8, 3))
    plan[0, :, 0] = 0.5 * speed * np.arange(1, 9)
    plan[0, :, 1] = side * np.minimum(np.arange(1, 9) / 4, 1.0)
    return plan


def arrays_of(cache):
    """A metric cache as arguments of ``metric_cache_from_arrays``."""
    shapes = cache.polygons.geometries()

    def of(*kinds):
        return list(shapes[np.isin(cache.polygon_types, kinds)])

    lane_ids = cache.polygon_ids[np.isin(cache.polygon_types, (LANE, LANE_CONNECTOR))]
    tracks = cache.tracks
    return {
        "ego": cache.ego_state[:7],
        "centerline": cache.centerline[:, :2],
        "lanes": of(LANE, LANE_CONNECTOR),
        "on_route": np.isin(lane_ids, cache.route_ids),
        "roads": of(ROADBLOCK),
        "intersections": of(INTERSECTION),
        "car_parks": of(CARPARK_AREA),
        "agent_poses": tracks.poses,
        "agent_sizes": tracks.size,
        "agent_types": [OBJECT_TYPES[kind] for kind in tracks.types],
        "agent_velocities": tracks.velocity,
        "agent_tokens": tracks.tokens,
        "time_us": cache.time_us,
    }


def test_arrays_give_the_scores_of_log_and_map(golden_scenes):
    for item in golden_scenes:
        again = metric_cache_from_arrays(**arrays_of(item.cache), reference=item.cache.proposal)
        assert set(again.tracks.tokens) == set(item.cache.tracks.tokens)
        ours, theirs = (score(cache, item.scores["poses"]).values for cache in (again, item.cache))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_the_reference_planner_drives_in_arrays_too(golden):
    cache = golden("curve_nulllimit").cache  # its speed limit is the default one
    again = metric_cache_from_arrays(**arrays_of(cache))
    np.testing.assert_allclose(again.proposal[:, :2], cache.proposal[:, :2], rtol=0, atol=1e-5)


def test_what_a_simulator_needs_loads_no_learning_framework():
    script = (
        "import sys, numpy as np\n"
        "from beyonddrive.evaluation.pdm import explain, metric_cache_from_arrays, score\n"
        "cache = metric_cache_from_arrays([0, 0, 0, 5, 0, 0, 0], [(0, 0), (60, 0)],\n"
        "                                 [[(-9, -3), (60, -3), (60, 3), (-9, 3)]])\n"
        "plan = np.zeros((1, 8, 3)); plan[0, :, 0] = 2.5 * np.arange(1, 9)\n"
        "print(score(cache, plan).column('DAC')[0], explain(cache, plan)[0].failed)\n"
        "print(sorted({'torch', 'mmengine'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("1.0 (") and second == "[]"


def test_a_cache_from_arrays_can_be_stored():
    cache = scene(**car(30.0, 0.0), history=np.zeros((3, 7)), human=straight()[0])
    again = MetricCache.from_arrays(cache.to_arrays())
    for version in ("v1", "v2"):
        np.testing.assert_array_equal(
            score(again, straight(), version=version).values, score(cache, straight(), version=version).values
        )


def test_roads_are_the_lanes_unless_they_are_given():
    left = straight(side=4.0)
    assert score(scene(), left).column("DAC")[0] == 1.0
    assert score(scene(roads=[LANES[0]]), left).column("DAC")[0] == 0.0
    assert (
        score(scene(roads=[], intersections=[LANES[0]], car_parks=[LANES[1]]), left).column("DAC")[0] == 1.0
    )


def test_lanes_off_the_route_count_for_the_direction_only():
    left = straight(side=4.0)
    assert score(scene(), left).column("DDC")[0] == 0.0
    assert score(scene(on_route=None), left).column("DDC")[0] == 1.0


def test_velocities_come_from_the_first_two_poses():
    poses = np.full((11, 3, 3), np.nan)
    poses[2, 0], poses[5, 0] = (10, 9, 0.0), (16, 12, 0.0)  # 1.5 s apart
    poses[4, 1] = (30, 9, 0.0)
    arguments = {"agent_poses": poses, "agent_sizes": np.ones((3, 2)), "agent_types": ["vehicle"] * 3}
    tracks = scene(**arguments, agent_tokens=["moves", "once", "never"]).tracks
    assert tracks.tokens == ("once", "moves")  # what is seen once is there from the start
    np.testing.assert_allclose(tracks.velocity, [[0, 0], [4, 2]])


def test_red_lights_hold_for_the_extended_score():
    red = np.zeros((9, 1), dtype=bool)
    light = {"red_lights": [[(20, -2), (30, -2), (30, 2), (20, 2)]], "history": np.zeros((3, 7))}
    human = np.zeros((8, 3))
    for first, expected in ((0, 0.0), (9, 1.0)):
        red[first:] = True
        cache = scene(**light, red=red, human=human)
        assert score(cache, straight(), version="v2").column("TLC")[0] == expected
        assert len(explain(cache, straight(), version="v2")[0].of("TLC")) == 1 - expected
        red[:] = False
    with pytest.raises(MetricCacheError, match="serves PDMS only"):
        score(scene(), straight(), version="v2")


# ------------------------------------------------------------------ odd, but defined
def test_zero_agents_in_every_form():
    values = score(scene(), straight()).values
    empty = {"agent_poses": np.zeros((11, 0, 3)), "agent_sizes": np.zeros((0, 2))}
    np.testing.assert_array_equal(score(scene(**empty), straight()).values, values)
    nowhere = {
        "agent_poses": np.full((11, 1, 3), np.nan),
        "agent_sizes": [[1, 1]],
        "agent_types": ["bicycle"],
    }
    np.testing.assert_array_equal(score(scene(**nowhere), straight()).values, values)
    assert values[0, 0] == values[0, 3] == 1.0


def test_a_track_with_one_frame_stands_there_all_the_time():
    late = car(0.0, 0.0)
    late["agent_poses"] = np.full((11, 1, 3), np.nan)
    late["agent_poses"][10] = (25.0, 0.0, 0.0)
    for arguments in (car(25.0, 0.0, count=1), late):
        result = score(scene(**arguments), straight())
        assert result.column("NC")[0] == 0.0
        assert result.nc_time[0] == pytest.approx(1.9)
    # Seen twice, it is gone when the ego arrives.
    assert score(scene(**car(25.0, 0.0, count=2)), straight()).column("NC")[0] == 1.0


def test_an_outline_that_intersects_itself_holds_what_it_goes_round_an_odd_number_of_times():
    bow_tie = [(-20, -2), (80, 2), (80, -2), (-20, 2)]  # nothing at its waist, x = 30
    result = score(scene(roads=[bow_tie]), straight())
    assert result.column("DAC")[0] == 0.0
    # Once round the pentagram's tips is twice round its middle, where the ego stands.
    angle = 4 * np.pi / 5 * np.arange(5)
    star = 60 * np.column_stack([np.cos(angle), np.sin(angle)])
    square = [(-9, -9), (9, -9), (9, 9), (-9, 9)]
    for roads, expected in (([star], 0.0), ([star, square], 1.0)):
        standing = scene(ego=np.zeros(7), roads=roads)
        assert score(standing, straight(0.0)).column("DAC")[0] == expected


def test_holes_are_outside_and_every_part_counts():
    hole = shapely.box(-20, -2, 80, 6).difference(shapely.box(20, -1, 22, 1))
    parts = shapely.MultiPolygon([shapely.box(-20, -2, 20, 6), shapely.box(20.0, -2, 80, 6)])
    (explanation,) = explain(scene(roads=[hole]), straight())
    assert "DAC" not in explanation.failed  # no corner passes over it
    (explanation,) = explain(scene(roads=[hole]), straight(side=1.1))
    assert explanation.of("DAC")[0].corner.endswith("right")
    assert score(scene(roads=[parts]), straight(side=0.7)).column("DAC")[0] == 1.0


def test_a_line_as_a_polygon_holds_nothing():
    flat = [(-20, 0), (80, 0), (30, 0)]
    assert score(scene(roads=[flat]), straight()).column("DAC")[0] == 0.0


def test_ego_off_the_map_leaves_the_road_at_once():
    for roads in ([], [[(500, 500), (600, 500), (600, 600)]]):
        (explanation,) = explain(scene(roads=roads), straight())
        assert explanation.of("DAC")[0].time == 0.0 and explanation.values[-1] == 0.0
    (explanation,) = explain(scene(lanes=[], on_route=[]), straight())
    assert explanation.failed[0] == "DAC" and "DDC" in explanation.failed


# ------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ego": [0, 0, 0, 10]}, r"ego must have shape \(7,\), got \(4,\)"),
        ({"ego": [0, 0, np.nan, 10, 0, 0, 0]}, "ego holds NaN"),
        ({"ego": ["here", 0, 0, 10, 0, 0, 0]}, "ego must be an array of numbers"),
        ({"ego": [1e12, 0, 0, 10, 0, 0, 0]}, "beyond 1e"),
        ({"centerline": [(3, 4), (3, 4)]}, "two or more different vertices, got 1"),
        ({"centerline": [(0, 0, 0), (1, 0, 0)]}, r"centerline must have shape \(N, 2\)"),
        ({"centerline": [(0, 0), (np.inf, 0)]}, "centerline holds NaN, infinity"),
        ({"lanes": [[(0, 0), (1, 1)]], "on_route": None}, r"lanes\[0\] has 2 vertices"),
        ({"roads": [LANES[0], shapely.Polygon()]}, "roads: row 1 is an empty Polygon"),
        ({"roads": [shapely.Point(0, 0)]}, "roads: row 0 is a Point"),
        ({"car_parks": [[(0, 0), (1, np.nan), (2, 2)]]}, r"car_parks\[0\] holds NaN"),
        ({"on_route": [True]}, r"on_route must be booleans of shape \(2,\)"),
        ({"on_route": [0.5, 1.0]}, "on_route must be booleans"),
        (car(9, 9, agent_poses=np.zeros((51, 1, 3))), r"agent_poses must have shape \(11, M, 3\)"),
        (car(9, 9, agent_poses=np.full((11, 1, 3), [1.0, 2.0, np.nan])), "NaN in part"),
        (car(9, 9, agent_poses=np.full((11, 1, 3), np.inf)), "agent_poses holds NaN, infinity"),
        (car(9, 9, agent_sizes=None), "agent_sizes is missing"),
        (car(9, 9, agent_sizes=[[4.0, 0.0]]), "agent 0 has length and width"),
        (car(9, 9, agent_types=["lorry"]), "'lorry' is none of vehicle, pedestrian"),
        (car(9, 9, agent_types=[]), "1 agents in agent_poses, 0 agent_types"),
        (car(9, 9, agent_velocities=[[np.nan, 0]]), "agent_velocities holds NaN"),
        ({"speed_limit": -1.0}, "speed_limit must not be below 0"),
        ({"speed_limit": np.nan}, "speed_limit must not be below 0"),
        ({"reference": np.zeros((41, 3))}, r"reference must have shape \(51, 3\)"),
        ({"human": np.zeros((8, 3))}, "both history and human"),
        ({"red_lights": [LANES[0]], "red": np.ones((4, 1), bool)}, r"red must be booleans of shape \(9, 1\)"),
    ],
)
def test_arrays_that_cannot_be_a_scene(changes, message):
    with pytest.raises(MetricCacheError, match=message) as caught:
        scene(token="crossing 7", **changes)
    assert str(caught.value).startswith("crossing 7: ")


def test_agents_share_no_token():
    two = {
        "agent_poses": np.zeros((11, 2, 3)),
        "agent_sizes": np.ones((2, 2)),
        "agent_types": ["vehicle"] * 2,
    }
    with pytest.raises(MetricCacheError, match="'a' is there twice"):
        scene(**two, agent_tokens=["a", "a"])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("plans", "message"),
    [
        (np.full((2, 8, 3), np.nan), "2 plan.s. hold NaN or infinity, the first is plan 0"),
        (np.where(np.arange(24).reshape(1, 8, 3) == 5, np.inf, 0.0), "hold NaN or infinity"),
        (np.zeros((1, 40, 3)), r"\(N, 8, 3\) = \(plan, pose every 0.5 s, x y heading\), got \(1, 40, 3\)"),
        (np.zeros((1, 8, 2)), r"\(N, 8, 3\)"),
        (np.full((1, 8, 3), 1e180), "too far off to be simulated"),
    ],
)
def test_plans_that_cannot_be_scored(plans, message, version):
    cache = scene(history=np.zeros((3, 7)), human=straight()[0])
    with pytest.raises(PlanError, match=message):
        score(cache, plans, version=version)


def test_the_example_of_the_documentation(capsys):
    text = (Path(__file__).parents[3] / "docs" / "pdm_score.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    example = next(block for block in blocks if "metric_cache_from_arrays(" in block)
    exec(compile(example, "docs/pdm_score.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    promised = [line.split("# ")[1] for line in example.splitlines() if line.startswith("print(")]
    assert said == promised
