"""Making feature caches: the arrays of a split, one shard per log, over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.log_jobs import CacheReport, LogJob, log_jobs, missing_tokens
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores.feature_cache import KIND, LOG_NAME, CacheState, write_state
from beyonddrive.datasets.stores.fingerprints import Fingerprint, fingerprint, is_unchanged
from beyonddrive.datasets.stores.shards import SUFFIX, ShardStore, ShardWriter, StoreError
from beyonddrive.engine.executors import Executor

_LOG = "log"


def cache_features(dataset: NavsimDataset, cache_dir: str | Path, executor: Executor) -> CacheReport:
    """Make the feature cache of a data set, one shard per log; a killed run goes on where it was.

    Scenes that cannot be made are reported and do not stop the others; their logs, and logs that have
    changed, are tried again in the next run.

    Args:
        dataset: Which scenes and features; ``lazy_init=True`` spares it looking for scenes first.
        cache_dir: Folder of the cache.
        executor: Where to run.

    Raises:
        StoreError: If the folder holds something else.
        NavsimRootError: If there is no such split.
    """
    root, data = Path(cache_dir), dataset.root
    writer = ShardWriter(root, KIND, dataset.feature_config, f"{dataset.data_root}, split {dataset.split}")
    data.forget_problems()
    jobs = log_jobs(data, dataset.split, dataset.scene_filter)
    _refuse_other_shards(root, {job.path.stem for job in jobs})
    todo = [job for job in jobs if not _is_done(writer, job.path)]
    write_state(root, CacheState(complete=False))
    report = CacheReport(num_new_logs=len(todo), problems=list(data.problems))
    lost_logs = dict(data.lost_logs)
    results = executor.map(
        _cache_log, todo, desc=f"features of {dataset.split}", initializer=_start, initargs=(dataset, root)
    )
    logs: dict[str, Fingerprint] = {}
    for job, (lost, source) in zip(todo, results, strict=True):
        lost_logs |= lost
        report.problems += lost.values()
        if source is not None:
            logs[job.path.stem] = source
    store = ShardStore(root, KIND, dataset.feature_config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    report.problems += missing_tokens(dataset.scene_filter, {*store.tokens, *store.failures})
    logs |= {name: index.sources[_LOG] for name, index in store.indices.items()}
    write_state(root, CacheState(complete=True, logs=logs, lost_logs=lost_logs))
    return report


# ------------------------------------------------------------------ in a worker
_worker: tuple[NavsimDataset, ShardWriter] | None = None


def _start(dataset: NavsimDataset, root: Path) -> None:
    global _worker
    _worker = dataset, ShardWriter(root, KIND, dataset.feature_config, "")


def _cache_log(job: LogJob) -> tuple[dict[str, str], Fingerprint | None]:
    """Make the shard of one log; return its name and why there is none, and what the log was."""
    assert _worker is not None, "the executor did not run the initializer"
    dataset, writer = _worker
    path, refs = job
    shard = path.stem
    writer.path(shard).unlink(missing_ok=True)  # of the log as it was
    dataset.root.forget_problems()
    try:
        source = fingerprint(path)
    except OSError as error:
        return {shard: f"{path}: cannot be read ({error})"}, None
    if refs is None:
        refs = tuple(dataset.root.log_refs(path, dataset.scene_filter))
        if dataset.root.lost_logs:
            return dict(dataset.root.lost_logs), source
    records: dict[str, dict[str, NDArray[Any]]] = {}
    failures: dict[str, str] = {}
    for ref in refs:
        try:
            features = dataset.make_features(ref)
        except ValueError as error:
            failures[ref.token] = str(error)
            continue
        log_name = np.frombuffer(features.pop(LOG_NAME).encode(), np.uint8)
        del features["token"]
        records[ref.token] = {**features, LOG_NAME: log_name}
    writer.write(shard, records, failures, {_LOG: source})
    return {}, source


# ------------------------------------------------------------------ what to do
def _is_done(writer: ShardWriter, path: Path) -> bool:
    """Whether the shard of a log is there, can be read, lacks no scene, and is of the log as it is now."""
    index = writer.index(path.stem)
    if index is None or index.failures or _LOG not in index.sources:
        return False
    return is_unchanged(path, index.sources[_LOG])


def _refuse_other_shards(root: Path, logs: set[str]) -> None:
    if other := {path.name.removesuffix(SUFFIX) for path in root.glob(f"*{SUFFIX}")} - logs:
        raise StoreError(
            f"{root}: holds features of {len(other)} log(s) that are not in the split, such as {min(other)}; "
            f"delete the folder or use another one"
        )
