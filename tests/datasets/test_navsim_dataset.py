"""The data set: samples with and without a cache, in other processes, and what it says of broken data."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.engine.executors import ProcessExecutor, SerialExecutor
from beyonddrive.registry import DATASETS

FEATURES = [
    {"type": "LoadCameraStitch", "size": (32, 128)},
    {"type": "LoadLidarHistogram", "size": 32},
    {"type": "EgoStatus"},
    {"type": "PlanTarget"},
    {"type": "AgentTargets"},
    {"type": "BEVMapTarget", "shape": (32, 64), "walkways": False},
]
PACK = [{"type": "PackPlanInputs"}]


def make(world, **changes):
    settings = {
        "data_root": str(world),
        "split": "mini",
        "scene_filter": {"frame_interval": 1},
        "feature_pipeline": FEATURES,
        "pipeline": PACK,
        **changes,
    }
    return DATASETS.build({"type": "NavsimDataset", **settings})


def image_of(world, dataset, index=0):
    scene = dataset.root.load(dataset._refs[index], "mini")
    return world / "sensor_blobs" / "mini" / scene.now["cams"]["CAM_F0"]["data_path"]


def assert_equal_samples(left, right):
    assert left["inputs"].keys() == right["inputs"].keys()
    for key in left["inputs"]:
        torch.testing.assert_close(left["inputs"][key], right["inputs"][key], rtol=0, atol=0)
    assert left["data_samples"].metainfo == right["data_samples"].metainfo
    for key, value in left["data_samples"].gt.items():
        torch.testing.assert_close(value, right["data_samples"].gt.get(key), rtol=0, atol=0)


def test_samples(world):
    dataset = make(world)
    assert isinstance(dataset, NavsimDataset)
    assert len(dataset) == len(set(dataset.tokens)) == 6
    assert dataset.metainfo["split"] == "mini"
    sample = dataset[1]
    assert sample["inputs"]["camera"].shape == (3, 32, 128)
    assert sample["inputs"]["lidar"].shape == (1, 32, 32)
    assert sample["data_samples"].token == dataset.tokens[1]
    assert sample["data_samples"].log_name.endswith("straight_cutroute")
    assert sample["data_samples"].gt.bev_semantic_map.shape == (32, 64)
    features = dataset.features(1)
    assert "scene" not in features and "root" not in features


def test_scene_filter_from_a_file(world, tmp_path):
    path = tmp_path / "split.yaml"
    path.write_text("frame_interval: 1\nmax_scenes: 2\n")
    assert len(make(world, scene_filter=str(path))) == 2
    assert len(make(world, scene_filter=None)) == 3


def test_cached_samples_are_the_same(world, tmp_path):
    plain = make(world)
    report = cache_features(plain, tmp_path / "cache", SerialExecutor())
    assert report.complete and report.num_scenes == 6 and report.num_new_logs == 3
    cached = make(world, cache_dir=tmp_path / "cache")
    assert cached.tokens == plain.tokens
    for index in range(6):
        assert_equal_samples(plain[index], cached[index])


def test_cached_samples_need_no_files(world, tmp_path):
    expected = make(world)[2]
    cache_features(make(world, lazy_init=True), tmp_path / "cache", SerialExecutor())
    world.rename(tmp_path / "gone")
    assert_equal_samples(expected, make(world, cache_dir=tmp_path / "cache")[2])


def test_same_cache_whatever_the_number_of_processes(world, tmp_path):
    dataset = make(world, lazy_init=True)
    one = cache_features(dataset, tmp_path / "one", SerialExecutor())
    two = cache_features(dataset, tmp_path / "two", ProcessExecutor(2))
    assert one == two and one.complete
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("cached", [False, True])
def test_data_loader_workers(world, tmp_path, cached):
    dataset = make(world)
    if cached:
        cache_features(dataset, tmp_path / "cache", SerialExecutor())
        dataset = make(world, cache_dir=tmp_path / "cache")
    expected = [dataset[index] for index in range(2)]  # files are open when the workers start
    loader = DataLoader(
        torch.utils.data.Subset(dataset, [0, 1]),
        batch_size=1,
        num_workers=1,
        collate_fn=list,
        multiprocessing_context="fork",
    )
    for (sample,), wanted in zip(loader, expected, strict=True):
        assert_equal_samples(sample, wanted)
    assert_equal_samples(pickle.loads(pickle.dumps(dataset))[1], expected[1])  # as a spawned worker gets it


def test_negatives_pipeline_runs_after_the_cache(world, tmp_path, monkeypatch):
    dataset = make(world, pipeline=[])
    cache_features(dataset, tmp_path / "cache", SerialExecutor())
    cached = make(world, pipeline=[], cache_dir=tmp_path / "cache")
    seen = []

    def double(results):
        seen.append(results["token"])
        return {**results, "status": results["status"] * 2}

    for data in (dataset, cached):
        data.transforms = [double]
        np.testing.assert_array_equal(data[0]["status"], 2 * data.features(0)["status"])
    assert seen == [dataset.tokens[0]] * 2


def test_negatives_are_loaded_before_the_pipeline_for_the_split_of_the_data_set(world):
    step, pack = make(world, negatives={"pool": "p", "selection": {"num": 2}}).transforms
    assert isinstance(step, LoadNegatives) and isinstance(pack, PackPlanInputs)
    assert step.expected["split"] == "mini" and step.selector.num_slots == 2
    other = make(world, negatives={"pool": "p", "split": "other"}).transforms[0]
    assert other.expected["split"] == "other"
    assert len(make(world, negatives=None).transforms) == 1


# ------------------------------------------------------------------ what can be wrong
def test_negatives_that_would_be_loaded_twice(world):
    with pytest.raises(DatasetError, match=r"two LoadNegatives.* give the field negatives, or one"):
        make(world, negatives={"pool": "p"}, pipeline=[{"type": "LoadNegatives", "pool": "q"}, *PACK])


def test_missing_image_names_scene_and_file(world):
    dataset = make(world)
    path = image_of(world, dataset, 2)
    path.unlink()
    with pytest.raises(
        DatasetError, match=rf"scene {dataset.tokens[2]} of log .*{path.name}: image is missing"
    ):
        dataset[2]
    assert dataset[0]


def test_error_of_the_second_pipeline_names_the_scene(world):
    dataset = make(world, pipeline=[{"type": "PackPlanInputs", "input_keys": ["radar"]}])
    with pytest.raises(DatasetError, match=rf"scene {dataset.tokens[0]} of log .*none of the inputs"):
        dataset[0]


def test_split_without_scenes(world):
    with pytest.raises(DatasetError, match=r"split 'mini' has no scenes with scene filter .*not there"):
        make(world, scene_filter={"log_names": ["absent"]})
    for path in (world / "navsim_logs" / "mini").iterdir():
        path.write_bytes(pickle.dumps([]))
    with pytest.raises(DatasetError, match=r"navsim_logs/mini: split 'mini' has no scenes"):
        make(world)


def test_unreadable_log_is_told_and_the_rest_is_used(world):
    path = next((world / "navsim_logs" / "mini").glob("*cutroute.pkl"))
    path.write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"without those of 1 log.*\n.*cutroute\.pkl"):
        dataset = make(world)
    assert len(dataset) == 2


def test_missing_cache_names_the_command(world, tmp_path):
    with pytest.raises(
        StoreError, match=r"absent: .*no feature cache of split 'mini'.*beyonddrive cache-features"
    ):
        make(world, cache_dir=tmp_path / "absent")
    lazy = make(world, cache_dir=tmp_path / "absent", lazy_init=True)
    with pytest.raises(StoreError, match="no feature cache"):
        len(lazy)


def test_cache_made_for_something_else(world, tmp_path):
    cache_features(make(world, lazy_init=True), tmp_path / "cache", SerialExecutor())
    other = [{**FEATURES[0], "size": (16, 64)}, *FEATURES[1:]]
    for changes, complaint in (
        ({"feature_pipeline": other}, "feature_pipeline"),
        ({"scene_filter": None}, "scene_filter.frame_interval: stored 1, wanted None"),
        ({"scene_filter": {"frame_interval": 1, "tokens": ["a"]}}, "scene_filter.tokens"),
    ):
        with pytest.raises(StoreError, match=rf"made for something else: .*{complaint}"):
            make(world, cache_dir=tmp_path / "cache", **changes)
        with pytest.raises(StoreError, match=complaint):
            cache_features(make(world, lazy_init=True, **changes), tmp_path / "cache", SerialExecutor())
