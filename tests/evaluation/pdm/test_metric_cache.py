"""Building metric caches: moved worlds, scenes that cannot be scored, storage, and what is imported."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import shapely

from beyonddrive.datasets.maps.nuplan_map import MapError
from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.evaluation.pdm import MetricCache, MetricCacheError, build_metric_cache, score
from beyonddrive.evaluation.pdm.kernels.constants import POLYGON_TYPES


class MapDouble:
    """A map whose layers may be altered; ``missing`` are not there."""

    def __init__(self, nuplan_map, alter=None, missing=()):
        self.path = nuplan_map.path
        self._map, self._alter, self._missing, self._layers = nuplan_map, alter, missing, {}

    def layer(self, name):
        if name in self._missing:
            raise MapError(f"{self.path}: there is no layer {name!r}")
        if name not in self._layers:
            layer = self._map.layer(name)
            self._layers[name] = self._alter(layer) if self._alter else layer
        return self._layers[name]


def with_frames(scene, change, frames=(HISTORY - 1,)):
    """A copy of a scene in which ``change(frame)`` was called on some frames."""
    copies = [copy.deepcopy(f) if i in frames else f for i, f in enumerate(scene.frames)]
    for i in frames:
        change(copies[i])
    return Scene(scene.log_name, scene.split, copies)


def build_error(scene, nuplan_map):
    with pytest.raises(MetricCacheError) as caught:
        build_metric_cache(scene, nuplan_map)
    assert scene.token in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("feature", ["straight_offlane", "cross_straight_red", "grid_loop"])
def test_turning_log_and_map_changes_nothing(golden, feature):
    """By a quarter turn, for the square of the drivable map is axis-aligned."""
    item = golden(feature)
    origin, shift = item.scene.ego_pose[:2], np.array([420.0, -77.0])

    def moved(xy):
        x, y = (np.asarray(xy) - origin).T
        return np.column_stack([-y, x]) + origin + shift

    def turn(frame):
        translation = np.array(frame["ego2global_translation"], dtype=np.float64)
        translation[:2] = moved(translation[None, :2])[0]
        w, x, y, z = frame["ego2global_rotation"]
        c = s = np.sqrt(0.5)
        frame["ego2global_translation"] = translation
        frame["ego2global_rotation"] = np.array([w * c - z * s, x * c + y * s, y * c - x * s, w * s + z * c])

    def alter(layer):
        return replace(layer, geometries=shapely.transform(layer.geometries, moved))

    scene = with_frames(item.scene, turn, range(len(item.scene.frames)))
    cache = build_metric_cache(scene, MapDouble(item.nuplan_map, alter))
    np.testing.assert_array_equal(cache.route_ids, item.cache.route_ids)
    np.testing.assert_array_equal(cache.polygon_ids, item.cache.polygon_ids)
    np.testing.assert_allclose(cache.proposal[:, :2], moved(item.cache.proposal[:, :2]), rtol=0, atol=1e-6)
    names = item.scores["names"]
    steady = np.array([not name.startswith(("edge_", "heading_pi", "alternating")) for name in names])
    plans = item.scores["poses"][steady]
    np.testing.assert_allclose(score(cache, plans).values, score(item.cache, plans).values, rtol=0, atol=1e-6)


def test_scene_without_objects(golden):
    item = golden("cross_straight_red")

    def clear(frame):
        anns = frame["anns"]
        for key, columns in (("gt_boxes", 7), ("gt_velocity_3d", 3)):
            anns[key] = np.zeros((0, columns))
        anns["gt_names"] = anns["track_tokens"] = anns["instance_tokens"] = []

    cache = build_metric_cache(with_frames(item.scene, clear, range(14)), item.nuplan_map)
    assert len(cache.tracks) == 0
    values = score(cache, item.scores["poses"]).values
    assert (values[:, [0, 3]] == 1).all()
    assert MetricCache.from_arrays(cache.to_arrays()).tracks.tokens == ()


def test_scene_without_route(golden):
    item = golden("curve_free")
    scene = with_frames(item.scene, lambda frame: frame.update(roadblock_ids=[]))
    assert "has no route (roadblock_ids is empty); leave it out with has_route=True" in build_error(
        scene, item.nuplan_map
    )


@pytest.mark.parametrize("id", ["987654321", "north"])
def test_route_that_is_not_on_the_map(golden, id):
    item = golden("curve_free")
    scene = with_frames(item.scene, lambda frame: frame.update(roadblock_ids=[id]))
    message = build_error(scene, item.nuplan_map)
    assert f"route id {id!r}" in message and "do not belong together" in message


def test_ego_off_the_map(golden):
    item = golden("curve_free")

    def move(frame):
        frame["ego2global_translation"] = np.add(frame["ego2global_translation"], [9000.0, 0.0, 0.0])

    message = build_error(with_frames(item.scene, move, range(14)), item.nuplan_map)
    assert "the ego is off the map" in message and "map_location" in message


@pytest.mark.parametrize(
    "name", ["lane_groups_polygons", "baseline_paths", "gen_lane_connectors_scaled_width_polygons"]
)
def test_map_without_a_layer(golden, name):
    item = golden("curve_free")
    assert f"no layer '{name}'" in build_error(item.scene, MapDouble(item.nuplan_map, missing=[name]))


def baselines(alter):
    """A change of the layer of centre lines."""
    return lambda layer: alter(layer) if layer.name == "baseline_paths" else layer


def taken(layer, rows):
    columns = {name: values[rows] for name, values in layer.columns.items()}
    return replace(layer, ids=np.arange(len(rows)), geometries=layer.geometries[rows], columns=columns)


def test_map_without_a_baseline(golden):
    item = golden("curve_free")

    def alter(layer):
        return replace(layer, columns={**layer.columns, "lane_fid": np.full(len(layer), -1)})

    for change in (alter, lambda layer: taken(layer, np.zeros(0, dtype=np.int64))):
        message = build_error(item.scene, MapDouble(item.nuplan_map, baselines(change)))
        assert "none for lane" in message and "baseline_paths" in message


def point(line):
    return shapely.LineString([line.coords[0]] * 2)


def two_lines(line):
    return shapely.MultiLineString([line, line])


@pytest.mark.parametrize(
    "spoil", [point, two_lines, shapely.Point, "twice"], ids=["point", "two_lines", "empty", "twice"]
)
def test_a_baseline_that_is_none_costs_the_scenes_that_need_it(golden, spoil):
    item = golden("curve_free")
    layer = item.nuplan_map.layer("baseline_paths")
    owner = np.maximum(layer.columns["lane_fid"], layer.columns["lane_connector_fid"])
    used = np.flatnonzero(np.isin(owner, item.cache.route_ids))
    far = np.flatnonzero(~np.isin(owner, item.cache.polygon_ids))
    assert 0 < len(used) < len(layer) and len(far)

    def change(rows):
        def alter(layer):
            if spoil == "twice":
                return taken(layer, np.concatenate([np.arange(len(layer)), rows]))
            geometries = layer.geometries.copy()
            for row in rows:
                line = geometries[row]
                geometries[row] = spoil(line.coords[0]) if spoil is shapely.Point else spoil(line)
            return replace(layer, geometries=geometries)

        return MapDouble(item.nuplan_map, baselines(alter))

    message = build_error(item.scene, change(used))
    assert "baseline_paths" in message and "get it again" in message
    assert ("more than one for lane" if spoil == "twice" else "is not a line of some length") in message
    cache = build_metric_cache(item.scene, change(far))
    np.testing.assert_array_equal(
        score(cache, item.scores["poses"]).values, score(item.cache, item.scores["poses"]).values
    )


def test_polygon_that_is_a_line(golden):
    item = golden("curve_free")

    def alter(layer):
        if layer.name != "lanes_polygons":
            return layer
        return replace(layer, geometries=shapely.boundary(layer.geometries))

    message = build_error(item.scene, MapDouble(item.nuplan_map, alter))
    assert "lanes_polygons" in message and "not a polygon" in message


@pytest.mark.parametrize("name", ["lane_groups_polygons", "lanes_polygons", "carpark_areas"])
def test_empty_polygon(golden, name):
    item = golden("straight_free")

    def alter(layer):
        if layer.name != name:
            return layer
        geometries = layer.geometries.copy()
        geometries[0] = shapely.Polygon()
        return replace(layer, geometries=geometries)

    message = build_error(item.scene, MapDouble(item.nuplan_map, alter))
    assert name in message and "an empty Polygon" in message


def test_polygons_that_intersect_themselves_are_scored(golden):
    """Ears at the far ends of all road and lane polygons, as badly digitised maps have them."""
    item = golden("straight_free")

    def ear(polygon):
        ring = np.asarray(polygon.exterior.coords)[:-1]
        side = ring[1] - ring[0]
        out = np.array([-side[1], side[0]]) / np.hypot(*side)
        return shapely.Polygon([*ring, ring[0] + 3 * out + 0.5 * side, ring[-1] + 3 * out])

    def alter(layer):
        if layer.name not in ("lane_groups_polygons", "lanes_polygons"):
            return layer
        geometries = np.array([ear(polygon) for polygon in layer.geometries], dtype=object)
        assert not shapely.is_valid(geometries).any()
        return replace(layer, geometries=geometries)

    cache = build_metric_cache(item.scene, MapDouble(item.nuplan_map, alter))
    ours, theirs = (score(c, item.scores["poses"]).values for c in (cache, item.cache))
    np.testing.assert_array_equal(ours, theirs)


def test_holes_and_multi_polygons_are_what_they_are(golden):
    """A hole in all roadblocks, far from the ego's way, and every polygon as a multi-polygon."""
    item = golden("straight_free")
    x, y, heading = item.cache.ego_state[:3]
    ahead = np.array([x, y]) + 12.0 * np.array([np.cos(heading), np.sin(heading)])
    hole = shapely.Point(*ahead).buffer(0.4)

    def alter(layer):
        if layer.name == "lane_groups_polygons":
            parts = shapely.difference(layer.geometries, hole)
            return replace(layer, geometries=np.array([shapely.MultiPolygon([p]) for p in parts], object))
        return layer

    cache = build_metric_cache(item.scene, MapDouble(item.nuplan_map, alter))
    before, after = (score(c, item.scores["poses"]).column("DAC") for c in (item.cache, cache))
    assert (after <= before).all() and after.sum() < before.sum()
    rows = np.flatnonzero(cache.polygon_types == POLYGON_TYPES.index("roadblock"))
    assert (np.diff(cache.polygons.polygon_starts)[rows] >= 1).all()
    rings = np.diff(cache.polygons.polygon_starts)[rows]
    assert rings.max() == 2, "a roadblock has an outer ring and a hole"


def with_speed_limit(limit):
    def alter(layer):
        if layer.name not in ("lanes_polygons", "lane_connectors"):
            return layer
        return replace(layer, columns={**layer.columns, "speed_limit_mps": np.full(len(layer), limit)})

    return alter


@pytest.mark.parametrize("limit", [-1.0, np.inf])
def test_speed_limit_that_is_none(golden, limit):
    item = golden("curve_free")
    message = build_error(item.scene, MapDouble(item.nuplan_map, with_speed_limit(limit)))
    assert f"speed limit of {limit} m/s" in message


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_under_a_speed_limit_of_zero_the_reference_planner_brakes(golden, version):
    """By the formulas: (v / 0)^10 is infinite, the acceleration the lower bound, beyond standing still."""
    item = golden("curve_free")
    cache = build_metric_cache(item.scene, MapDouble(item.nuplan_map, with_speed_limit(0.0)))
    speed = item.scene.ego_dynamic[0]
    way = np.hypot(*np.diff(cache.proposal[:, :2], axis=0).T)
    np.testing.assert_allclose(way[:9], 0.1 * (speed - 0.3 * np.arange(9)), rtol=0, atol=0.02)
    values, usual = (score(c, item.scores["poses"], version=version) for c in (cache, item.cache))
    assert np.isfinite(values.values).all()
    others = [column for column, name in enumerate(usual.columns[:-1]) if name != "EP"]
    np.testing.assert_array_equal(values.values[:, others], usual.values[:, others])
    more = values.column("EP") - usual.column("EP")
    assert (more >= 0).all() and (more > 0).any()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_who_stands_under_a_speed_limit_of_zero_is_no_measure_of_progress(golden, version):
    item = golden("curve_free")

    def stop(frame):
        frame["ego_dynamic_state"] = np.zeros(4)

    scene = with_frames(item.scene, stop)
    still = build_metric_cache(scene, item.nuplan_map)
    cache = build_metric_cache(scene, MapDouble(item.nuplan_map, with_speed_limit(0.0)))
    assert np.isnan(cache.proposal[3:]).all() and np.isfinite(cache.proposal[:2]).all()
    cache = MetricCache.from_arrays(cache.to_arrays())
    values, usual = (score(c, item.scores["poses"], version=version) for c in (cache, still))
    others = [column for column, name in enumerate(usual.columns[:-1]) if name != "EP"]
    np.testing.assert_array_equal(values.values[:, others], usual.values[:, others])
    at_fault = (usual.column("NC") * usual.column("DAC") == 0) & (version == "v1")
    np.testing.assert_array_equal(values.column("EP"), np.where(at_fault, 0.0, 1.0))


def test_track_token_twice_in_a_frame(golden):
    item = golden("curve_free")

    def repeat(frame):
        frame["anns"]["track_tokens"][1] = frame["anns"]["track_tokens"][0]

    message = build_error(with_frames(item.scene, repeat, (HISTORY + 4,)), item.nuplan_map)
    assert f"frame {HISTORY + 4}: anns.track_tokens" in message and "is there twice" in message


def resized(item, length, width):
    """The scene with other boxes: those of all agents have this size."""

    def change(frame):
        boxes = frame["anns"]["gt_boxes"] = np.array(frame["anns"]["gt_boxes"])
        boxes[:, 3:5] = length, width

    return with_frames(item.scene, change, range(14))


def test_box_with_a_negative_size(golden):
    item = golden("curve_free")
    assert "neither may be negative" in build_error(resized(item, 4.0, -1.0), item.nuplan_map)


@pytest.mark.parametrize(("length", "width"), [(0.0, 2.0), (4.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("feature", ["curve_free", "cross_straight_red"])
def test_boxes_of_size_zero_are_lines_and_points(golden, length, width, feature):
    """They are scored as boxes that are nearly so."""
    item = golden(feature)
    cache, near = (
        build_metric_cache(resized(item, *size), item.nuplan_map)
        for size in ((length, width), (max(length, 1e-9), max(width, 1e-9)))
    )
    np.testing.assert_allclose(cache.proposal, near.proposal, rtol=0, atol=1e-6)
    for version in ("v1", "v2"):
        values, expected = (score(c, item.scores["poses"], version=version).values for c in (cache, near))
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def test_box_that_is_not_finite(golden):
    item = golden("curve_free")

    def spoil(frame):
        frame["anns"]["gt_boxes"] = np.array(frame["anns"]["gt_boxes"])
        frame["anns"]["gt_boxes"][2, 0] = np.nan

    assert "is not finite" in build_error(with_frames(item.scene, spoil), item.nuplan_map)


def test_too_few_future_frames(golden):
    item = golden("curve_free")
    scene = Scene(item.scene.log_name, "golden", item.scene.frames[: HISTORY + 8])
    assert "8 frames after now, the score needs 10" in build_error(scene, item.nuplan_map)


def test_stored_caches_of_another_release(golden):
    arrays = golden("curve_free").cache.to_arrays()
    with pytest.raises(MetricCacheError, match="version 999, this release reads"):
        MetricCache.from_arrays({**arrays, "version": np.array(999)})
    del arrays["centerline"]
    with pytest.raises(MetricCacheError, match="without 'centerline'"):
        MetricCache.from_arrays(arrays)


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        ("proposal", lambda array: array[:3]),
        ("tracks.types", lambda array: array[1:]),
        ("tracks.poses", lambda array: array[:, 1:]),
        ("tracks.tokens", lambda array: array + 200),
        ("polygon_types", lambda array: array[1:]),
        ("polygons.vertices", lambda array: array[:9]),
        ("polygons.polygon_starts", lambda array: array[:-1]),
        ("polygons.ring_starts", lambda array: array[::-1]),
        ("extended.history", lambda array: array[:2]),
        ("extended.lights.ring_starts", lambda array: array[:0]),
        ("version", lambda array: np.zeros(2)),
        ("token", lambda array: array[:0]),
    ],
)
def test_stored_caches_that_are_damaged(golden, key, damage):
    arrays = golden("cross_straight_red").cache.to_arrays()
    with pytest.raises(MetricCacheError, match="make it again"):
        MetricCache.from_arrays(arrays | {key: damage(arrays[key])})


def test_caches_can_be_pickled(golden):
    item = golden("curve_free")
    plans = item.scores["poses"][:5]
    expected = score(item.cache, plans).values
    again = pickle.loads(pickle.dumps(item.cache))
    np.testing.assert_array_equal(score(again, plans).values, expected)


def test_no_learning_framework_is_imported():
    script = (
        "import sys\n"
        "from beyonddrive.evaluation.pdm import MetricCache, PdmScores, build_metric_cache, score\n"
        "import beyonddrive.evaluation.split_scoring\n"
        "print(sorted({'torch', 'mmengine'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_building_twice_gives_the_same_cache(golden):
    item = golden("curve_free")
    same = build_metric_cache(item.scene, MapDouble(item.nuplan_map))
    for key, array in item.cache.to_arrays().items():
        np.testing.assert_array_equal(same.to_arrays()[key], array, err_msg=key)
