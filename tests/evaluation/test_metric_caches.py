"""Stores of metric caches: resumed, repaired, added to, and filled by several jobs at once."""

import threading
from pathlib import Path

import numpy as np
import pytest

import beyonddrive.evaluation.metric_caches as module
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.pdm import MetricCache
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer
from beyonddrive.evaluation.score_stream import score_scenes


@pytest.fixture
def root(split_root):
    return NavsimRoot(split_root)


@pytest.fixture
def logs(root):
    return root.log_paths("test")


@pytest.fixture
def tokens(root):
    """Tokens of the three scenes of the split, in the order of the logs."""
    return [ref.token for ref in root.refs("test")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "caches"


@pytest.fixture
def built(monkeypatch):
    """Tokens of the scenes whose metric caches are built."""
    build, tokens = module.build_metric_cache, []

    def recording(scene, nuplan_map):
        tokens.append(scene.token)
        return build(scene, nuplan_map)

    monkeypatch.setattr(module, "build_metric_cache", recording)
    return tokens


def fill(root, folder, executor=None, **changes):
    return cache_metrics(root, "test", SceneFilter(**changes), folder, executor or SerialExecutor())


def test_a_folder_of_stores_does_not_become_a_store(root, folder):
    fill(root, folder / "test")
    with pytest.raises(StoreError, match=r"holds stores, such as .*caches/test; give the one of the split"):
        MetricCaches("test", root, folder, grow=True)
    with pytest.raises(StoreError, match=r"give the one of the split, .*caches/val"):
        MetricCaches("val", root, folder, grow=True)
    assert [path.name for path in folder.iterdir()] == ["test"]
    assert len(MetricCaches("test", root, folder / "test", grow=True)) == 3


class Killed(SerialExecutor):
    def map(self, function, items, *args, **kwargs):
        for number, result in enumerate(super().map(function, items, *args, **kwargs)):
            if number == 1:
                raise KeyboardInterrupt
            yield result


def test_caching_goes_on_after_a_kill(root, folder, tokens, built):
    with pytest.raises(KeyboardInterrupt):
        fill(root, folder, Killed())
    assert built == tokens[:2]
    report = fill(root, folder)
    assert (report.num_new_logs, report.num_scenes, report.complete) == (1, 3, True)
    assert built == tokens
    assert fill(root, folder).num_new_logs == 0
    assert not list(folder.glob(".*")), "locks and partial files are gone"


def test_scenes_of_another_filter_are_added(root, folder, logs, tokens, built):
    assert fill(root, folder, max_scenes=1).num_scenes == 1
    assert fill(root, folder, max_scenes=1).num_new_logs == 0
    report = fill(root, folder, log_names=[log.stem for log in logs[:2]])
    assert (report.num_new_logs, report.num_scenes) == (2, 2)
    assert fill(root, folder).num_scenes == 3
    assert built == tokens
    report = fill(root, folder, tokens=[tokens[0], "f" * 16])
    assert report.problems == [f"1 tokens of the scene filter are no scene of the split, such as {'f' * 16}"]


def test_a_log_that_is_broken_since_is_reported_and_its_caches_are_gone(root, folder, logs, tokens):
    fill(root, folder)
    logs[1].write_bytes(logs[1].read_bytes()[:5000])
    report = fill(root, folder)
    assert len(report.problems) == 1 and logs[1].name in report.problems[0]
    assert MetricCaches("test", root, folder).tokens == [tokens[0], tokens[2]]


def test_an_edit_that_keeps_the_size_is_noticed_and_a_touch_is_not(root, folder, logs, tokens, built):
    fill(root, folder)
    logs[0].touch()
    MetricCaches("test", root, folder)
    assert fill(root, folder).num_new_logs == 0
    content = bytearray(logs[0].read_bytes())
    content[len(content) // 2] ^= 1
    logs[0].write_bytes(content)
    with pytest.raises(StoreError, match=rf"1 log\(s\).*{logs[0].stem}"):
        MetricCaches("test", root, folder)


def test_a_map_that_has_changed_is_noticed(root, folder, tokens, built, tmp_path):
    maps = tmp_path / "maps"
    for path in root.maps_root.rglob("*"):
        if path.is_file():
            copy = maps / path.relative_to(root.maps_root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    root = NavsimRoot(root.root, maps)
    fill(root, folder)
    scene = root.find("test", tokens[:1])[0][tokens[0]]
    path = root.map(scene.map_location).path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match="or their maps, have changed"):
        MetricCaches("test", root, folder)


def test_a_scene_that_cannot_be_cached_is_reported_and_tried_again(root, folder, tokens, monkeypatch):
    build, victim = module.build_metric_cache, tokens[0]

    def failing(scene, nuplan_map):
        if scene.token == victim:
            raise StoreError("no route")
        return build(scene, nuplan_map)

    monkeypatch.setattr(module, "build_metric_cache", failing)
    report = fill(root, folder)
    assert report.failures == {victim: "no route"} and report.num_scenes == 2
    scenes = [ScenePlans(token, "", np.zeros((1, 8, 3))) for token in tokens]
    results = list(score_scenes(SceneScorer("test", cache_dir=folder), scenes, 0, ""))
    assert [result.token for result in results if result.values is None] == [victim]
    monkeypatch.undo()
    report = fill(root, folder)
    assert (report.num_new_logs, report.failures, report.num_scenes) == (1, {}, 3)


def test_two_jobs_that_fill_one_empty_store_make_each_cache_once(root, folder, logs, tokens, built):
    """The second waits while the first has the log, and then finds what it wants."""
    first, second = (MetricCaches("test", NavsimRoot(root.root), folder, grow=True) for _ in range(2))
    log, token = logs[0], tokens[0]
    at_work = first.of_log(log, {token})
    assert next(at_work)[0] == token
    found = []
    thread = threading.Thread(target=lambda: found.extend(second.of_log(log, {token})))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and not found
    assert list(at_work) == []
    thread.join(30)
    assert [name for name, _ in found] == [token] and isinstance(found[0][1], MetricCache)
    assert built == [token]
    assert MetricCaches("test", root, folder).tokens == [token]


def test_jobs_that_want_other_scenes_of_a_log_keep_those_of_each_other(root, folder, built):
    log = max(root.log_paths("train"), key=lambda path: path.stat().st_size)
    wanted = [ref.token for ref in root.log_refs(log, SceneFilter(frame_interval=1))]
    assert len(wanted) > 1
    jobs = [MetricCaches("train", NavsimRoot(root.root), folder, grow=True) for _ in wanted]
    for job, token in zip(jobs, wanted, strict=True):
        assert [name for name, _ in job.of_log(log, {token})] == [token]
    assert MetricCaches("train", root, folder).tokens == wanted == built


def test_nothing_is_kept_of_a_log_that_was_left_half_way(root, folder, logs, tokens):
    caches = MetricCaches("test", root, folder, grow=True)
    half = caches.of_log(logs[0], {tokens[0]})
    next(half)
    half.close()
    assert [path.name for path in Path(folder).iterdir()] == ["manifest.json"]


def test_zeroed_bytes_fail_their_scene_and_never_become_a_score(root, folder, tokens):
    """512 zeros in a metric cache once moved a scene from 0.68 to 1.0."""
    fill(root, folder)
    path = folder / f"{MetricCaches('test', root, folder).shard_of(tokens[0])}.safetensors"
    whole = path.read_bytes()
    scenes = [ScenePlans(token, "", np.zeros((1, 8, 3))) for token in tokens]
    rng = np.random.default_rng(0)
    for start in rng.integers(2000, len(whole) - 512, 6):
        content = bytearray(whole)
        content[start : start + 512] = bytes(512)
        if content == whole:
            continue
        path.write_bytes(content)
        try:
            results = list(score_scenes(SceneScorer("test", cache_dir=folder), scenes, 0, ""))
        except StoreError as error:  # in its list of scenes
            assert f"{path.name}: is damaged" in str(error)
            continue
        failed = [result for result in results if result.values is None]
        assert [result.token for result in failed] == [tokens[0]] and "is damaged" in failed[0].reason
    # A store that grows makes a damaged shard again.
    caches = MetricCaches("test", root, folder, grow=True)
    log = next(log for log in root.log_paths("test") if log.stem == path.stem)
    assert isinstance(dict(caches.of_log(log, {tokens[0]}))[tokens[0]], MetricCache)
    assert MetricCaches("test", root, folder)[tokens[0]].token == tokens[0]


def test_a_store_of_another_version_is_refused_with_the_command(root, folder, monkeypatch):
    fill(root, folder)
    changed = f"stored {module.CACHE_VERSION}, wanted {module.CACHE_VERSION + 1}"
    monkeypatch.setattr(module, "CACHE_VERSION", module.CACHE_VERSION + 1)
    with pytest.raises(StoreError, match=rf"cache_version: {changed}.*beyonddrive cache-metrics"):
        MetricCaches("test", root, folder)


def test_what_logs_hold_is_told_alike_with_and_without_a_store(root, folder, logs, tokens):
    scenes = [(ref.token, ref.log_path.stem) for ref in root.refs("test")]
    fill(root, folder)
    digest = MetricCaches("test", root).logs_digest(scenes)
    assert digest and digest == MetricCaches("test", folder=folder).logs_digest(reversed(scenes))
    assert MetricCaches("test", root).logs_digest(scenes[:1]) not in ("", digest)
    assert MetricCaches("test", root).logs_digest([*scenes, ("a", "another")]) == ""
    assert MetricCaches("test", root).logs_digest([]) == ""
    content = bytearray(logs[0].read_bytes())
    content[len(content) // 2] ^= 1
    logs[0].write_bytes(content)
    assert MetricCaches("test", root).logs_digest(scenes) not in ("", digest)
