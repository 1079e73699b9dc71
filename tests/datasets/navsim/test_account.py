"""The account of a split: what is missing is named, whatever made it go missing."""

import pytest

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim.account import SplitAccount, places_of
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.engine.wrapped_datasets import LostScenesError, check_nothing_lost

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
    for scenes, lost in (
        ([("a", "1"), ("b", "1")], []),
        ([("a", "1")], ["b"]),
        ([("a", "1"), ("b", "3")], ["2"]),  # b may be the third scene: nobody knows
    ):
        assert list(SplitAccount.of(places_of(scene_filter, scenes, {}, {"2": "broken"})).lost) == lost


def test_lost_scenes_and_logs_have_their_places():
    scenes = [("a", "1"), ("b", "1"), ("c", "3")]
    places = places_of(
        SceneFilter(), scenes, {"a": "no image"}, {"4": "broken", "2": "absent", "0": "absent"}
    )
    assert [place.token or place.log_name for place in places] == ["0", "a", "b", "2", "c", "4"]
    assert [place.reason for place in places] == ["absent", "no image", "", "absent", "", "broken"]
    assert places_of(SceneFilter(max_scenes=3), scenes, {"a": "no image"}, {"0": "absent"}) == [
        ("", "0", "absent"),
        ("a", "1", "no image"),
        ("b", "1", ""),
    ]


@pytest.mark.parametrize("cached", [False, True])
def test_a_part_of_a_split_has_lost_what_was_lost_of_it(
    make, world, log_path, frames, everything, tmp_path, cached
):
    """Scenes 1 to 4 are of one log, which cannot be read; or the first of them cannot be made."""
    tokens = everything["tokens"]
    whole = {"scene_filter": everything}
    if cached:
        position = next(i for i, frame in enumerate(frames) if frame["token"] == tokens[1])
        image = world / "sensor_blobs" / "mini" / frames[position]["cams"]["CAM_L0"]["data_path"]
        image.write_bytes(image.read_bytes()[:50])
        whole["cache_dir"] = tmp_path / "cache"
        cache_features(make(scene_filter=everything, lazy_init=True), tmp_path / "cache", SerialExecutor())
        parts = {0: ([0], []), 1: ([0, 2], [1]), 2: ([4, 5], []), 3: ([0, 2], [1])}
    else:
        path = world / "navsim_logs" / "mini" / log_path.name
        path.write_bytes(path.read_bytes()[:1000])
        parts = {0: ([0], []), 1: ([0], [1, 2]), 2: ([5], [4]), 4: ([5], [2, 3])}
    wishes = {0: 1, 1: 3, 2: -2, 3: [2, 1, 0], 4: [5, 2, 3]}
    for name, (there, lost) in parts.items():
        wish = wishes[name]
        for part in (make(**whole, indices=wish), make(**whole).get_subset(wish)):
            assert sorted(part.tokens) == sorted(tokens[i] for i in there)
            assert set(part.lost) == {tokens[i] for i in lost}
            if lost:
                with pytest.raises(LostScenesError, match=tokens[lost[0]]):
                    check_nothing_lost(part)
            else:
                check_nothing_lost(part)
    with pytest.raises(DatasetError, match=rf"no scenes.*indices=\[1\].*{tokens[1]}"):
        make(**whole, indices=[1])
    limited = {**whole, "scene_filter": {**everything, "max_scenes": 3}}
    there, lost = parts[1]
    assert make(**limited).tokens == [tokens[i] for i in there]
    assert list(make(**limited).lost) == [tokens[i] for i in lost]


def test_one_log_under_two_names_is_refused_before_any_work(make, world, log_path):
    copy = world / "navsim_logs" / "mini" / "zz_copy.pkl"
    copy.write_bytes(log_path.read_bytes())
    with pytest.raises(DatasetError, match=rf"is in .*{log_path.name} and in .*zz_copy\.pkl: take one"):
        make()
