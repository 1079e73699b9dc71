"""The generated world: layout, schema, motion, determinism, resuming, and how hard it is."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

from beyonddrive.datasets.maps.nuplan_map import open_map
from beyonddrive.datasets.navsim.logs import CAMERA_NAMES, read_log
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.executors import ProcessExecutor, SerialExecutor
from beyonddrive.engine.files import file_lock
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.synth import world as world_module
from beyonddrive.synth.sumo import SumoError, sumo_home
from beyonddrive.synth.traffic import TrafficPlan
from beyonddrive.synth.world import create_world
from beyonddrive.synth.world_config import WorldConfig, WorldError

pytest.importorskip("sumo", reason="the extra 'synth' is not installed")

SCENES = 16
CONFIG = WorldConfig(
    splits={"train": SCENES, "test": SCENES // 2},
    seed=4,
    image_size=(96, 54),
    cameras="none",
    lidar=False,
    scenes_per_town=SCENES,
    traffic=TrafficPlan(duration=30.0),
)
FRAME_KEYS = {
    "token", "frame_idx", "timestamp", "log_name", "log_token", "scene_name", "scene_token", "map_location",
    "roadblock_ids", "vehicle_name", "can_bus", "lidar_path", "lidar2ego_translation", "lidar2ego_rotation",
    "lidar2ego", "ego2global_translation", "ego2global_rotation", "ego2global", "lidar2global",
    "ego_dynamic_state", "traffic_lights", "driving_command", "cams", "anns", "sample_prev", "sample_next",
}  # fmt: skip
ID_COLUMNS = {
    "lane_group_connectors": ["from_lane_group_fid", "to_lane_group_fid"],
    "lanes_polygons": ["lane_group_fid", "lane_fid"],
    "lane_connectors": ["exit_lane_fid", "entry_lane_fid", "lane_group_connector_fid"],
    "gen_lane_connectors_scaled_width_polygons": ["lane_connector_fid"],
}
LOCATIONS = ["us-nv-las-vegas-strip", "us-ma-boston", "us-pa-pittsburgh-hazelwood", "sg-one-north"]


def bytes_of(root: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


class KilledExecutor(SerialExecutor):
    """Stops like a killed job after some items."""

    def __init__(self, items):
        self.items = items

    def map(self, function, items, desc="", initializer=None, initargs=()):
        for item in items:
            if self.items == 0:
                raise KeyboardInterrupt
            self.items -= 1
            yield function(item)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "synth"
    create_world(root, CONFIG, SerialExecutor(), progress=False)
    return root


@pytest.fixture(scope="session")
def scenes(world):
    return {split: list(NavsimRoot(world).scenes(split)) for split in CONFIG.splits}


@pytest.fixture(scope="session")
def logs(world):
    return [read_log(path) for path in sorted((world / "navsim_logs").rglob("*.pkl"))]


@pytest.fixture(scope="session")
def maps(world):
    used = {frames[0]["map_location"] for frames in map(read_log, (world / "navsim_logs").rglob("*.pkl"))}
    return [open_map(world / "maps", location) for location in sorted(used)]


def test_the_default_filter_finds_as_many_scenes_as_were_asked_for(world, scenes):
    for split, wanted in CONFIG.splits.items():
        by_file = SceneFilter.from_yaml(world / "scene_filters" / f"{split}.yaml")
        assert len(scenes[split]) == wanted
        listed = [scene.token for scene in NavsimRoot(world).scenes(split, by_file)]
        assert sorted(listed) == sorted(scene.token for scene in scenes[split])


def test_layout_has_nothing_else(world):
    assert {path.name for path in world.iterdir()} == {"navsim_logs", "maps", "scene_filters", "synth.json"}
    assert all(path.suffix == ".pkl" for path in (world / "navsim_logs").rglob("*") if path.is_file())
    versions = json.loads((world / "maps/nuplan-maps-v1.0.json").read_text())
    for location in LOCATIONS:
        file = world / "maps" / location / versions[location]["version"] / "map.gpkg"
        layers = {name for name, _ in pyogrio.list_layers(file)}
        assert {"meta", "lane_connectors"} <= layers


def test_splits_share_no_town_and_no_token(logs, scenes):
    towns = {split: {scene.log_name.rsplit("_", 1)[0] for scene in found} for split, found in scenes.items()}
    assert not towns["train"] & towns["test"]
    tokens = [frame["token"] for frames in logs for frame in frames]
    assert len(set(tokens)) == len(tokens)


def test_frames_have_every_key_in_its_shape(logs):
    for frames in logs:
        assert [frame["frame_idx"] for frame in frames] == list(range(len(frames)))
        stamps = np.array([frame["timestamp"] for frame in frames])
        assert (np.diff(stamps) == 500_000).all()
        for frame, before, after in zip(frames, [None, *frames[:-1]], [*frames[1:], None], strict=True):
            assert set(frame) == FRAME_KEYS
            assert frame["sample_prev"] == (before and before["token"])
            assert frame["sample_next"] == (after and after["token"])
            assert set(frame["cams"]) == set(CAMERA_NAMES)
            assert frame["driving_command"].sum() == 1 and frame["driving_command"][3] == 0
            assert all(isinstance(block, str) for block in frame["roadblock_ids"])
            assert all(isinstance(c, int) and isinstance(red, bool) for c, red in frame["traffic_lights"])
            assert len(frame["can_bus"]) == 18
            anns = frame["anns"]
            assert (
                len(set(anns["instance_tokens"])) == len(set(anns["track_tokens"])) == len(anns["gt_boxes"])
            )
            assert not any("red_light" in token for token in anns["track_tokens"])
            # The ego is not annotated: nothing overlaps its middle.
            assert (np.hypot(*(anns["gt_boxes"][:, :2] - [1.461, 0.0]).T) > 1.0).all()
            assert (np.abs(anns["gt_boxes"][:, 2] - anns["gt_boxes"][:, 5] / 2) < 1e-9).all()


def test_the_world_is_populated(logs):
    names = {name for frames in logs for frame in frames for name in frame["anns"]["gt_names"]}
    assert {"vehicle", "pedestrian", "bicycle", "traffic_cone", "barrier", "generic_object"} <= names
    lights = [red for frames in logs for frame in frames for _, red in frame["traffic_lights"]]
    assert set(lights) == {True, False}
    commands = sum(frame["driving_command"] for frames in logs for frame in frames)
    assert (commands[:3] > 0).all()


def test_tracks_keep_their_token_size_and_place(logs):
    jumps = []
    for frames in logs:
        seen = {}
        for frame in frames:
            pose = frame["ego2global"]
            for token, box, velocity in zip(
                frame["anns"]["track_tokens"], frame["anns"]["gt_boxes"], frame["anns"]["gt_velocity_3d"],
                strict=True,
            ):  # fmt: skip
                place = pose[:2, :2] @ box[:2] + pose[:2, 3]
                speed = pose[:2, :2] @ velocity[:2]
                if token in seen and seen[token][0] == frame["frame_idx"] - 1:
                    _, size, before, slower = seen[token]
                    np.testing.assert_array_equal(size, box[3:6])
                    jumps.append(np.abs(place - before - 0.25 * (speed + slower)).max())
                seen[token] = (frame["frame_idx"], box[3:6], place, speed)
    assert np.percentile(jumps, 99) < 0.15
    assert max(jumps) < 0.8


def test_ego_poses_speeds_and_accelerations_agree(scenes):
    for scene in scenes["train"] + scenes["test"]:
        poses = scene.ego_poses
        state = np.array([frame["ego_dynamic_state"] for frame in scene.frames])
        step = np.diff(poses[:, :2], axis=0)
        np.testing.assert_allclose(np.hypot(*step.T), 0.25 * (state[1:, 0] + state[:-1, 0]), atol=0.15)
        np.testing.assert_allclose(np.diff(state[:, 0]), 0.25 * (state[1:, 2] + state[:-1, 2]), atol=0.45)
        middle = 0.5 * (poses[1:, 2] + poses[:-1, 2])
        sideways = -np.sin(middle) * step[:, 0] + np.cos(middle) * step[:, 1]
        assert np.abs(sideways).max() < 0.12
        assert (state[:, 1] == 0.0).all() and (state[:, 0] >= 0.0).all()


def test_map_ids_are_whole_unique_and_resolve(maps):
    for nuplan_map in maps:
        blocks, connectors = (
            nuplan_map.layer("lane_groups_polygons"),
            nuplan_map.layer("lane_group_connectors"),
        )
        assert not set(blocks.ids) & set(connectors.ids)
        for name, columns in ID_COLUMNS.items():
            raw = pyogrio.raw.read(nuplan_map.path, layer=name, columns=columns)[3]
            assert all(values.dtype == np.int64 for values in raw)  # null would make it float
        lanes, links = nuplan_map.layer("lanes_polygons"), nuplan_map.layer("lane_connectors")
        assert set(lanes.columns["lane_group_fid"]) == set(blocks.ids)
        assert set(links.columns["lane_group_connector_fid"]) == set(connectors.ids)
        assert set(links.columns["exit_lane_fid"]) <= set(lanes.ids)
        assert set(links.columns["entry_lane_fid"]) <= set(lanes.ids)
        assert set(connectors.columns["from_lane_group_fid"]) <= set(blocks.ids)
        areas = nuplan_map.layer("gen_lane_connectors_scaled_width_polygons")
        assert sorted(areas.columns["lane_connector_fid"]) == sorted(links.ids)
        sides = {*lanes.columns["left_boundary_fid"], *lanes.columns["right_boundary_fid"]}
        assert sides <= set(nuplan_map.layer("boundaries").ids)


def test_baselines_are_one_per_lane_joined_and_smooth(maps):
    for nuplan_map in maps:
        lines = nuplan_map.layer("baseline_paths")
        lanes, links = nuplan_map.layer("lanes_polygons"), nuplan_map.layer("lane_connectors")
        of_lane = {
            int(i): g for i, g in zip(lines.columns["lane_fid"], lines.geometries, strict=True) if i > 0
        }
        of_link = {
            int(i): g
            for i, g in zip(lines.columns["lane_connector_fid"], lines.geometries, strict=True)
            if i > 0
        }
        assert set(of_lane) == set(lanes.ids) and set(of_link) == set(links.ids)
        assert len(of_lane) + len(of_link) == len(lines)
        for link, start, end in zip(
            links.ids, links.columns["exit_lane_fid"], links.columns["entry_lane_fid"], strict=True
        ):
            joint = np.array(of_link[int(link)].coords)
            np.testing.assert_allclose(joint[0], of_lane[int(start)].coords[-1], atol=1e-7)
            np.testing.assert_allclose(joint[-1], of_lane[int(end)].coords[0], atol=1e-7)
        turns = []
        for line in lines.geometries:
            points = np.array(line.coords)
            step = np.diff(points, axis=0)
            length = np.hypot(*step.T)
            turn = np.diff(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
            assert length.min() > 0.4 and length.max() < 1.6
            turns.append(np.abs(turn).max(initial=0.0))
        assert np.percentile(turns, 95) < 0.25


def test_map_polygons_are_valid_and_lanes_lie_in_their_roadblock(maps):
    for nuplan_map in maps:
        for name in nuplan_map.layer_names:
            if name != "meta":
                assert shapely.is_valid(nuplan_map.layer(name).geometries).all(), name
        blocks, lanes = nuplan_map.layer("lane_groups_polygons"), nuplan_map.layer("lanes_polygons")
        for polygon, block in zip(lanes.geometries, lanes.columns["lane_group_fid"], strict=True):
            inside = polygon.intersection(blocks.geometries[blocks.row_of(int(block))]).area
            assert inside > 0.99 * polygon.area


def test_junctions_have_no_slivers_and_cover_their_connections(maps):
    for nuplan_map in maps:
        areas = nuplan_map.layer("intersections").geometries
        thick = shapely.buffer(shapely.buffer(areas, -0.45, join_style="mitre"), 0.5, join_style="mitre")
        assert shapely.area(shapely.difference(areas, thick)).max() < 0.5
        links = nuplan_map.layer("gen_lane_connectors_scaled_width_polygons").geometries
        road = shapely.union_all([*areas, *nuplan_map.layer("lanes_polygons").geometries])
        assert shapely.area(shapely.difference(links, road)).max() < 0.05


def test_routes_start_where_the_ego_is_and_are_connected(world, scenes):
    for scene in scenes["train"] + scenes["test"]:
        nuplan_map = NavsimRoot(world).map(scene.map_location)
        blocks, links = nuplan_map.layer("lane_groups_polygons"), nuplan_map.layer("lane_group_connectors")
        route = [int(block) for block in scene.roadblock_ids]
        assert len(set(route)) == len(route) >= 3
        shapes = dict(zip(blocks.ids, blocks.geometries, strict=True))
        shapes |= dict(zip(links.ids, links.geometries, strict=True))
        assert shapes[route[0]].distance(shapely.Point(scene.ego_pose[:2])) < 2.0
        for before, block, after in zip(route[:-2], route[1:-1], route[2:], strict=True):
            if block in set(links.ids):
                row = links.row_of(block)
                assert links.columns["from_lane_group_fid"][row] == before
                assert links.columns["to_lane_group_fid"][row] == after
        link_ids = {int(i) for i in nuplan_map.layer("lane_connectors").ids}
        assert {int(i) for i, _ in scene.traffic_lights} <= link_ids


def test_commands_say_which_way_the_expert_turns(scenes):
    turned = [
        (int(np.argmax(scene.driving_command)), scene.expert_plan[-1])
        for scene in scenes["train"] + scenes["test"]
        if abs(scene.expert_plan[-1, 2]) > 0.6
    ]
    assert len(turned) >= 2
    assert not any((command, np.sign(plan[2])) in ((0, -1.0), (2, 1.0)) for command, plan in turned)


def test_experts_score_well_and_constant_velocity_does_not(world, scenes):
    experts, straight = [], []
    times = np.arange(1, 9)[:, None] * 0.5
    for scene in scenes["train"] + scenes["test"]:
        cache = build_metric_cache(scene, NavsimRoot(world).map(scene.map_location))
        ahead = np.concatenate([scene.ego_dynamic[0] * times, 0.0 * times, 0.0 * times], axis=1)
        values = score(cache, np.stack([scene.expert_plan, ahead])).column("PDMS")
        experts.append(values[0])
        straight.append(values[1])
    assert np.mean(experts) > 0.9
    assert np.mean(straight) < 0.6
    assert SCORE_COLUMNS[-1] == "PDMS"


def test_same_seed_same_bytes_in_many_processes_and_after_a_kill(world, tmp_path):
    root = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        create_world(root, CONFIG, KilledExecutor(1), progress=False)
    assert not (root / "synth.json").exists() and not (root / "navsim_logs").exists()
    made = {path: path.stat().st_mtime_ns for path in (root / ".synth/towns").iterdir()}
    assert len(made) == 1
    # A town that a kill has left unfinished is not taken for complete.
    (root / ".synth/towns/unfinished.partial").mkdir()
    create_world(root, CONFIG, ProcessExecutor(2), progress=False)
    assert bytes_of(root) == bytes_of(world)


def test_one_process_at_a_time_makes_a_world(tmp_path):
    """Each would take away what the other has begun."""
    with (
        file_lock(tmp_path / ".synth.lock", wait=False),
        pytest.raises(WorldError, match="another process makes a world there; wait until it has ended"),
    ):
        create_world(tmp_path, CONFIG, KilledExecutor(0), progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"settings": 3}'])
def test_a_world_that_does_not_say_what_it_is_is_named(tmp_path, content):
    (tmp_path / "synth.json").write_text(content)
    with pytest.raises(WorldError, match=r"synth\.json: does not say what the world there was made with"):
        create_world(tmp_path, CONFIG, KilledExecutor(0), progress=False)
    (tmp_path / "synth.json").unlink()
    (tmp_path / ".synth").mkdir()
    (tmp_path / ".synth/settings.json").write_text("{")
    with pytest.raises(WorldError, match=r"settings\.json: does not say what the world there was made with"):
        create_world(tmp_path, CONFIG, KilledExecutor(0), progress=False)


def test_a_finished_world_is_left_alone_and_another_refused(world, tmp_path):
    before = bytes_of(world)
    summary = create_world(world, CONFIG, KilledExecutor(0), progress=False)
    assert summary["scenes"] == dict(CONFIG.splits)
    assert bytes_of(world) == before
    other = WorldConfig(**{**CONFIG.__dict__, "seed": 5})
    with pytest.raises(WorldError, match=r"synth\.json.*other settings \(seed\)"):
        create_world(world, other, SerialExecutor(), progress=False)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(WorldError, match="not empty"):
        create_world(tmp_path, CONFIG, SerialExecutor(), progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {}}, "at least one scene"),
        ({"splits": {"../x": 3}}, "folder"),
        ({"cameras": "left"}, "cameras"),
        ({"sensor_frames": "some"}, "sensor_frames"),
        ({"image_size": (4, 4)}, "too small"),
        ({"min_expert_score": 1.0}, "min_expert_score"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(WorldError, match=message):
        WorldConfig(**{"splits": {"test": 1}, **change})


def test_towns_that_are_added_keep_their_places(monkeypatch, tmp_path):
    places = {}

    def make(spec, folder, score_experts=None):
        places[spec.name] = (spec.location, spec.index)
        folder.mkdir(parents=True)
        (folder / "scenes.json").write_text(json.dumps({spec.name: [["token", "keep"]] * 40}))

    monkeypatch.setattr(world_module, "make_town", make)
    config = WorldConfig(splits={"train": 300, "test": 300}, scenes_per_town=300)
    specs = world_module._make_towns(config, tmp_path, SerialExecutor(), None, progress=False)
    assert [spec.split for spec in specs].count("test") == 8
    assert {spec.name: (spec.location, spec.index) for spec in specs} == places


def test_missing_sumo_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sumo", None)
    with pytest.raises(SumoError, match=r"pip install 'beyonddrive\[synth\]'"):
        sumo_home()
    with pytest.raises(SumoError, match="synth"):
        create_world(tmp_path / "new", CONFIG, SerialExecutor(), progress=False)


def test_logs_are_rows_of_whole_scenes(logs):
    assert all(len(frames) % 14 == 0 for frames in logs)


@pytest.mark.slow
def test_a_world_survives_kills(survives_kills):
    config = WorldConfig(
        splits={"test": 2},
        seed=4,
        image_size=(96, 54),
        cameras="front",
        lidar=False,
        scenes_per_town=2,
        traffic=TrafficPlan(duration=30.0),
    )
    survives_kills(lambda folder: create_world(folder, config, SerialExecutor(), progress=False))
