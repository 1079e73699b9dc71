"""Feature caches: resume, repair, refusal of what is unfinished or out of date."""

import errno
import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.datasets.stores.feature_cache import KIND, LOGS_FILE
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.negative_pool import open_writer
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.transforms.targets import PlanTarget
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.engine.files import file_lock
from beyonddrive.tests.datasets.small_pools import describe

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


def test_two_jobs_do_not_make_one_cache(make, cache):
    with file_lock(cache / ".lock"), pytest.raises(StoreError, match=r"cache: another job is making a feat"):
        run(make, cache)
    assert run(make, cache).complete and not list(cache.glob(".*"))


def test_scene_that_cannot_be_made_is_reported_and_tried_again(make, cache, world, log_path, frames):
    image = world / "sensor_blobs" / "mini" / frames[4]["cams"]["CAM_L0"]["data_path"]
    content = image.read_bytes()
    image.write_bytes(content[:50])
    report = run(make, cache)
    assert not report.complete and report.num_scenes == 5
    assert list(report.failures) == [frames[4]["token"]] and image.name in report.failures[frames[4]["token"]]
    dataset = make(cache_dir=cache)
    assert list(dataset.lost) == [frames[4]["token"]]
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
    dataset = make(cache_dir=cache)
    assert len(dataset) == 2 and log_path.name in dataset.lost[log_path.stem]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"1 source file\(s\) are new or have changed"):
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


def test_which_scenes_of_a_log_are_wanted_depends_on_the_logs_before_it(make, cache, world):
    filters = {"scene_filter": {"frame_interval": 1, "max_scenes": 3}}
    run(make, cache, **filters)
    first = min((world / "navsim_logs/mini").glob("*.pkl"))
    more = pickle.loads(first.read_bytes())
    for number, frame in enumerate(more):
        frame["token"] = f"{number:016x}"
    (world / "navsim_logs/mini/0.pkl").write_bytes(pickle.dumps(more))
    for _ in range(2):
        assert run(make, cache, **filters).num_scenes == 3
        assert make(cache_dir=cache, **filters).tokens == make(**filters).tokens
        (world / "navsim_logs/mini/0.pkl").unlink(missing_ok=True)
        (cache / "0.safetensors").unlink(missing_ok=True)


def test_tokens_that_are_no_scene_are_reported(make, cache, frames):
    filters = {"scene_filter": {"frame_interval": 1, "tokens": [frames[5]["token"], "f" * 16]}}
    report = run(make, cache, **filters)
    assert report.num_scenes == 1 and "1 tokens" in report.problems[0] and "f" * 16 in report.problems[0]
    assert json.loads((cache / "manifest.json").read_text())["config"]["scene_filter"]["tokens"].startswith(
        "2 "
    )


def test_a_scene_that_is_damaged_in_the_cache_is_one_that_cannot_be_read(make, cache):
    """As an evaluation, which goes on without it, wants to hear of it."""
    run(make, cache)
    dataset = make(cache_dir=cache)
    shard = next(cache.glob("*cutroute*"))
    content = bytearray(shard.read_bytes())
    status = dataset.features(1)["status"].tobytes()
    content[content.index(status)] ^= 1
    shard.write_bytes(bytes(content))
    dataset = make(cache_dir=cache)
    (token,) = dataset.tokens[1:2]
    for read in (dataset.features, dataset.expert_plan, dataset.__getitem__):
        with pytest.raises(DatasetError, match=rf"split mini: scene {token}: .*cutroute.*cache-features"):
            read(1)
    assert dataset.features(0)["token"] == dataset.tokens[0]


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


MAP_FEATURES = [{"type": "PlanTarget"}, {"type": "BEVMapTarget", "shape": (16, 32), "walkways": False}]


def test_a_cache_is_of_its_logs_and_maps_wherever_they_lie(make, cache, world, tmp_path):
    """On a disk of another name, copied, which gives files new times."""
    assert run(make, cache, feature_pipeline=MAP_FEATURES).complete
    moved = tmp_path / "openscene"
    shutil.copytree(world, moved, copy_function=shutil.copyfile)
    settings = {"scene_filter": {"frame_interval": 1}, "feature_pipeline": MAP_FEATURES}
    assert len(NavsimDataset(moved, "mini", cache_dir=cache, **settings)) == 6
    report = cache_features(NavsimDataset(moved, "mini", lazy_init=True, **settings), cache, SerialExecutor())
    assert report.num_new_logs == 0


@pytest.mark.parametrize("name", ["map.gpkg", "nuplan-maps-v1.0.json"])
def test_a_changed_map_is_noticed_by_features_that_are_of_it(make, cache, world, tmp_path, name):
    run(make, cache, feature_pipeline=MAP_FEATURES)
    run(make, tmp_path / "blind")
    for path in (world / "maps").rglob(name):
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=rf"have changed .* maps/.*{name}; .*beyonddrive cache-features"):
        make(cache_dir=cache, feature_pipeline=MAP_FEATURES)
    assert run(make, cache, feature_pipeline=MAP_FEATURES).num_new_logs == 3
    assert len(make(cache_dir=tmp_path / "blind")) == 6, "features of no map do not mind"


def test_features_of_another_version_of_a_transform_are_refused(make, cache, monkeypatch):
    run(make, cache)
    monkeypatch.setattr(PlanTarget, "version", PlanTarget.version + 1)
    message = r"config\.versions\.PlanTarget: stored 1, wanted 2.*make it again: beyonddrive cache-features"
    with pytest.raises(StoreError, match=message):
        make(cache_dir=cache)
    with pytest.raises(StoreError, match=message):
        run(make, cache)


def test_zeroed_bytes_are_an_error_of_their_scene(make, cache):
    run(make, cache)
    path = max(cache.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 512] = bytes(512)
    path.write_bytes(content)
    dataset, failed = make(cache_dir=cache), 0
    for index in range(6):
        try:
            dataset[index]
        except DatasetError as error:
            failed += 1
            assert f"split mini: scene {dataset.tokens[index]}: " in str(error)
            assert f"{path.name}: is damaged" in str(error) and "beyonddrive cache-features" in str(error)
    assert failed in (1, 2)
    path.unlink()
    assert run(make, cache).num_new_logs == 1


def test_one_log_under_two_names_is_refused_as_soon_as_it_is_met(make, cache, world, log_path):
    """And the remedy that is named leads out of it."""
    copy = world / "navsim_logs" / "mini" / f"{log_path.stem}-copy.pkl"
    copy.write_bytes(log_path.read_bytes())
    with pytest.raises(DatasetError, match=rf"-copy\.pkl and in .*{log_path.name}: take one of these logs"):
        make()
    with pytest.raises(StoreError, match=rf"{copy.name} and .*{log_path.name} are one log: take one of them"):
        run(make, cache)
    assert not list(cache.glob("*.safetensors")), "before any work"
    # The same scenes in files that differ are met when the second is done.
    copy.write_bytes(pickle.dumps(pickle.loads(log_path.read_bytes()), protocol=5))
    with pytest.raises(StoreError, match=rf"{log_path.stem}.*: take one of these logs out of the split"):
        run(make, cache)
    copy.unlink()
    with pytest.raises(StoreError, match=rf"delete .*{copy.stem}\.safetensors;"):
        run(make, cache)
    (cache / f"{copy.stem}.safetensors").unlink()
    assert run(make, cache).complete and len(make(cache_dir=cache)) == 6


def test_a_full_disk_names_the_shard_and_loses_nothing(make, cache, monkeypatch):
    """It fills while the second shard is written; the job goes on when there is room again."""
    replace, count = Path.replace, iter(range(100))

    def full(self, target):
        if Path(target).suffix == ".safetensors" and next(count) == 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*cache/[^.].*\.safetensors'"):
        run(make, cache)
    assert len(list(cache.glob("*.safetensors"))) == 1 and not list(cache.glob(".*"))
    report = run(make, cache)
    assert report.complete and report.num_new_logs == 2


def test_a_shard_that_is_gone_is_noticed(make, cache):
    run(make, cache)
    next(cache.glob("*cutroute*")).unlink()
    message = r"1 shard\(s\) of the feature cache are gone, .*cutroute.*\.safetensors; .*cache-features"
    with pytest.raises(StoreError, match=message):
        make(cache_dir=cache)
    assert run(make, cache).num_new_logs == 1
    assert len(make(cache_dir=cache)) == 6


def test_a_shard_of_another_cache_is_refused(make, cache, tmp_path):
    """Of other settings, or of the same ones and other data."""
    run(make, cache)
    run(make, tmp_path / "other", scene_filter={"frame_interval": 2})
    shard = next(cache.glob("*cutroute*"))
    content = shard.read_bytes()
    shutil.copy(tmp_path / "other" / shard.name, shard)
    with pytest.raises(StoreError, match=rf"{shard.name}: .*of another split or of other settings"):
        make(cache_dir=cache)
    shard.write_bytes(content)
    writer = ShardWriter(cache, KIND, make().feature_config, "")
    index = writer.index(shard.stem)
    sources = {name: known._replace(digest="0" * 32) for name, known in index.sources.items()}
    writer.write(shard.stem, writer.read(shard.stem, index.tokens), sources=sources)
    with pytest.raises(StoreError, match=rf"{shard.name}: is not of the files .*cache-features"):
        make(cache_dir=cache)
    shard.rename(cache / "stranger.safetensors")
    (tmp_path / "shard").write_bytes(content)
    shutil.copy(tmp_path / "shard", shard)
    writer.write("stranger", {})
    with pytest.raises(StoreError, match=r"stranger\.safetensors: is not of the files .*cache-features"):
        make(cache_dir=cache)


def test_more_scenes_than_the_filter_lists_are_refused(make, cache, frames):
    filters = {"scene_filter": {"frame_interval": 1, "tokens": [frames[3]["token"], frames[4]["token"]]}}
    run(make, cache, **filters)
    dataset = make(cache_dir=cache, **filters)
    assert len(dataset) == 2
    writer = ShardWriter(cache, KIND, dataset.feature_config, "")
    [shard] = [path.stem for path in cache.glob("*.safetensors") if writer.index(path.stem).tokens]
    records = writer.read(shard, dataset.tokens)
    records["f" * 16] = records[dataset.tokens[0]]
    writer.write(shard, records, sources=writer.index(shard).sources)
    with pytest.raises(StoreError, match=r"1 scene\(s\) that the scene filter does not list, such as ffff"):
        make(cache_dir=cache, **filters)


def test_changed_logs_of_the_first_scenes_are_noticed(make, cache, world):
    filters = {"scene_filter": {"frame_interval": 1, "max_scenes": 3}}
    run(make, cache, **filters)
    name = min(cache.glob("*.safetensors")).stem + ".pkl"
    path = world / "navsim_logs" / "mini" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=rf"1 source.*changed .*logs/{name}; .*cache-features"):
        make(cache_dir=cache, **filters)
    assert run(make, cache, **filters).num_new_logs == 1
    assert len(make(cache_dir=cache, **filters)) == 3


def test_other_images_are_noticed_by_features_that_are_of_them(make, cache, world, tmp_path):
    run(make, cache)
    run(make, tmp_path / "blind", feature_pipeline=MAP_FEATURES)
    images = sorted((world / "sensor_blobs").rglob("*.jpg"))
    for path in images:
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=r"have changed .* sensors/.*\.jpg; .*beyonddrive cache-features"):
        make(cache_dir=cache)
    assert len(make(cache_dir=tmp_path / "blind", feature_pipeline=MAP_FEATURES)) == 6
    assert run(make, cache).num_new_logs == 3
    for path in images:
        path.unlink()
    assert len(make(cache_dir=cache)) == 6, "what is not here is taken to be as it was"
    assert run(make, cache).num_new_logs == 0


def test_a_pool_of_other_logs_is_noticed_where_there_is_a_cache_and_no_logs(make, cache, world, tmp_path):
    """A machine that trains needs neither logs nor maps, and takes no pool for one of its scenes' logs."""
    run(make, cache)
    sources = make().sources
    first = min(sources)
    other = {**sources, first: sources[first]._replace(digest="0" * 32)}
    for name, given in (("same", sources), ("other", other)):
        open_writer(tmp_path / name, describe(split="mini", num_scenes=0), "a test", given)
    shutil.rmtree(world / "navsim_logs")
    assert len(make(cache_dir=cache, negatives={"pool": str(tmp_path / "same")})) == 6
    with pytest.raises(
        StoreError, match=rf"other: 1 log\(s\) or map\(s\) of the data .*{first}.*mine it again"
    ):
        make(cache_dir=cache, negatives={"pool": str(tmp_path / "other")})


def test_a_log_that_is_a_link_to_nowhere_does_not_stop_the_others(world, make, cache, tmp_path):
    whole = run(make, cache).num_scenes
    (world / "navsim_logs/mini/0.pkl").symlink_to(tmp_path / "gone.pkl")
    report = run(make, tmp_path / "other")
    assert (
        report.num_scenes == whole and len(report.problems) == 1 and "0.pkl: cannot be" in report.problems[0]
    )
