"""Feature caches: resume, repair, refusal of what is unfinished or out of date."""

import json
import pickle
import struct

import pytest

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores.feature_cache import LOGS_FILE
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.engine.executors import SerialExecutor

FEATURES = [{"type": "LoadCameraStitch", "size": (16, 64)}, {"type": "EgoStatus"}, {"type": "PlanTarget"}]


class KilledError(Exception):
    """Ends a run."""


class KilledExecutor(SerialExecutor):
    """Ends after so many items, as a killed job does."""

    def __init__(self, after):
        self.after = after

    def map(self, function, items, desc="", initializer=None, initargs=()):
        for number, result in enumerate(super().map(function, items, "", initializer, initargs)):
            if number == self.after:
                raise KilledError
            yield result


@pytest.fixture
def make(world):
    def make(**changes):
        settings = {"scene_filter": {"frame_interval": 1}, "feature_pipeline": FEATURES, **changes}
        return NavsimDataset(world, "mini", **settings)

    return make


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def run(make, cache, **changes):
    return cache_features(make(lazy_init=True, **changes), cache, SerialExecutor())


def test_killed_run_is_refused_and_resumed(make, cache):
    with pytest.raises(KilledError):
        cache_features(make(lazy_init=True), cache, KilledExecutor(after=1))
    with pytest.raises(StoreError, match=r"unfinished; go on with: beyonddrive cache-features"):
        make(cache_dir=cache)
    made = {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}
    assert 0 < len(made) < 3
    report = run(make, cache)
    assert report.num_new_logs == 3 - len(made) and report.num_scenes == 6 and report.complete
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert len(make(cache_dir=cache)) == 6
    assert run(make, cache).num_new_logs == 0


def test_scene_that_cannot_be_made_is_reported_and_tried_again(make, cache, world, log_path, frames):
    image = world / "sensor_blobs" / "mini" / frames[4]["cams"]["CAM_L0"]["data_path"]
    content = image.read_bytes()
    image.write_bytes(content[:50])
    report = run(make, cache)
    assert not report.complete and report.num_scenes == 5
    assert list(report.failures) == [frames[4]["token"]] and image.name in report.failures[frames[4]["token"]]
    with pytest.warns(UserWarning, match=frames[4]["token"]):
        dataset = make(cache_dir=cache)
    assert len(dataset) == 5 and frames[4]["token"] not in dataset.tokens
    image.write_bytes(content)
    report = run(make, cache)
    assert report.complete and report.num_scenes == 6 and report.num_new_logs == 1


def test_log_that_cannot_be_read_is_reported_and_tried_again(make, cache, world, log_path):
    path = world / "navsim_logs" / "mini" / log_path.name
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    report = run(make, cache)
    assert report.num_scenes == 2 and len(report.problems) == 1 and log_path.name in report.problems[0]
    with pytest.warns(UserWarning, match=log_path.name):
        assert len(make(cache_dir=cache)) == 2
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"1 log\(s\) or map\(s\) are new or have changed"):
        make(cache_dir=cache)
    report = run(make, cache)
    assert report.complete and report.num_scenes == 6 and report.num_new_logs == 1


def test_changed_log_is_noticed_and_made_again(make, cache, world, log_path, frames):
    run(make, cache)
    path = world / "navsim_logs" / "mini" / log_path.name
    # One number in place of another: the file keeps its size.
    speed = struct.pack(">d", frames[3]["ego_dynamic_state"][0])
    assert path.read_bytes().count(speed) == 1
    path.write_bytes(path.read_bytes().replace(speed, struct.pack(">d", 42.0)))
    with pytest.raises(StoreError, match=rf"have changed .*{log_path.stem}.*cache-features"):
        make(cache_dir=cache)
    assert run(make, cache).num_new_logs == 1
    dataset = make(cache_dir=cache)
    assert dataset.features(dataset.tokens.index(frames[3]["token"]))["status"][4] == 42.0


def test_new_log_is_noticed(make, cache, world, log_path):
    run(make, cache, scene_filter={"frame_interval": 1})
    extra = pickle.loads((world / "navsim_logs" / "mini" / log_path.name).read_bytes())[:5]
    for number, frame in enumerate(extra):
        frame["token"] = f"{number:016x}"
    (world / "navsim_logs" / "mini" / "new.pkl").write_bytes(pickle.dumps(extra))
    with pytest.raises(StoreError, match=r"are new or have changed .*logs/new.pkl;"):
        make(cache_dir=cache)
    assert run(make, cache).num_new_logs == 1
    assert len(make(cache_dir=cache)) == 6  # the new log is too short for a scene


def test_max_scenes_counts_over_all_logs(make, cache):
    filters = {"scene_filter": {"frame_interval": 1, "max_scenes": 3}}
    report = run(make, cache, **filters)
    assert report.num_scenes == 3 and report.num_new_logs == 2 and report.complete
    assert make(cache_dir=cache, **filters).tokens == make(**filters).tokens


def test_tokens_that_are_no_scene_are_reported(make, cache, frames):
    filters = {"scene_filter": {"frame_interval": 1, "tokens": [frames[5]["token"], "f" * 16]}}
    report = run(make, cache, **filters)
    assert report.num_scenes == 1 and "1 tokens" in report.problems[0] and "f" * 16 in report.problems[0]
    assert json.loads((cache / "manifest.json").read_text())["config"]["scene_filter"]["tokens"].startswith(
        "2 "
    )


def test_damaged_shard_is_made_again(make, cache):
    run(make, cache)
    shard = next(cache.glob("*cutroute*"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"cutroute.*damaged"):
        make(cache_dir=cache)
    assert run(make, cache).num_new_logs == 1
    assert len(make(cache_dir=cache)) == 6


def test_shards_of_other_logs_are_refused(make, cache):
    run(make, cache)
    next(cache.glob("*cutroute*")).rename(cache / "stranger.safetensors")
    with pytest.raises(StoreError, match=r"1 log\(s\) that are not in the split, such as stranger"):
        run(make, cache)


def test_damaged_state_is_refused(make, cache):
    run(make, cache)
    for text in ("{", '{"other": 1}', "[]"):
        (cache / LOGS_FILE).write_text(text)
        with pytest.raises(StoreError, match=r"logs\.json: cannot be read"):
            make(cache_dir=cache)
    (cache / LOGS_FILE).unlink()
    with pytest.raises(StoreError, match="unfinished"):
        make(cache_dir=cache)
