"""Points of a sweep: which are kept, their order, and files that cannot be used."""

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.sensors import SensorError, lidar_path_of, read_pcd, write_pcd
from beyonddrive.datasets.stores.manifests import StoreKind
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.points import LoadPoints
from beyonddrive.registry import TRANSFORMS


@pytest.fixture
def results(world):
    root = NavsimRoot(world)
    scene = next(iter(root.scenes("mini")))
    return {"scene": scene, "root": root, "token": scene.token, "log_name": scene.log_name}


def _path(results):
    return lidar_path_of(results["scene"].now, results["root"].sensor_root("mini"))


def _sorted(points):
    return points[np.lexsort(points.T)]


def test_points_in_range_and_only_those():
    transform = LoadPoints(point_range=(-2, -2, -1, 2, 2, 1), intensity_scale=10)
    points = [  # x, y, z, intensity
        [-2.0, -2.0, -1.0, 5.0],  # lower bounds belong to the range
        [2.0, 0.0, 0.0, 5.0],  # upper ones do not
        [0.0, 2.0, 0.0, 5.0],
        [0.0, 0.0, 1.0, 5.0],
        [1.9, -1.9, 0.9, 20.0],
        [np.nan, 0.0, 0.0, 5.0],
        [0.0, 0.0, -np.inf, 5.0],
    ]
    chosen = transform.select(np.array(points, np.float32).T, "a")
    assert chosen.dtype == np.float32 and chosen.flags.c_contiguous
    np.testing.assert_allclose(_sorted(chosen), [[-2.0, -2.0, -1.0, 0.5], [1.9, -1.9, 0.9, 2.0]])
    assert transform.select(np.zeros((4, 0), np.float32), "a").shape == (0, 4)


def test_order_follows_from_token_and_seed():
    points = np.zeros((4, 500), np.float32)
    points[3] = np.arange(500)
    order = LoadPoints(intensity_scale=1).select(points, "a")[:, 3]
    assert sorted(order) == list(range(500)) and (np.diff(order) < 0).sum() > 150  # shuffled, nothing lost
    np.testing.assert_array_equal(LoadPoints(intensity_scale=1).select(points, "a")[:, 3], order)
    assert (LoadPoints(intensity_scale=1).select(points, "b")[:, 3] != order).any()
    assert (LoadPoints(intensity_scale=1, seed=1).select(points, "a")[:, 3] != order).any()
    fewer = LoadPoints(intensity_scale=1, max_points=100).select(points, "a")[:, 3]
    np.testing.assert_array_equal(fewer, order[:100])
    # A cap keeps points of all parts of the sweep.
    assert np.histogram(fewer, 5, (0, 500))[0].min() > 8


def test_points_of_a_scene(results):
    rows = read_pcd(_path(results))
    points = TRANSFORMS.build({"type": "LoadPoints"})(results)["points"]
    inside = (np.abs(rows[:2]) < 32).all(axis=0) & (rows[2] >= -2) & (rows[2] < 6)
    expected = rows[:4, inside].T / np.array([1, 1, 1, 255], np.float32)
    assert 0 < len(expected) < rows.shape[1]
    np.testing.assert_array_equal(_sorted(points), _sorted(expected.astype(np.float32)))
    packed = PackPlanInputs()({"token": "a", "points": points, "status": np.zeros(8, np.float32)})
    assert packed["inputs"]["points"].shape == points.shape and set(packed["inputs"]) == {"points", "status"}


def test_input_is_not_changed():
    points = np.ones((4, 3), np.float32)
    LoadPoints().select(points, "a")
    assert (points == 1).all()


def test_sweeps_that_cannot_be_used(results):
    path = _path(results)
    rows = np.zeros((6, 2), np.float32)
    write_pcd(path, rows)
    content = path.read_bytes()
    path.write_bytes(content[:-6] + np.float32(np.nan).tobytes() + content[-2:])
    with pytest.raises(SensorError, match=rf"{path.name}: an intensity is NaN"):
        LoadPoints()(results)
    path.unlink()
    with pytest.raises(SensorError, match=r"\.pcd: point cloud is missing"):
        LoadPoints()(results)


@pytest.mark.parametrize("settings", [{"point_range": (0, 0, 0, 1, 1)}, {"point_range": (0, 0, 0, 1, 1, 0)}])
def test_ranges_that_hold_nothing(settings):
    with pytest.raises(ValueError, match="three lower and three larger upper bounds"):
        LoadPoints(**settings)


@pytest.mark.parametrize("settings", [{"max_points": 0}, {"intensity_scale": 0.0}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="must be positive"):
        LoadPoints(**settings)


def test_a_store_keeps_clouds_of_any_length(tmp_path):
    clouds = {name: np.ones((size, 4), np.float32) for name, size in (("a", 5), ("b", 0), ("c", 2))}
    records = {name: {"points": cloud} for name, cloud in clouds.items()}
    ShardWriter(tmp_path, StoreKind("features", "make"), {}, "a test").write("log", records)
    store = ShardStore(tmp_path, StoreKind("features", "make"), {})
    assert {name: store[name]["points"].shape for name in clouds} == {"a": (5, 4), "b": (0, 4), "c": (2, 4)}
