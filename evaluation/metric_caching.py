"""Making metric caches: those of the scenes of a filter, one shard per log, over processes."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from beyonddrive.datasets.navsim.log_jobs import CacheReport, LogJob, log_jobs, missing_tokens
from beyonddrive.datasets.navsim.logs import LogError
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.stores.sources import DataPlace
from beyonddrive.engine.executors import Executor
from beyonddrive.evaluation.metric_caches import MetricCaches, is_fresh, open_store


def cache_metrics(
    root: NavsimRoot, split: str, scene_filter: SceneFilter, cache_dir: str | Path, executor: Executor
) -> CacheReport:
    """Put the scenes of a filter into a store of metric caches; a killed run goes on where it was.

    A scene that cannot be cached is recorded with the reason and does not stop the others. Logs with such
    scenes, and logs and maps that have changed, are done again by the next run.

    Args:
        root: Where logs and maps are.
        split: Name of the split.
        scene_filter: Which windows of the logs are scenes.
        cache_dir: Folder of the store.
        executor: Where to run.

    Raises:
        StoreError: If the folder holds caches of another split or version.
        NavsimRootError: If there is no such split.
    """
    folder = Path(cache_dir)
    root.forget_problems()
    jobs = log_jobs(root, split, scene_filter)
    caches = MetricCaches(split, root, folder, grow=True)
    assert caches.writer is not None
    place = DataPlace.of(root, split)
    mark = f"filter {blake2b(json.dumps(scene_filter.describe()).encode(), digest_size=8).hexdigest()}"
    todo = [job for job in jobs if not _is_done(caches.writer, place, job, mark)]
    report = CacheReport(num_new_logs=len(todo), problems=list(root.problems))
    args = (caches, scene_filter, mark)
    for problems in executor.map(_cache_log, todo, f"metric caches of {split}", _start_worker, args):
        report.problems += problems
    store = open_store(folder, split)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    report.problems += missing_tokens(scene_filter, {*store.tokens, *store.failures})
    return report


# ------------------------------------------------------------------ in a worker
_worker: tuple[MetricCaches, SceneFilter, str] | None = None


def _start_worker(*args: Any) -> None:
    global _worker
    _worker = args


def _cache_log(job: LogJob) -> list[str]:
    """Make what the shard of one log lacks; return what is wrong with the log."""
    assert _worker is not None, "the executor did not run the initializer"
    caches, scene_filter, mark = _worker
    assert caches.root is not None and caches.writer is not None
    path, refs = job
    caches.root.forget_problems()
    if refs is None:
        refs = tuple(caches.root.log_refs(path, scene_filter))
    try:
        for _ in caches.of_log(path, {ref.token for ref in refs}, mark):
            pass  # kept on disk
    except LogError as error:
        return [str(error)]
    return list(caches.root.problems)


def _is_done(writer: ShardWriter, place: DataPlace, job: LogJob, mark: str) -> bool:
    """Whether the shard of a log lacks no scene of the job."""
    index = writer.index(job.path.stem)
    if index is None or index.failures or not is_fresh(index, place, job.path.stem):
        return False
    if job.refs is None:
        return mark in index.marks
    return {ref.token for ref in job.refs} <= set(index.tokens)
