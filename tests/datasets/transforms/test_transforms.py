"""Transforms: equal to the recorded inputs and targets, and to hand-made cases."""

import importlib.util

import cv2
import numpy as np
import pyogrio
import pytest
import shapely
import torch

from beyonddrive.datasets.maps.nuplan_map import MapError
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import FrameObjects, Scene
from beyonddrive.datasets.navsim.sensors import SensorError, lidar_path_of
from beyonddrive.datasets.transforms.bev_map import CENTERLINE, ROAD, WALKWAY, BEVMapTarget
from beyonddrive.datasets.transforms.camera import LoadCameraStitch, stitch
from beyonddrive.datasets.transforms.lidar import LoadLidarHistogram
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.targets import AgentTargets, EgoStatus, PlanTarget
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.se2 import to_global, to_local


@pytest.fixture(scope="module")
def recipe(golden):
    spec = importlib.util.spec_from_file_location("recipe", golden / "models" / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def features(golden):
    with np.load(golden / "navsim_features.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def results(world):
    root = NavsimRoot(world)
    scene = next(iter(root.scenes("mini")))
    return {"scene": scene, "root": root, "token": scene.token, "log_name": scene.log_name}


def objects_of(types, boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 7)
    return FrameObjects([str(i) for i in range(len(types))], list(types), boxes, np.zeros((len(types), 2)))


# ------------------------------------------------------------------ camera
def test_camera_equals_the_recorded_one(recipe, features):
    camera = stitch(*(recipe.raw_camera(name) for name in ("l0", "f0", "r0")), (256, 1024))
    assert camera.dtype == np.uint8 and camera.shape == tuple(features["shape/camera_feature"])
    scaled = camera.astype(np.float32) / 255
    np.testing.assert_array_equal(scaled[:, ::16, ::32], features["out/camera_feature[:, ::16, ::32]"])
    np.testing.assert_array_equal(recipe.probe(scaled, 256)[0], features["probe/camera_feature"])
    np.testing.assert_allclose(recipe.probe(scaled)[1], features["stat/camera_feature"], rtol=1e-9)


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(1080, 1920, 28, 416), (270, 480, 7, 104)])
def test_crop_is_the_same_share_at_every_size(height, width, rows, columns):
    # Each image counts its own columns, so the strip shows what was cut; no resizing takes place.
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(height)[:, None] % 251
    image[..., 1] = np.arange(width) % 251
    size = (height - 2 * rows, 3 * width - 4 * columns)
    strip = stitch(image, image, image, size)
    outer = np.arange(columns, width - columns) % 251
    np.testing.assert_array_equal(strip[1, 0], np.concatenate([outer, np.arange(width) % 251, outer]))
    np.testing.assert_array_equal(strip[0, :, 0], np.arange(rows, height - rows) % 251)


def test_camera_is_loaded_left_front_right_in_rgb(results, world):
    for value, name in enumerate(("CAM_L0", "CAM_F0", "CAM_R0")):
        image = np.zeros((54, 96, 3), np.uint8)
        image[..., 0] = 50 * (value + 1)  # blue as OpenCV writes it
        path = world / "sensor_blobs" / "mini" / results["scene"].now["cams"][name]["data_path"]
        cv2.imwrite(str(path.with_suffix(".png")), image)
        path.with_suffix(".png").replace(path)
    camera = LoadCameraStitch(size=(16, 64))(results)["camera"]
    assert camera.shape == (3, 16, 64) and camera.flags.c_contiguous
    assert (camera[:2] == 0).all()
    assert camera[2, 8, [2, 32, 61]].tolist() == [50, 100, 150]


def test_camera_files_that_cannot_be_used(results, world):
    path = world / "sensor_blobs" / "mini" / results["scene"].now["cams"]["CAM_R0"]["data_path"]
    cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(SensorError, match=rf"{path.name}: image is 30 x 20, but .* is 96 x 54"):
        LoadCameraStitch()(results)
    path.unlink()
    with pytest.raises(SensorError, match=rf"{path.name}: image is missing"):
        LoadCameraStitch()(results)
    with pytest.raises(ValueError, match="size must be positive"):
        LoadCameraStitch(size=(0, 5))


def test_a_rig_of_cameras_without_a_calibration_is_refused(results):
    camera = results["scene"].now["cams"]["CAM_R0"]
    camera["distortion"] = np.array([0.0, np.nan, 0.0, 0.0, 0.0])
    assert LoadCameraStitch(size=(16, 64))(dict(results))["camera"].any()  # which is not looked at here
    name = camera["data_path"].rpartition("/")[2]
    with pytest.raises(SensorError, match=f"{name}: distortion of its camera in the log is not finite"):
        LoadCameraStitch(size=(16, 64), rig=True)(dict(results))


# ------------------------------------------------------------------ lidar
def test_lidar_equals_the_recorded_one(recipe, features):
    points = recipe.raw_lidar()[:3]
    for name, ground in (("lidar_feature", False), ("lidar_feature_ground", True)):
        histogram = LoadLidarHistogram(use_ground_plane=ground).histogram(points)
        assert histogram.dtype == np.float32
        np.testing.assert_array_equal(histogram, features[f"out/{name}_x5_uint8"].astype(np.float32) / 5)


def test_lidar_cells_and_edges():
    transform = LoadLidarHistogram(extent=2, size=4, max_count=2)
    points = [  # x, y, z -> row, column
        [-2.0, -2.0, 1.0],  # the first edge belongs to the first cell
        [2.0, 2.0, 1.0],  # the last edge to the last cell
        [0.0, 0.0, 1.0],  # an inner edge to the cell after it
        [0.5, 0.5, 1.0],
        [0.9, 0.1, 99.9],  # a third point is more than 2 count
        [2.01, 0.0, 1.0],
        [0.0, np.nan, 1.0],
        [1.5, -1.5, 0.2],  # ground
        [1.5, -1.5, 100.0],  # too high
    ]
    expected = np.zeros((1, 4, 4), np.float32)
    expected[0, 0, 0] = expected[0, 3, 3] = 0.5
    expected[0, 2, 2] = 1.0
    np.testing.assert_array_equal(transform.histogram(np.array(points, np.float32).T), expected)
    assert not transform.histogram(np.zeros((3, 0), np.float32)).any()


def test_lidar_of_a_scene(results):
    lidar = LoadLidarHistogram()(results)["lidar"]
    assert lidar.shape == (1, 256, 256) and 0 < lidar.max() <= 1
    lidar_path_of(results["scene"].now, results["root"].sensor_root("mini")).unlink()
    with pytest.raises(SensorError, match=r"\.pcd: point cloud is missing"):
        LoadLidarHistogram()(results)
    with pytest.raises(ValueError, match="must be positive"):
        LoadLidarHistogram(size=0)


# ------------------------------------------------------------------ status and targets
def test_status_equals_the_recorded_one(results, features):
    results["scene"].now.update(
        driving_command=np.array([0, 1, 0, 0]), ego_dynamic_state=[5.5, 0.1, 0.3, -0.2]
    )
    status = EgoStatus()(results)["status"]
    assert status.dtype == np.float32
    np.testing.assert_array_equal(status, features["out/status_feature"])


def test_plan_target(results):
    plan = PlanTarget()(results)["trajectory"]
    assert plan.dtype == np.float32 and plan.shape == (8, 3)
    np.testing.assert_allclose(plan, results["scene"].expert_plan, atol=1e-5)


def test_agents_equal_the_recorded_ones(recipe, features):
    results = {}
    AgentTargets().add(objects_of(*recipe.raw_boxes()), results)
    np.testing.assert_array_equal(results["agent_states"], features["out/agent_states"])
    np.testing.assert_array_equal(results["agent_labels"], features["out/agent_labels"])


def test_agents_near_far_few_and_none():
    boxes = np.zeros((5, 7))
    boxes[:, :2] = [[30, 0], [0, -32], [32.01, 0], [3, 4], [1, 1]]
    boxes[:, 3:] = [4.0, 2.0, 1.5, 0.3]
    types = ["vehicle"] * 4 + ["pedestrian"]
    results = {}
    AgentTargets(num_agents=4).add(objects_of(types, boxes), results)
    assert results["agent_labels"].tolist() == [True, True, True, False]
    assert results["agent_states"][:, 0].tolist() == [3, 30, 0, 0]
    np.testing.assert_allclose(results["agent_states"][0], [3, 4, 0.3, 4, 2], rtol=1e-6)
    AgentTargets(num_agents=2).add(objects_of(types, boxes), results)
    assert results["agent_states"][:, 0].tolist() == [3, 30]
    AgentTargets().add(objects_of([], np.zeros((0, 7))), results)
    assert not results["agent_labels"].any() and results["agent_states"].shape == (30, 5)


# ------------------------------------------------------------------ bird's-eye view
def test_bev_map_equals_the_recorded_one(recipe, features):
    raw = recipe.raw_map()

    def local(name, ring):
        return [to_local(np.vstack([p, p[:1]]) if ring else p, recipe.RAW_EGO) for p in raw[name]]

    shapes = {
        ROAD: local("lane", True) + local("intersection", True),
        WALKWAY: local("walkway", True),
        CENTERLINE: local("lane_line", False) + local("connector_line", False),
    }
    bev = BEVMapTarget().draw(shapes, objects_of(*recipe.raw_boxes()))
    assert bev.dtype == np.uint8
    np.testing.assert_array_equal(bev, features["out/bev_semantic_map"])


def test_bev_map_is_ahead_and_left_is_the_larger_column():
    boxes = [[10.0, 5.0, 0, 4.0, 2.0, 1.5, 0.0], [-10.0, 0, 0, 4.0, 2.0, 1.5, 0.0]]
    bev = BEVMapTarget().draw({}, objects_of(["vehicle", "vehicle"], boxes))
    rows, columns = np.nonzero(bev)
    assert (rows.min(), rows.max()) == (32, 48) and (columns.min(), columns.max()) == (144, 152)
    assert set(bev[rows, columns]) == {5}


def test_bev_classes_cover_each_other_in_order():
    box = [4.0, 0.0, 0.0, 2.0, 2.0, 1.5, 0.0]
    types = ["pedestrian", "vehicle", "traffic_cone", "bicycle"]
    target = BEVMapTarget()
    assert target.draw({}, objects_of(types, [box] * 4))[16, 128] == 6
    assert target.draw({}, objects_of(types[1:], [box] * 3))[16, 128] == 5
    assert target.draw({}, objects_of(types[2:], [box] * 2))[16, 128] == 4
    assert target.draw({}, objects_of(["bicycle"], [box]))[16, 128] == 0  # bicycles are not drawn


def test_bev_map_of_a_scene_and_its_map(results):
    target = BEVMapTarget(walkways=False)
    bev = target(results)["bev_semantic_map"]
    assert bev.shape == (128, 256) and set(np.unique(bev)) <= {0, 1, 3, 4, 5, 6}
    assert bev[0, 128] in (1, 3)  # the ego stands on a lane
    scene = results["scene"]
    lanes = results["root"].map(scene.map_location).layer("lanes_polygons").geometries
    for row, column in ((20, 128), (60, 100), (90, 160), (100, 30)):
        point = to_global([(row + 0.5) / 4, (column + 0.5 - 128) / 4], scene.ego_pose)
        on_lane = shapely.contains_xy(lanes, *point).any()
        if bev[row, column] < 2:
            assert (bev[row, column] == 1) == on_lane
    smaller = BEVMapTarget(shape=(64, 128), pixel_size=0.5, walkways=False)(results)["bev_semantic_map"]
    assert smaller.shape == (64, 128)
    assert (smaller == bev[::2, ::2]).mean() > 0.8


def test_walkways_must_be_there_or_be_switched_off(results):
    with pytest.raises(MapError, match=r"no layer 'walkways'.*set walkways=False"):
        BEVMapTarget()(results)
    scene = results["scene"]
    path = results["root"].map(scene.map_location).path
    corners = to_global([[5.0, 5.0], [9.0, 5.0], [9.0, 9.0], [5.0, 9.0]], scene.ego_pose)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array([shapely.Polygon(corners)], dtype=object)),
        field_data=[np.array([1])],
        fields=["a"],
        geometry_type="Polygon",
        crs="EPSG:32619",
        layer="walkways",
        driver="GPKG",
        append=True,
    )
    with_walkways = BEVMapTarget()(results)["bev_semantic_map"]
    without = BEVMapTarget(walkways=False)(results)["bev_semantic_map"]
    changed = np.argwhere(with_walkways != without)
    assert len(changed) > 50 and (with_walkways[tuple(changed.T)] == 2).all()
    # 5 .. 9 m ahead and 5 .. 9 m to the left
    assert (changed.min(axis=0) >= [19, 147]).all() and (changed.max(axis=0) <= [37, 165]).all()


# ------------------------------------------------------------------ packing
def packable():
    return {
        "token": "a",
        "log_name": "b",
        "camera": np.zeros((3, 4, 5), np.uint8),
        "status": np.ones(8, np.float32),
        "trajectory": np.arange(24.0).reshape(8, 3),
        "agent_states": np.zeros((30, 5), np.float32),
        "agent_labels": np.ones(30, bool),
        "bev_semantic_map": np.full((4, 6), 6, np.uint8),
    }


def test_packing():
    packed = PackPlanInputs()(packable())
    assert set(packed) == {"inputs", "data_samples"}
    assert set(packed["inputs"]) == {"camera", "status"}
    assert packed["inputs"]["camera"].dtype == torch.uint8
    sample = packed["data_samples"]
    assert sample.metainfo == {"token": "a", "log_name": "b"}
    assert sample.gt.trajectory.dtype == torch.float32 and sample.gt.trajectory.shape == (8, 3)
    assert sample.gt.bev_semantic_map.dtype == torch.int64 and sample.gt.agent_labels.dtype == torch.bool
    assert "negatives" not in sample


def test_packing_negatives():
    results = packable()
    results.update(
        negative_plans=np.ones((2, 8, 3)),
        negative_valid=np.array([True, False]),
        negative_scores=np.ones((2, 7)),
    )
    negatives = PackPlanInputs(["status"])(results)["data_samples"].negatives
    assert negatives.plans.shape == (2, 8, 3) and negatives.plans.dtype == torch.float32
    assert negatives.valid.tolist() == [True, False] and negatives.scores.shape == (2, 7)


def test_targets_of_ones_own_are_packed_as_they_are():
    results = {**packable(), "speed": np.array([3], np.int16), "way": np.ones(2)}
    gt = PackPlanInputs(["status"], target_keys=["speed", "absent", "trajectory"])(results)["data_samples"].gt
    assert gt.speed.tolist() == [3] and gt.speed.dtype == torch.int16 and "way" not in gt
    assert gt.trajectory.dtype == torch.float32


def test_a_target_that_is_a_single_number_stays_one():
    results = {**packable(), "speed": np.float32(3.5), "lane": np.array(2), "vocabulary_id": np.array(7)}
    gt = PackPlanInputs(["status"], target_keys=["speed", "lane"])(results)["data_samples"].gt
    assert gt.speed.shape == gt.lane.shape == gt.vocabulary_id.shape == ()
    assert float(gt.speed) == 3.5 and gt.lane.dtype == torch.int64


def test_packing_nothing():
    with pytest.raises(KeyError, match="scene a: none of the inputs"):
        PackPlanInputs(["lidar"])(packable())


# ------------------------------------------------------------------ all
def test_transforms_are_found_by_name_and_give_the_same_twice(results):
    pipeline = [
        {"type": "LoadCameraStitch", "size": (64, 256)},
        {"type": "LoadLidarHistogram", "size": 64},
        {"type": "EgoStatus"},
        {"type": "PlanTarget"},
        {"type": "AgentTargets"},
        {"type": "BEVMapTarget", "walkways": False},
    ]
    first, second = dict(results), dict(results)
    scene = results["scene"]
    second["scene"] = Scene(scene.log_name, scene.split, scene.frames)
    for config in pipeline:
        transform = TRANSFORMS.build(config)
        first, second = transform(first), transform(second)
        assert type(transform).__name__ in repr(transform)
    made = [key for key in first if key not in results]
    targets = ["trajectory", "agent_states", "agent_labels", "bev_semantic_map"]
    assert made == ["camera", "lidar", "status", *targets]
    for key in made:
        np.testing.assert_array_equal(first[key], second[key])
