"""The account of a split: what is missing is named, whatever made it go missing."""

import pytest

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim.account import account_of
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.engine.executors import SerialExecutor

FEATURES = [{"type": "LoadCameraStitch", "size": (16, 64)}, {"type": "EgoStatus"}]


@pytest.fixture
def make(world):
    def make(**changes):
        return NavsimDataset(world, "mini", **{"feature_pipeline": FEATURES, **changes})

    return make


@pytest.fixture
def everything(make):
    """A filter with the tokens of all six scenes."""
    return {"frame_interval": 1, "tokens": make(scene_filter={"frame_interval": 1}).tokens}


@pytest.mark.parametrize("cached", [False, True])
def test_a_log_that_cannot_be_read_costs_its_scenes(make, world, log_path, everything, tmp_path, cached):
    path = world / "navsim_logs" / "mini" / log_path.name
    path.write_bytes(path.read_bytes()[:1000])
    settings = {"scene_filter": everything}
    if cached:
        settings["cache_dir"] = tmp_path / "cache"
        report = cache_features(make(scene_filter=everything, lazy_init=True), **_cached(settings))
        assert not report.complete
    account = make(**settings).account
    assert (account.num_found, account.num_expected, str(account)) == (2, 6, "2 of 6 scenes")
    assert set(account.lost) <= set(everything["tokens"]) and len(account.lost) == 4
    assert all(log_path.name in reason for reason in account.lost.values())


def _cached(settings):
    return {"cache_dir": settings["cache_dir"], "executor": SerialExecutor()}


def test_logs_that_are_absent_or_broken_are_named_where_no_tokens_are(make, world, log_path):
    path = world / "navsim_logs" / "mini" / log_path.name
    path.write_bytes(path.read_bytes()[:1000])
    names = [log.stem for log in path.parent.glob("*.pkl")]
    account = make(scene_filter={"log_names": [*names, "absent"]}).account
    assert set(account.lost) == {log_path.stem, "absent"} and "not there" in account.lost["absent"]
    assert str(account) == "2 scenes, without those of 2 log(s) that cannot be read"
    assert account.num_expected == 4 and not account.is_complete


def test_scenes_without_features_are_lost_to_readers(make, world, frames, everything, tmp_path):
    image = world / "sensor_blobs" / "mini" / frames[4]["cams"]["CAM_L0"]["data_path"]
    image.write_bytes(image.read_bytes()[:50])
    cache_features(make(scene_filter=everything, lazy_init=True), tmp_path / "cache", SerialExecutor())
    dataset = make(scene_filter=everything, cache_dir=tmp_path / "cache")
    assert list(dataset.lost) == [frames[4]["token"]] and image.name in dataset.lost[frames[4]["token"]]
    assert dataset.account.num_expected == 6


def test_a_whole_split_has_lost_nothing(make, everything):
    assert make(scene_filter=everything).account.is_complete
    assert make(scene_filter={"frame_interval": 1, "max_scenes": 3}).account.num_expected == 3


def test_what_a_limit_leaves_out_is_not_lost():
    scene_filter = SceneFilter(tokens=["a", "b", "c"], max_scenes=2)
    assert account_of(scene_filter, ["a", "b"], lost_logs={"log": "broken"}).is_complete
    assert list(account_of(scene_filter, ["a"], lost_logs={"log": "broken"}).lost) == ["b"]


def test_one_log_under_two_names_is_refused_before_any_work(make, world, log_path):
    copy = world / "navsim_logs" / "mini" / "zz_copy.pkl"
    copy.write_bytes(log_path.read_bytes())
    with pytest.raises(DatasetError, match=rf"is in .*{log_path.name} and in .*zz_copy\.pkl: take one"):
        make()
