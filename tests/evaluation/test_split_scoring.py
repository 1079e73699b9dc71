"""Scores of a split: stores of metric caches that are filled, reused and refused; logs that are broken."""

import pickle
import warnings

import numpy as np
import pytest

from beyonddrive.datasets.navsim.logs import read_log
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation import metric_caches as metric_caching
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.plan_files import PlanFile, PlanFileError, write_arrays
from beyonddrive.evaluation.split_scoring import score_split
from beyonddrive.structures.plan import PlanError


@pytest.fixture
def plans(golden_scenes):
    return {item.scene.token: item.scores["poses"][:6] for item in golden_scenes}


def expected(golden_scenes):
    return {item.scene.token: item.scores["scores"][:6] for item in golden_scenes}


def check(result, golden_scenes, tokens):
    values = expected(golden_scenes)
    assert list(result.values) == list(tokens)
    for token in tokens:
        np.testing.assert_allclose(result.values[token], values[token], rtol=0, atol=1e-6)


def no_building(scene, nuplan_map):
    raise AssertionError(f"the metric cache of {scene.token} is on disk")


def test_a_folder_of_caches_is_filled_and_used(golden_scenes, plans, split_root, tmp_path, monkeypatch):
    root = NavsimRoot(split_root)
    tokens = [item.scene.token for item in golden_scenes[:6]]
    wanted = {token: plans[token] for token in tokens}
    some = {token: plans[token] for token in tokens[:2]}
    kept = tmp_path / "caches"
    check(score_split(root, "train", some, cache_dir=kept, progress_bar=False), golden_scenes, tokens[:2])
    check(score_split(root, "train", wanted, cache_dir=kept, progress_bar=False), golden_scenes, tokens)
    monkeypatch.setattr(metric_caching, "build_metric_cache", no_building)
    check(score_split(root, "train", wanted, cache_dir=kept, progress_bar=False), golden_scenes, tokens)
    with pytest.raises(StoreError, match="split"):
        score_split(root, "val", {}, cache_dir=kept, progress_bar=False)


def test_a_scene_may_be_in_two_logs(golden_scenes, plans, split_root, tmp_path):
    root, kept = NavsimRoot(split_root), tmp_path / "caches"
    first, second = root.log_paths("train")[:2]
    first.with_name("another.pkl").write_bytes(first.read_bytes())
    tokens = [item.scene.token for item in golden_scenes[:2]]
    assert cache_metrics(root, "train", SceneFilter(), kept, SerialExecutor()).num_scenes == 6
    wanted = {token: plans[token] for token in tokens}
    check(score_split(root, "train", wanted, cache_dir=kept, progress_bar=False), golden_scenes, tokens)
    assert golden_scenes[0].scene.log_name == first.stem and golden_scenes[1].scene.log_name == second.stem


def test_logs_that_are_only_searched_leave_nothing(golden_scenes, plans, split_root, tmp_path):
    last = golden_scenes[5].scene
    wanted = {last.token: plans[last.token]}
    kept = tmp_path / "caches"
    result = score_split(NavsimRoot(split_root), "train", wanted, cache_dir=kept, progress_bar=False)
    check(result, golden_scenes, wanted)
    assert sorted(path.name for path in kept.iterdir()) == [f"{last.log_name}.safetensors", "manifest.json"]


def test_a_store_of_the_cache_tool_is_read_and_added_to(
    golden_scenes, plans, split_root, tmp_path, monkeypatch
):
    root = NavsimRoot(split_root)
    kept = tmp_path / "caches"
    assert cache_metrics(root, "train", SceneFilter(max_scenes=3), kept, SerialExecutor()).num_scenes == 3
    tokens = [item.scene.token for item in golden_scenes[:6]]
    wanted = {token: plans[token] for token in tokens}
    check(score_split(root, "train", wanted, cache_dir=kept, progress_bar=False), golden_scenes, tokens)
    assert set(MetricCaches("train", root, kept).tokens) == set(tokens)
    monkeypatch.setattr(metric_caching, "build_metric_cache", no_building)
    check(score_split(root, "train", wanted, cache_dir=kept, progress_bar=False), golden_scenes, tokens)


def test_caches_of_a_log_that_has_changed_are_made_again(golden_scenes, plans, split_root, tmp_path):
    root = NavsimRoot(split_root)
    item, other = golden_scenes[:2]
    wanted = {token: plans[token] for token in (item.scene.token, other.scene.token)}
    kept = tmp_path / "caches"
    before = score_split(root, "train", wanted, cache_dir=kept, progress_bar=False)
    old = (kept / f"{other.scene.log_name}.safetensors").stat().st_mtime_ns
    speed_up(split_root / "navsim_logs/train" / f"{item.scene.log_name}.pkl")
    with pytest.raises(StoreError, match=item.scene.log_name):
        MetricCaches("train", root, kept)
    after = score_split(NavsimRoot(split_root), "train", wanted, cache_dir=kept, progress_bar=False)
    fresh = score_split(NavsimRoot(split_root), "train", wanted, progress_bar=False)
    assert not np.array_equal(after.values[item.scene.token], before.values[item.scene.token])
    for token in wanted:
        np.testing.assert_array_equal(after.values[token], fresh.values[token])
    assert (kept / f"{other.scene.log_name}.safetensors").stat().st_mtime_ns == old
    assert len(MetricCaches("train", root, kept)) == 2


def speed_up(log):
    """Change one number in the middle of a log; its size stays."""
    size = log.stat().st_size
    frames = pickle.loads(log.read_bytes())
    frames[3]["ego_dynamic_state"][0] += 8.0
    log.write_bytes(pickle.dumps(frames, protocol=pickle.HIGHEST_PROTOCOL))
    content = log.read_bytes()
    log.write_bytes(content[:size] + b"\0" * (size - len(content)))
    assert log.stat().st_size == size


def test_a_broken_log_costs_its_own_scenes(golden_scenes, plans, split_root):
    item, other = golden_scenes[0], golden_scenes[1]
    log = split_root / "navsim_logs/train" / f"{item.scene.log_name}.pkl"
    log.write_bytes(log.read_bytes()[:5000])
    wanted = {i.scene.token: plans[i.scene.token] for i in (item, other)}
    result = score_split(NavsimRoot(split_root), "train", wanted, progress_bar=False)
    check(result, golden_scenes, [other.scene.token])
    assert log.name in result.failures[item.scene.token]
    assert len(result.problems) == 1 and log.name in result.problems[0]


def test_any_frame_with_a_whole_window_is_a_scene(split_root):
    root = NavsimRoot(split_root)
    logs = [[frame["token"] for frame in read_log(path)] for path in root.log_paths("train")]
    names = max(logs, key=len)
    assert len(names) == 17
    plans = {token: np.zeros((1, 8, 3)) for token in names}
    result = score_split(root, "train", plans, progress_bar=False)
    assert list(result.values) == names[3:7]
    assert "2 frames before" in result.failures[names[2]]
    assert "9 after it" in result.failures[names[7]]


def test_plan_files(tmp_path):
    path = tmp_path / "plans.npz"
    np.savez(path, a=np.ones((2, 8, 3)), b=np.array([{}], dtype=object))
    plans = PlanFile(path)
    assert list(plans) == ["a", "b"] and len(plans) == 2 and "c" not in plans
    np.testing.assert_array_equal(plans["a"], np.ones((2, 8, 3)))
    with pytest.raises(PlanFileError, match=r"plans of b cannot be read .*Object arrays cannot be loaded"):
        plans["b"]
    for name, damaged in (
        ("cut.npz", path.read_bytes()[:300]),
        ("empty.npz", b""),
        ("single.npz", b"\x93NUMPY not an archive"),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(PlanFileError, match=name):
            PlanFile(tmp_path / name)
    with pytest.raises(PlanFileError, match=r"nowhere\.npz: there is no such file of plans; write it with"):
        PlanFile(tmp_path / "nowhere.npz")


def test_a_plan_alone_is_one_of_one_and_what_is_no_plan_is_named(tmp_path):
    path = tmp_path / "plans.npz"
    alone = np.arange(24, dtype=np.float32).reshape(8, 3)
    several, short = np.ones((3, 8, 3)), np.zeros((5, 3))
    write_arrays(path, [("a", alone), ("b", several), ("c", short), ("d", np.full((8, 3), np.nan))])
    plans = PlanFile(path)
    assert plans["a"].shape == (1, 8, 3) and plans["a"].dtype == np.float64
    np.testing.assert_array_equal(plans.one("a"), alone)
    assert plans["b"].shape == (3, 8, 3)
    with pytest.raises(PlanFileError, match=r"plans\.npz: b: needs one plan \(8, 3\), got \(3, 8, 3\)"):
        plans.one("b")
    with pytest.raises(PlanError, match=r"plans\.npz: c: plans must have shape \(N, 8, 3\)"):
        plans["c"]
    with pytest.raises(PlanError, match=r"plans\.npz: d: 1 plan\(s\) hold NaN"):
        plans.one("d")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_costs_the_plans_of_one_scene(tmp_path, save):
    path = tmp_path / "plans.npz"
    rng = np.random.default_rng(0)
    save(path, a=rng.normal(size=(2, 8, 3)), b=np.ones((2, 8, 3)))
    content = bytearray(path.read_bytes())
    content[350] ^= 0xFF
    path.write_bytes(content)
    plans = PlanFile(path)
    with pytest.raises(PlanFileError, match="the plans of a cannot be read"):
        plans["a"]
    np.testing.assert_array_equal(plans["b"], np.ones((2, 8, 3)))


def test_plans_that_are_there_twice_are_refused(tmp_path):
    path = tmp_path / "plans.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the name
        write_arrays(path, [("a", np.zeros((1, 8, 3))), ("a", np.ones((1, 8, 3))), ("b", np.ones((1, 8, 3)))])
    plans = PlanFile(path)
    assert list(plans) == ["a", "b"] and plans["b"].shape == (1, 8, 3)
    with pytest.raises(PlanFileError, match="plans of a more than once"):
        plans["a"]


def test_written_arrays_are_whole_and_repeatable(tmp_path):
    arrays = {"file": np.arange(3.0), "allow_pickle": np.ones((1, 7))}
    for name in ("a.npz", "b.npz"):
        write_arrays(tmp_path / name, arrays.items())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == list(arrays)
        np.testing.assert_array_equal(archive["file"], arrays["file"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]

    def broken():
        yield "a", np.ones(3)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_arrays(tmp_path / "a.npz", broken())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
