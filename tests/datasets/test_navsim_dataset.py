"""The data set: samples with and without a cache, in other processes, and what it says of broken data."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from beyonddrive.datasets import navsim_dataset as module
from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.transforms.base import BaseTransform
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.engine.executors import ProcessExecutor, SerialExecutor
from beyonddrive.engine.wrapped_datasets import tokens_of, unwrapped
from beyonddrive.registry import DATASETS, TRANSFORMS

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
    scene = dataset.root.load(dataset.data_list[index], "mini")
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
    assert dataset.get_data_info(-1) == {"token": dataset.tokens[5], "split": "mini", "sample_idx": 5}
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


class SpeedAhead(BaseTransform):
    """A target of one's own, a number that is no array."""

    is_target = True

    def transform(self, results):
        return {**results, "speed": np.float32(results["status"][4]), "moves": bool(results["status"][4] > 1)}


@pytest.mark.parametrize("cached", [False, True])
def test_numbers_that_a_feature_transform_gives_reach_the_samples(world, tmp_path, cached):
    TRANSFORMS.register_module(module=SpeedAhead)
    try:
        features = [{"type": "EgoStatus"}, {"type": "SpeedAhead"}]
        pack = [{"type": "PackPlanInputs", "target_keys": ["speed", "moves"]}]
        dataset = make(world, feature_pipeline=features, pipeline=pack)
        if cached:
            cache_features(dataset, tmp_path / "cache", SerialExecutor())
            dataset = make(world, feature_pipeline=features, pipeline=pack, cache_dir=tmp_path / "cache")
        sample = dataset[0]
        speed = sample["inputs"]["status"][4]
        assert sample["data_samples"].gt.speed.shape == () and sample["data_samples"].gt.speed == speed
        assert sample["data_samples"].gt.moves == (speed > 1)
    finally:
        TRANSFORMS.module_dict.pop("SpeedAhead")


class Leaves(BaseTransform):
    """Gives something of one's own."""

    def __init__(self, kind):
        self.kind = kind

    def transform(self, results):
        status = results["status"]
        given = {"list": status.tolist(), "tensor": torch.from_numpy(status), "tuple": tuple(status)}
        given |= {"ragged": [[1.0], [2.0, 3.0]], "string": "fast", "mapping": {"speed": 1.0}}
        return {**results, "own": given[self.kind]}


@pytest.mark.parametrize("kind", ["list", "tensor", "tuple", "ragged", "string", "mapping"])
def test_what_is_no_array_becomes_one_or_is_refused(world, kind):
    TRANSFORMS.register_module(module=Leaves)
    try:
        features = [{"type": "EgoStatus"}, {"type": "Leaves", "kind": kind}]
        dataset = make(
            world,
            feature_pipeline=features,
            pipeline=[{"type": "PackPlanInputs", "input_keys": ["status", "own"]}],
        )
        if kind in ("ragged", "string", "mapping"):
            with pytest.raises(
                DatasetError, match=f"scene {dataset.tokens[0]} .*'own', a (list|str|dict) that"
            ):
                dataset[0]
        else:
            inputs = dataset[0]["inputs"]
            assert inputs["own"].shape == (8,) and (inputs["own"] == inputs["status"]).all()
    finally:
        TRANSFORMS.module_dict.pop("Leaves")


def test_cached_samples_need_no_files(world, tmp_path):
    expected = make(world)[2]
    cache_features(make(world, lazy_init=True), tmp_path / "cache", SerialExecutor())
    world.rename(tmp_path / "gone")
    assert_equal_samples(expected, make(world, cache_dir=tmp_path / "cache")[2])


def test_a_cached_scene_is_found_in_a_log_under_another_name_than_its_frames_give(world, tmp_path):
    logs = sorted((world / "navsim_logs" / "mini").iterdir())
    logs[0].rename(logs[0].with_name("renamed.pkl"))
    small = [FEATURES[2], FEATURES[3]]
    cache_features(make(world, feature_pipeline=small), tmp_path / "cache", SerialExecutor())
    cached = make(world, feature_pipeline=small, cache_dir=str(tmp_path / "cache"))
    for index, token in enumerate(cached.tokens):
        assert cached.scene(index).token == token
    assert {cached[index]["data_samples"].log_name for index in range(len(cached))} == {p.stem for p in logs}


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
        data.pipeline.transforms = [double]
        np.testing.assert_array_equal(data[0]["status"], 2 * data.features(0)["status"])
    assert seen == [dataset.tokens[0]] * 2


def test_negatives_are_loaded_before_the_pipeline_for_the_split_of_the_data_set(world):
    step, pack = make(world, negatives={"pool": "p", "selection": {"num": 2}}).transforms
    assert isinstance(step, LoadNegatives) and isinstance(pack, PackPlanInputs)
    assert step.expected["split"] == "mini" and step.selector.num_slots == 2
    other = make(world, negatives={"pool": "p", "split": "other"}).transforms[0]
    assert other.expected["split"] == "other"
    assert len(make(world, negatives=None).transforms) == 1


# ------------------------------------------------------------------ parts of a split, and wrappers
def test_indices_choose_a_part_as_in_mmengine(world, tmp_path):
    whole = make(world)
    cache_features(whole, tmp_path / "cache", SerialExecutor())
    for cache_dir in (None, tmp_path / "cache"):
        for indices, positions in ((2, [0, 1]), (-2, [4, 5]), ([3, 0, 3], [3, 0, 3])):
            part = make(world, indices=indices, cache_dir=cache_dir)
            assert part.tokens == [whole.tokens[i] for i in positions] and part.account.is_complete
            for index, position in enumerate(positions):
                assert_equal_samples(part[index], whole[position])
                np.testing.assert_allclose(part.expert_plan(index), whole.expert_plan(position), atol=1e-6)
        subset = make(world, cache_dir=cache_dir).get_subset([5, 1])
        assert subset.tokens == [whole.tokens[5], whole.tokens[1]] and len(whole) == 6
        assert_equal_samples(subset[1], whole[1])
        for indices in (7, 0, [6], []):
            with pytest.raises(DatasetError, match=r"indices=.*that are not among its 6"):
                make(world, indices=indices, cache_dir=cache_dir)


def test_the_first_scenes_of_a_split_are_read_from_its_cache(world, tmp_path):
    cache_features(make(world), tmp_path / "cache", SerialExecutor())
    few = {"frame_interval": 1, "max_scenes": 4}
    plain, cached = make(world, scene_filter=few), make(world, scene_filter=few, cache_dir=tmp_path / "cache")
    assert cached.tokens == plain.tokens and len(cached) == 4 and cached.account.is_complete
    assert_equal_samples(plain[3], cached[3])
    log = sorted((world / "navsim_logs" / "mini").glob("*.pkl"))[0]
    log.write_bytes(log.read_bytes()[:-1])
    with pytest.raises(StoreError, match="changed since"):
        make(world, scene_filter=few, cache_dir=tmp_path / "cache")


def test_mmengines_wrappers_take_data_sets_and_their_configs(world, tmp_path):
    few = {"type": "NavsimDataset", "data_root": str(world), "split": "mini", "indices": [4, 2]}
    few |= {"feature_pipeline": FEATURES, "pipeline": PACK, "scene_filter": {"frame_interval": 1}}
    whole = make(world)
    for repeated in (few, DATASETS.build(few)):
        twice = {"type": "RepeatDataset", "dataset": repeated, "times": 2}
        settings = {"type": "ConcatDataset", "datasets": [twice, {**few, "indices": 1}]}
        with DATASETS.switch_scope_and_registry("beyonddrive") as registry:  # as a config does
            wrapped = registry.build(settings)
        tokens = [whole.tokens[i] for i in (4, 2, 4, 2, 0)]
        assert tokens_of(wrapped) == tokens and len(unwrapped(wrapped)) == 2
        assert [wrapped[i]["data_samples"].token for i in range(5)] == tokens
        assert_equal_samples(wrapped[3], whole[2])
        assert wrapped.metainfo == whole.metainfo


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


def test_unreadable_log_is_told_and_the_rest_is_used(world, monkeypatch):
    said = []
    monkeypatch.setattr(module, "print_log", lambda text, *_, **__: said.append(text))
    path = next((world / "navsim_logs" / "mini").glob("*cutroute.pkl"))
    path.write_bytes(b"broken")
    dataset = make(world)
    assert len(dataset) == 2 and not dataset.account.is_complete
    assert len(said) == 1 and "without those of 1 log(s)" in said[0] and path.name in said[0]


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
