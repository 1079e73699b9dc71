"""What holds for every scene and plan: random scenes from arrays, moved, split, emptied and widened."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from beyonddrive.evaluation.pdm import explain, metric_cache_from_arrays, score
from beyonddrive.evaluation.pdm.inputs.tracks import Tracks
from beyonddrive.evaluation.pdm.kernels.constants import CARPARK_AREA
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings, concatenate
from beyonddrive.evaluation.pdm.scores.epdms import EPDMS_COLUMNS
from beyonddrive.structures.boxes import OBJECT_TYPES
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.structures.se2 import rotate, to_global

SEEDS = st.integers(0, 2**32 - 1)
VERSIONS = ("v1", "v2")
FUZZED = 5000
PROPERTY = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
FUZZ_BATCH = 50
"""Scenes per example of hypothesis, which takes longer over an example than they do."""
FUZZ = settings(PROPERTY, max_examples=FUZZED // FUZZ_BATCH)


def random_scene(rng):
    """Arguments of ``metric_cache_from_arrays``: a bent road, agents, lights, anywhere on Earth."""
    bend = rng.choice([0.0, rng.normal(0, 0.02)])
    s = np.linspace(-30, rng.uniform(50, 130), rng.integers(2, 40))
    heading = bend * s
    line = np.column_stack([s, 0.5 * bend * s**2])
    normal = np.column_stack([-np.sin(heading), np.cos(heading)])
    width = rng.uniform(3.0, 4.5)
    lanes = []
    for lane in range(-1, rng.integers(0, 3)):
        left, right = (lane + 0.5) * width, (lane - 0.5) * width
        lanes.append(np.concatenate([line + left * normal, (line + right * normal)[::-1]]))
    whole = shapely.union_all([shapely.Polygon(lane).buffer(0.0) for lane in lanes])
    center = rng.uniform([5, -5], [50, 10])
    square = center + rng.uniform(4, 15) * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    stretch = np.array([[0.0, -3], [9, -3], [9, 3], [0, 3]])
    stretch[:, 0] += rng.uniform(5, 40)
    count = int(rng.choice([0, 1, rng.integers(2, 12)]))
    start = np.column_stack([rng.uniform(-20, 60, count), rng.uniform(-8, 12, count)])
    direction = rng.choice([0.0, np.pi, np.pi / 2, 3.0], count) + rng.normal(0, 0.2, count)
    speed = rng.choice([0.0, 1.0, 5.0, 12.0], count) * rng.uniform(0.5, 1.5, count)
    velocity = speed[:, None] * np.column_stack([np.cos(direction), np.sin(direction)])
    poses = np.empty((11, count, 3))
    poses[..., :2] = start + 0.5 * np.arange(11)[:, None, None] * velocity
    poses[..., 2] = direction + rng.normal(0, 0.1, (11, 1)) * (speed > 0)
    poses[rng.random((11, count)) < rng.choice([0.0, 0.3, 0.9])] = np.nan
    ego = [0.0, rng.normal(0, 0.3), rng.normal(0, 0.03), rng.uniform(-1, 18), 0.0, rng.normal(0, 1), 0.0]
    past = np.tile(ego, (3, 1))
    past[:, 0] -= ego[3] * np.array([1.5, 1.0, 0.5])
    past[:, 5] += rng.normal(0, 1, 3)
    human = np.zeros((8, 3))
    human[:, 0] = 0.5 * np.arange(1, 9) * max(ego[3], 0.0)
    scene = {
        "ego": np.array(ego),
        "centerline": line,
        "lanes": lanes,
        "on_route": rng.random(len(lanes)) < 0.8,
        "roads": None if rng.random() < 0.5 else [whole],
        "intersections": [square] if rng.random() < 0.4 else [],
        "car_parks": random_polygons(rng, rng.integers(0, 3)),
        "agent_poses": poses,
        "agent_sizes": rng.uniform([0.4, 0.4], [9.0, 2.5], (count, 2)),
        "agent_types": rng.choice([*OBJECT_TYPES, *["vehicle"] * 8], count).tolist(),
        "red_lights": [stretch] if rng.random() < 0.5 else [],
        "speed_limit": rng.uniform(1, 25),
        "history": past,
        "human": human,
    }
    scene["red"] = rng.random((9, len(scene["red_lights"]))) < 0.4
    if rng.random() < 0.7:
        scene["reference"] = reference_of(scene["ego"])
    return moved(scene, rng.uniform(-4, 4), rng.choice([0.0, 1e3, 5e5]) * rng.normal(0, 1, 2))


def reference_of(ego):
    """Straight on, at the ego's speed."""
    way = 0.1 * np.arange(51) * max(ego[3], 0.0)
    direction = np.array([np.cos(ego[2]), np.sin(ego[2])])
    return np.column_stack([ego[:2] + way[:, None] * direction, np.full(51, ego[2])])


def random_polygons(rng, count):
    """Stars that may intersect themselves, rings with a hole, and polygons of two parts."""
    shapes = []
    for kind in rng.integers(0, 3, count):
        center = rng.uniform([-10, -20], [60, 20])
        disc = shapely.Point(*center).buffer(rng.uniform(2, 15), quad_segs=3)
        if kind == 0:
            shapes.append(center + rng.normal(0, 12, (rng.integers(3, 9), 2)))
        elif kind == 1:
            shapes.append(disc.difference(shapely.Point(*center).buffer(1.5)))
        else:
            shapes.append(shapely.MultiPolygon([disc, shapely.box(*(center + 30), *(center + 36))]))
    return shapes


def moved(scene, angle, shift):
    """The whole scene turned about the origin, then shifted."""

    def xy(points):
        return rotate(points, angle) + shift

    def shape(polygon):
        if isinstance(polygon, shapely.Geometry):
            return shapely.transform(polygon, xy)
        return xy(polygon)

    def pose(array):
        return np.concatenate([xy(array[..., :2]), array[..., 2:3] + angle, array[..., 3:]], axis=-1)

    given = {"reference": pose(scene["reference"])} if "reference" in scene else {}
    return (
        scene
        | given
        | {
            "ego": pose(scene["ego"]),
            "centerline": xy(scene["centerline"]),
            "history": pose(scene["history"]),
            "agent_poses": pose(scene["agent_poses"]),
            **{
                key: None if scene[key] is None else [shape(polygon) for polygon in scene[key]]
                for key in ("lanes", "roads", "intersections", "car_parks", "red_lights")
            },
        }
    )


def random_plans(rng, scene, count):
    """Driven arcs at a changing speed, with noise, and now and then something wild."""
    times = 0.5 * np.arange(1, 9)
    speed, pull = max(scene["ego"][3], 0.0), rng.normal(0, 1.5, (count, 1))
    way = np.maximum(speed * times + 0.5 * pull * times**2, 0.0)
    turn = rng.choice([0.0, 0.02, 0.1], (count, 1)) * rng.normal(0, 1, (count, 1))
    heading = turn * way
    plans = np.stack([way * np.cos(heading / 2), way * np.sin(heading / 2), heading], axis=-1)
    plans += rng.normal(0, 1, plans.shape) * rng.choice([0.0, 0.05, 1.0], (count, 1, 1), p=[0.6, 0.3, 0.1])
    wild = rng.random(count) < 0.08
    plans[wild] *= 10.0 ** rng.uniform(-6, 7, (wild.sum(), 1, 1))
    return plans


def scene_and_plans(seed, count=6):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    return scene, random_plans(rng, scene, count)


@settings(PROPERTY, max_examples=200)
@given(seed=SEEDS, angle=st.floats(-3.2, 3.2), x=st.floats(-1e4, 1e4), y=st.floats(-1e4, 1e4))
def test_a_rigid_motion_of_the_whole_scene_changes_nothing(seed, angle, x, y):
    scene, plans = scene_and_plans(seed)
    # A plan that wanders off by kilometres is not told apart to 1e-6 by its last bits.
    plans = plans[np.abs(plans).max(axis=(1, 2)) < 500.0]
    here = metric_cache_from_arrays(**scene)
    there = metric_cache_from_arrays(**moved(scene, angle, np.array([x, y])))
    for version in VERSIONS:
        before, after = (score(cache, plans, version=version).values for cache in (here, there))
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


@PROPERTY
@given(seed=SEEDS, order=st.permutations(range(6)))
def test_a_plan_s_score_does_not_depend_on_its_batch(seed, order):
    scene, plans = scene_and_plans(seed)
    cache = metric_cache_from_arrays(**scene)
    for version in VERSIONS:
        together = score(cache, plans, version=version)
        shuffled = score(cache, plans[order], version=version)
        np.testing.assert_array_equal(shuffled.values, together.values[order])
        np.testing.assert_array_equal(shuffled.simulated, together.simulated[order])
        alone = score(cache, plans[order[:1]], version=version)
        np.testing.assert_array_equal(alone.values[0], together.values[order[0]])


@PROPERTY
@given(seed=SEEDS)
def test_removing_all_agents_never_lowers_collision_scores(seed):
    scene, plans = scene_and_plans(seed)
    cache = metric_cache_from_arrays(**scene)
    nobody = Tracks((), np.zeros(0, np.int8), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((11, 0, 3)))
    for version in VERSIONS:
        before = score(cache, plans, version=version, human_filter=False)
        after = score(replace(cache, tracks=nobody), plans, version=version, human_filter=False)
        for name in ("NC", "TTC"):
            assert (after.column(name) >= before.column(name)).all()
            assert (after.column(name) == 1).all()


@PROPERTY
@given(seed=SEEDS, extra=st.integers(1, 4))
def test_more_drivable_area_never_lowers_drivable_area_compliance(seed, extra):
    scene, plans = scene_and_plans(seed)
    cache = metric_cache_from_arrays(**scene)
    rng = np.random.default_rng(seed + 1)
    origin = cache.ego_state[:3]
    shapes = []
    for polygon in random_polygons(rng, extra):
        shape = polygon if isinstance(polygon, shapely.Geometry) else shapely.Polygon(polygon)
        shapes.append(shapely.transform(shape, lambda xy: to_global(xy, origin)))
    wider = replace(
        cache,
        polygons=concatenate([cache.polygons, PolygonRings.from_geometries(shapes)]),
        polygon_ids=np.append(cache.polygon_ids, -1 - np.arange(extra)),
        polygon_types=np.append(cache.polygon_types, np.full(extra, CARPARK_AREA, np.int8)),
    )
    for version in VERSIONS:
        before = score(cache, plans, version=version, human_filter=False).column("DAC")
        after = score(wider, plans, version=version, human_filter=False).column("DAC")
        assert (after >= before).all()


@settings(PROPERTY, max_examples=15)
@given(seed=SEEDS, threads=st.integers(2, 6))
def test_the_number_of_threads_changes_no_bit(seed, threads):
    scene, plans = scene_and_plans(seed, 24)
    cache = metric_cache_from_arrays(**scene)
    alone = score(cache, plans)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda part: score(cache, part), np.array_split(plans, threads)))
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), alone.values)
    np.testing.assert_array_equal(np.concatenate([part.simulated for part in parts]), alone.simulated)


@PROPERTY
@given(seed=SEEDS)
def test_explanations_fail_what_the_score_fails(seed):
    scene, plans = scene_and_plans(seed)
    cache = metric_cache_from_arrays(**scene)
    for version, progress in product(VERSIONS, ("pair", "pooled")):
        columns = SCORE_COLUMNS if version == "v1" else EPDMS_COLUMNS
        scores = score(cache, plans, progress, version)
        for n, explanation in enumerate(explain(cache, plans, version, progress)):
            below = {name for name in columns[:-1] if scores.column(name)[n] < 1.0}
            assert set(explanation.failed) == below
            assert all(failure.words for failure in explanation.failures)
            assert "nan" not in str(explanation)
            for failure in explanation.of("EP"):
                if failure.limit is not None and failure.limit > 5.0:
                    assert scores.column("EP")[n] == pytest.approx(failure.value / failure.limit, abs=1e-9)
                else:
                    assert failure.value == 0.0


def test_5000_random_scenes_have_scores_between_0_and_1():
    scored = 0

    @FUZZ
    @given(seed=SEEDS)
    def fuzz(seed):
        nonlocal scored
        for part in range(FUZZ_BATCH):
            scene, plans = scene_and_plans([seed, part], 3)
            cache = metric_cache_from_arrays(**scene)
            values = score(cache, plans, version=VERSIONS[part % 2]).values
            assert ((values >= 0) & (values <= 1)).all()
            assert np.isin(values[:, [0, 1]], [0, 0.5, 1]).all()
            scored += 1

    fuzz()
    assert scored >= FUZZED


def test_random_scenes_fail_in_every_way():
    """The tests above say something only if their scenes are not all alike."""
    below = dict.fromkeys(VERSIONS, 0)
    for seed in range(60):
        scene, plans = scene_and_plans(seed)
        cache = metric_cache_from_arrays(**scene)
        for version in VERSIONS:
            below[version] += (score(cache, plans, version=version).values < 1).sum(axis=0)
    assert (below["v1"] > 10).all() and (below["v1"] < 350).all()
    assert (below["v2"] > 2).all() and (below["v2"] < 358).all()
