"""Metric caches of a split: made once from logs and maps, one shard per log, read by every evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from beyonddrive.datasets.navsim_root import NavsimRoot
from beyonddrive.datasets.scene_filter import SceneFilter
from beyonddrive.datasets.shards import ShardStore, ShardWriter, StoreError
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import write_atomically
from beyonddrive.evaluation.pdm import build_metric_cache
from beyonddrive.evaluation.pdm.cache import CACHE_VERSION

KIND = "metric_cache"
"""Kind of a store of metric caches."""
SOURCES_FILE = "sources.json"
"""Fingerprints of the logs and maps that the caches were made from."""
COMMAND = "python tools/cache_metrics.py CONFIG"

_SAMPLE_BYTES = 1 << 16


@dataclass
class MetricCacheReport:
    """What a run of :func:`cache_metrics` did.

    Attributes:
        num_scenes: Scenes that the store now holds.
        num_new_logs: Logs whose scenes were made in this run; the others were there.
        failures: Scene token -> why it has no metric cache.
        problems: Logs that could not be read, and whatever else was passed over.
    """

    num_scenes: int = 0
    num_new_logs: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class _LogResult(NamedTuple):
    """What a worker says of a log: its problems, or the fingerprints of what its shard was made from."""

    problems: list[str]
    sources: dict[str, str]


def cache_metrics(
    root: NavsimRoot, split: str, scene_filter: SceneFilter, cache_dir: str | Path, executor: Executor
) -> MetricCacheReport:
    """Make the metric caches of a split; a killed run goes on where it was.

    A scene that cannot be cached is recorded with the reason and does not stop the others. Logs with such
    scenes, and logs and maps that have changed, are done again by the next run.

    Args:
        root: Where logs and maps are.
        split: Name of the split.
        scene_filter: Which windows of the logs are scenes.
        cache_dir: Folder of the store.
        executor: Where to run.

    Raises:
        StoreError: If the folder holds caches of another split or filter.
        NavsimRootError: If there is no such split.
    """
    folder = Path(cache_dir)
    config = {"cache_version": CACHE_VERSION, "split": split, "scene_filter": _describe(scene_filter)}
    writer = ShardWriter(folder, KIND, config, f"{root.root}, split {split}")
    root.problems.clear()
    tokens_by_log: dict[Path, list[str]] = {}
    for ref in root.refs(split, scene_filter):
        tokens_by_log.setdefault(ref.log_path, []).append(ref.token)
    report = MetricCacheReport(problems=list(root.problems))
    sources = _read_sources(folder)
    jobs = [
        (path, tokens)
        for path, tokens in tokens_by_log.items()
        if _changed(sources, root, path.stem) or sorted(writer.tokens(path.stem)) != sorted(tokens)
    ]
    report.num_new_logs = len(jobs)
    results = executor.map(
        _cache_log, jobs, f"metric caches of {split}", _start_worker, (root, split, folder, config)
    )
    for (path, _), result in zip(jobs, results, strict=True):
        report.problems += result.problems
        sources[path.stem] = result.sources
        write_atomically(folder / SOURCES_FILE, json.dumps(sources, indent=1, sort_keys=True).encode())
    store = ShardStore(folder, KIND, config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    return report


def open_metric_caches(cache_dir: str | Path, split: str, root: NavsimRoot | None = None) -> ShardStore:
    """Open the metric caches of a split.

    Args:
        cache_dir: Folder of the store.
        split: Split that it must be of.
        root: Where logs and maps are, to notice that they have changed since; None if they are not here.

    Raises:
        StoreError: If the store is missing, of another split or version, or older than its logs and maps.
    """
    folder = Path(cache_dir)
    try:
        store = ShardStore(folder, KIND)
    except StoreError as error:
        raise StoreError(f"{error} (metric caches are made by: {COMMAND})") from error
    config = store.manifest["config"]
    wanted = {"cache_version": CACHE_VERSION, "split": split}
    wrong = [f"{key}: stored {config.get(key)!r}, wanted {value!r}" for key, value in wanted.items()
             if config.get(key) != value]  # fmt: skip
    if wrong:
        raise StoreError(
            f"{folder}: metric caches for something else: {'; '.join(wrong)}; make new: {COMMAND}"
        )
    if root is not None:
        sources = _read_sources(folder)
        stale = [name for name in sources if _changed(sources, root, name)]
        if stale:
            raise StoreError(
                f"{folder}: {len(stale)} log(s), or their maps, have changed since the metric caches were "
                f"made, the first is {stale[0]}; bring them up to date: {COMMAND}"
            )
    return store


# ------------------------------------------------------------------ in a worker
_worker: tuple[NavsimRoot, str, ShardWriter] | None = None


def _start_worker(root: NavsimRoot, split: str, folder: Path, config: Mapping[str, Any]) -> None:
    global _worker
    _worker = root, split, ShardWriter(folder, KIND, config, "")


def _cache_log(job: tuple[Path, list[str]]) -> _LogResult:
    """Make the shard of one log."""
    assert _worker is not None, "the executor did not run the initializer"
    root, split, writer = _worker
    path, tokens = job
    root.problems.clear()
    any_window = SceneFilter(frame_interval=1, has_route=False, tokens=tokens)
    records: dict[str, Any] = {}
    failures: dict[str, str] = {}
    sources = {"log": fingerprint(path)}
    for ref in root.log_refs(path, any_window):
        try:
            scene = root.load(ref, split)
            nuplan_map = root.map(scene.map_location)
            records[ref.token] = build_metric_cache(scene, nuplan_map).to_arrays()
            sources[str(nuplan_map.path.relative_to(root.maps_root))] = fingerprint(nuplan_map.path)
        except Exception as error:
            # Whatever is wrong with one scene of thousands, it is recorded and the rest goes on.
            failures[ref.token] = f"{type(error).__name__}: {error}"
    if not root.problems:
        writer.write(path.stem, records, failures)
    return _LogResult(list(root.problems), sources)


# ------------------------------------------------------------------ what has changed
def fingerprint(path: Path) -> str:
    """Digest of a file's size, start and end: enough to notice that it was written anew, and quick."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = blake2b(file.read(_SAMPLE_BYTES), digest_size=8)
            file.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return "unreadable"
    return f"{size}-{digest.hexdigest()}"


def _changed(sources: Mapping[str, Mapping[str, str]], root: NavsimRoot, log: str) -> bool:
    """Whether the log or a map under it is not what the caches were made from; gone counts as unchanged."""
    known = sources.get(log)
    if known is None:
        return True
    logs = sorted((root.root / "navsim_logs").glob(f"*/{log}.pkl"))
    files: Iterable[tuple[str, Path]] = [("log", path) for path in logs[:1]]
    maps = [(name, root.maps_root / name) for name in known if name != "log"]
    return any(path.exists() and fingerprint(path) != known[name] for name, path in [*files, *maps])


def _read_sources(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / SOURCES_FILE
    try:
        sources: dict[str, dict[str, str]] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {folder} and make it again") from error
    return sources


def _describe(scene_filter: SceneFilter) -> dict[str, Any]:
    """The filter as values fit for a manifest: long lists by count and digest."""
    values = scene_filter.to_dict()
    for key in ("log_names", "tokens"):
        if values[key] is not None:
            digest = blake2b("\n".join(sorted(values[key])).encode(), digest_size=8).hexdigest()
            values[key] = f"{len(values[key])} with digest {digest}"
    return values
