"""Making feature caches: the arrays of a split, one shard per log, over processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.log_jobs import CacheReport, LogJob, log_jobs, missing_tokens
from beyonddrive.datasets.navsim.root import doubled_scene
from beyonddrive.datasets.navsim.sensors import noting_files
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores.feature_cache import KIND, LOG_NAME, CacheState, write_state
from beyonddrive.datasets.stores.fingerprints import Fingerprint, fingerprint
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import SUFFIX, ShardIndex, ShardWriter
from beyonddrive.datasets.stores.sources import DataPlace
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import LockedError, file_lock


def cache_features(dataset: NavsimDataset, cache_dir: str | Path, executor: Executor) -> CacheReport:
    """Make the feature cache of a data set, one shard per log; a killed run goes on where it was.

    Scenes that cannot be made are reported and do not stop the others; their logs, and logs that have
    changed, are tried again in the next run.

    Args:
        dataset: Which scenes and features; ``lazy_init=True`` spares it looking for scenes first.
        cache_dir: Folder of the cache.
        executor: Where to run.

    Raises:
        StoreError: If the folder holds something else, or another job is making a cache in it.
        NavsimRootError: If there is no such split.
    """
    root = Path(cache_dir)
    try:
        with file_lock(root / ".lock", wait=False):  # a job deletes shards before it makes them anew
            return _fill(dataset, root, executor)
    except LockedError as error:
        raise StoreError(
            f"{root}: another job is making a feature cache in this folder; wait until it has ended, or use "
            "another folder"
        ) from error


def _fill(dataset: NavsimDataset, root: Path, executor: Executor) -> CacheReport:
    """Make the shards that are missing or of other files."""
    data = dataset.root
    writer = ShardWriter(root, KIND, dataset.feature_config, f"{dataset.data_root}, split {dataset.split}")
    data.forget_problems()
    place = DataPlace.of(data, dataset.split)
    jobs = log_jobs(data, dataset.split, dataset.scene_filter)
    _refuse_doubled_logs([job.path for job in jobs])
    _refuse_other_shards(root, {job.path.stem for job in jobs})
    done = {job.path: index for job in jobs if (index := _done(writer, job, place))}
    todo = [job for job in jobs if job.path not in done]
    log_of = {token: path for path, index in done.items() for token in index.tokens}
    write_state(root, CacheState(complete=False))
    report = CacheReport(num_new_logs=len(todo), problems=list(data.problems))
    lost_logs = dict(data.lost_logs)
    results = executor.map(
        _cache_log, todo, desc=f"features of {dataset.split}", initializer=_start, initargs=(dataset, root)
    )
    sources: dict[str, Fingerprint] = {}
    for job, result in zip(todo, results, strict=True):
        lost_logs |= result.lost
        report.problems += result.lost.values()
        sources |= result.sources
        for token in result.tokens:
            if (other := log_of.setdefault(token, job.path)) != job.path:
                raise StoreError(doubled_scene(token, other, job.path))
    store = ShardStore(root, KIND, dataset.feature_config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    report.problems += missing_tokens(dataset.scene_filter, {*store.tokens, *store.failures})
    for index in store.indices.values():
        sources |= index.sources
    write_state(root, CacheState(complete=True, sources=sources, lost_logs=lost_logs))
    return report


# ------------------------------------------------------------------ in a worker
class _LogResult(NamedTuple):
    """What became of a log: its name and why there is no shard, what log and maps were, and its scenes."""

    lost: dict[str, str]
    sources: dict[str, Fingerprint]
    tokens: tuple[str, ...] = ()


_worker: tuple[NavsimDataset, ShardWriter] | None = None


def _start(dataset: NavsimDataset, root: Path) -> None:
    global _worker
    _worker = dataset, ShardWriter(root, KIND, dataset.feature_config, "")


def _cache_log(job: LogJob) -> _LogResult:
    """Make the shard of one log."""
    assert _worker is not None, "the executor did not run the initializer"
    dataset, writer = _worker
    path, refs = job
    shard = path.stem
    writer.path(shard).unlink(missing_ok=True)  # of the log as it was
    dataset.root.forget_problems()
    dataset.root.read_maps.clear()
    place = DataPlace.of(dataset.root, dataset.split)
    try:
        sources = place.of_log(path)
    except OSError as error:
        return _LogResult({shard: f"{path}: cannot be read ({error})"}, {})
    if refs is None:
        refs = tuple(dataset.root.log_refs(path, dataset.scene_filter))
        if dataset.root.lost_logs:
            return _LogResult(dict(dataset.root.lost_logs), sources)
    records: dict[str, dict[str, NDArray[Any]]] = {}
    failures: dict[str, str] = {}
    for ref in refs:
        try:
            with noting_files() as files:
                features = dataset.make_features(ref)
        except ValueError as error:
            failures[ref.token] = str(error)
            continue
        if not records:  # files of all scenes would be too many to look at whenever a cache is opened
            sources |= place.of_sensors(files)
        log_name = np.frombuffer(features.pop(LOG_NAME).encode(), np.uint8)
        del features["token"]
        records[ref.token] = {**features, LOG_NAME: log_name}
    sources |= place.of_maps(dataset.root.read_maps)
    writer.write(shard, records, failures, sources, order=[ref.token for ref in refs])
    return _LogResult({}, sources, tuple(records))


# ------------------------------------------------------------------ what to do
def _done(writer: ShardWriter, job: LogJob, place: DataPlace) -> ShardIndex | None:
    """The shard of a log if it can be read, has the wanted scenes, and is of log and maps as they are.

    With ``max_scenes`` it depends on the logs before which scenes of this one are wanted.
    """
    index = writer.index(job.path.stem)
    if index is None or index.failures or place.log_name(job.path) not in index.sources:
        return None
    if job.refs is not None and {ref.token for ref in job.refs} != set(index.tokens):
        return None
    return None if place.changed(index.sources, absent=True) else index


def _refuse_doubled_logs(paths: Sequence[Path]) -> None:
    """A log under two names is found before the work; only logs of equal size need to be read for it."""
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        with suppress(OSError):  # (the worker says why a log cannot be read)
            by_size.setdefault(path.stat().st_size, []).append(path)
    for group in by_size.values():
        known: dict[str, Path] = {}
        for path in group if len(group) > 1 else []:
            try:
                digest = fingerprint(path).digest
            except OSError:
                continue
            if (other := known.setdefault(digest, path)) != path:
                raise StoreError(
                    f"{other} and {path} are one log: take one of them out of the split, or leave it out by "
                    f"log_names of the scene filter"
                )


def _refuse_other_shards(root: Path, logs: set[str]) -> None:
    if other := {path.name.removesuffix(SUFFIX) for path in root.glob(f"*{SUFFIX}")} - logs:
        raise StoreError(
            f"{root}: holds features of {len(other)} log(s) that are not in the split, such as {min(other)}: "
            f"if it was taken out of the split, delete {root / min(other)}{SUFFIX}; otherwise use another "
            f"folder; then run: {KIND.command}"
        )
