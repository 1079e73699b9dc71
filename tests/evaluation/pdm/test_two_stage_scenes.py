"""Scenes of two stages: what cannot be scored is refused with its reason, and costs nothing else."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from beyonddrive.datasets.maps.nuplan_map import MapError
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.synthetic import read_synthetic_scene
from beyonddrive.evaluation.pdm import MetricCacheError
from beyonddrive.evaluation.pdm.cache import two_stage
from beyonddrive.evaluation.pdm.cache.two_stage import build_two_stage_scene
from beyonddrive.evaluation.pdm.inputs.map_index import map_index
from beyonddrive.evaluation.pdm.reference.reactive_scene import ReactiveTrafficError
from beyonddrive.evaluation.pdm.reference.start_segments import lane_locator

GOLDEN = Path(__file__).parents[2] / "data/golden"
DATA, MAPS = GOLDEN / "two_stage/data", GOLDEN / "pdms/data/maps"


@pytest.fixture(scope="module")
def root():
    return NavsimRoot(DATA, MAPS)


@pytest.fixture(scope="module")
def follow_up():
    return read_synthetic_scene(min((DATA / "synthetic_scene_pickles").glob("*.pkl")))


@pytest.mark.parametrize(
    ("frame", "change", "message"),
    [
        (1, {"ego_dynamic_state": [1.0, 0.0, np.nan, 0.0]}, r"ego_velocity or ego_acceleration .*frame 1"),
        (2, {"timestamp": 0}, r"time stamps \(timestamp\) of the last four frames do not increase"),
    ],
)
def test_a_past_that_cannot_be_read_is_refused_with_pickle_and_key(root, follow_up, frame, change, message):
    frames = [copy.copy(item) for item in follow_up.frames]
    frames[frame].update(change)
    scene = replace(follow_up, frames=frames)
    with pytest.raises(MetricCacheError, match=rf"\({follow_up.token}\.pkl\): .*{message}"):
        build_two_stage_scene(scene, root.map(scene.map_location))


def test_a_follow_up_whose_objects_end_early_is_refused_with_its_pickle_and_key(root, follow_up):
    scene = replace(follow_up, later_objects=follow_up.later_objects[:4])
    told = rf"extended_detections_tracks of {follow_up.token}\.pkl has 4 samples and should have 8"
    with pytest.raises(MetricCacheError, match=f"4 frames after now, the score needs 8; {told}"):
        build_two_stage_scene(scene, root.map(scene.map_location))


def test_vehicles_that_cannot_react_cost_reactive_traffic_alone(root, follow_up, monkeypatch):
    def fail(*_):
        raise ReactiveTrafficError("lane 7: its baseline has fewer than three vertices")

    standing = np.zeros((1, 8, 3))
    nuplan_map = root.map(follow_up.map_location)
    wanted, _ = build_two_stage_scene(follow_up, nuplan_map).sub_scores(standing, "replay")
    monkeypatch.setattr(two_stage, "reactive_scene", fail)
    scene = build_two_stage_scene(follow_up, nuplan_map)
    np.testing.assert_array_equal(scene.sub_scores(standing, "replay")[0], wanted)
    with pytest.raises(ReactiveTrafficError, match=rf"scene {follow_up.token} of log .*: lane 7"):
        scene.sub_scores(standing)


class WithoutPolygons:
    """A map in which some connectors have no polygon, or two."""

    def __init__(self, nuplan_map, connectors, twice):
        self.path, self._map, self._connectors, self._twice = nuplan_map.path, nuplan_map, connectors, twice

    def layer(self, name):
        layer = self._map.layer(name)
        if name != "gen_lane_connectors_scaled_width_polygons":
            return layer
        hit = np.isin(layer.columns["lane_connector_fid"], self._connectors)
        rows = np.append(np.arange(len(layer)), np.flatnonzero(hit)) if self._twice else np.flatnonzero(~hit)
        columns = {key: values[rows] for key, values in layer.columns.items()}
        return replace(layer, ids=np.arange(len(rows)), geometries=layer.geometries[rows], columns=columns)


def point_of(cases, row):
    return shapely.Point(cases["x"][row], cases["y"][row])


@pytest.mark.parametrize("twice", [False, True])
def test_a_connector_without_its_polygon_costs_its_junction_and_not_the_city(root, twice):
    cases = np.load(GOLDEN / "two_stage/segment_cases.npz")
    whole = map_index(root.map(str(cases["location"][0])))
    connectors = {str(id) for id in whole.lane_ids[whole.num_lanes :]}
    here = cases["location"] == cases["location"][0]
    inside = next(i for i in np.flatnonzero(here) if cases["segment"][i] in connectors)
    id = int(cases["segment"][inside])
    damaged = WithoutPolygons(root.map(str(cases["location"][0])), [id], twice)
    locator = lane_locator(map_index(damaged))
    with pytest.raises(MapError, match=rf"{'more than one' if twice else 'none'} for lane connector {id};"):
        locator.start_segment(*(cases[key][inside] for key in ("x", "y", "h")))
    met = set()
    [junction] = [
        shape for shape in whole.intersections.geometries if shape.contains(point_of(cases, inside))
    ]
    for i in np.flatnonzero(here):
        name = str(cases["segment"][i])
        if name in connectors and junction.contains(point_of(cases, i)):
            continue
        found = locator.start_segment(*(cases[key][i] for key in ("x", "y", "h")))
        assert ("" if found is None else str(whole.lane_ids[found.lane])) == name
        met.add(name in connectors)
    assert met == {True, False}
