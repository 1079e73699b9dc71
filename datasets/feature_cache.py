"""Feature caches: the arrays of a split, made once, read in every epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.fingerprints import Fingerprint, fingerprint, is_unchanged
from beyonddrive.datasets.log_caches import CacheReport, LogJob, log_jobs, missing_tokens
from beyonddrive.datasets.shards import MANIFEST, SUFFIX, ShardStore, ShardWriter, StoreError
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import write_atomically

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim_dataset import NavsimDataset

KIND = "features"
LOGS_FILE = "logs.json"
"""Which logs the cache was made from, and whether all of them are in it."""
COMMAND = "python tools/cache_features.py CONFIG"

_LOG_NAME = "log_name"
_LOG = "log"


class FeatureCache:
    """Reads features by scene token.

    Args:
        root: Folder of the cache.
        config: What it must have been made with: ``NavsimDataset.feature_config``.
        logs: The logs of the data set, if they are here: then it is noticed that they have changed.

    Raises:
        StoreError: If the cache is missing, unfinished, stale, or made for something else.
    """

    def __init__(self, root: Path, config: Mapping[str, Any], logs: Sequence[Path] = ()) -> None:
        self.root = Path(root)
        if not (self.root / MANIFEST).exists():
            raise StoreError(
                f"{self.root}: there is no feature cache of split {config.get('split')!r}; "
                f"make it with: {COMMAND}"
            )
        self._store = ShardStore(self.root, KIND, config)
        state = _read_state(self.root)
        if not state.complete:
            raise StoreError(f"{self.root}: the feature cache is unfinished; go on with: {COMMAND}")
        if changed := _changed_logs(state.logs, logs):
            raise StoreError(
                f"{self.root}: {len(changed)} log(s) are new or have changed since the cache was made, the "
                f"first is {changed[0]}; bring it up to date with: {COMMAND}"
            )
        self.problems = [
            *state.problems,
            *(f"scene {token} has no features: {reason}" for token, reason in self._store.failures.items()),
        ]

    @property
    def tokens(self) -> list[str]:
        """Tokens of all scenes, in the order of the logs."""
        return self._store.tokens

    def __getitem__(self, token: str) -> dict[str, Any]:
        """Return the arrays of a scene, its ``token`` and its ``log_name``."""
        record: dict[str, Any] = self._store[token]
        return {**record, "token": token, _LOG_NAME: record[_LOG_NAME].tobytes().decode()}


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
    data.problems.clear()
    jobs = log_jobs(data, dataset.split, dataset.scene_filter)
    _refuse_other_shards(root, {job.path.stem for job in jobs})
    todo = [job for job in jobs if not _is_done(writer, job.path)]
    _write_state(root, _State(complete=False))
    report = CacheReport(num_new_logs=len(todo), problems=list(data.problems))
    results = executor.map(
        _cache_log, todo, desc=f"features of {dataset.split}", initializer=_start, initargs=(dataset, root)
    )
    logs: dict[str, Fingerprint] = {}
    for job, (problems, source) in zip(todo, results, strict=True):
        report.problems += problems
        if source is not None:
            logs[job.path.stem] = source
    store = ShardStore(root, KIND, dataset.feature_config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    report.problems += missing_tokens(dataset.scene_filter, {*store.tokens, *store.failures})
    logs |= {name: index.sources[_LOG] for name, index in store.indices.items()}
    _write_state(root, _State(complete=True, logs=logs, problems=report.problems))
    return report


# ------------------------------------------------------------------ in a worker
_worker: tuple[NavsimDataset, ShardWriter] | None = None


def _start(dataset: NavsimDataset, root: Path) -> None:
    global _worker
    _worker = dataset, ShardWriter(root, KIND, dataset.feature_config, "")


def _cache_log(job: LogJob) -> tuple[list[str], Fingerprint | None]:
    """Make the shard of one log; return why there is none, and what the log was."""
    assert _worker is not None, "the executor did not run the initializer"
    dataset, writer = _worker
    path, refs = job
    shard = path.stem
    writer.path(shard).unlink(missing_ok=True)  # of the log as it was
    dataset.root.problems.clear()
    try:
        source = fingerprint(path)
    except OSError as error:
        return [f"{path}: cannot be read ({error})"], None
    if refs is None:
        refs = tuple(dataset.root.log_refs(path, dataset.scene_filter))
        if dataset.root.problems:
            return list(dataset.root.problems), source
    records: dict[str, dict[str, NDArray[Any]]] = {}
    failures: dict[str, str] = {}
    for ref in refs:
        try:
            features = dataset.make_features(ref)
        except ValueError as error:
            failures[ref.token] = str(error)
            continue
        log_name = np.frombuffer(features.pop(_LOG_NAME).encode(), np.uint8)
        del features["token"]
        records[ref.token] = {**features, _LOG_NAME: log_name}
    writer.write(shard, records, failures, {_LOG: source})
    return [], source


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


# ------------------------------------------------------------------ which logs
@dataclass
class _State:
    complete: bool = False
    logs: dict[str, Fingerprint] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _read_state(root: Path) -> _State:
    path = root / LOGS_FILE
    try:
        state = _State(**json.loads(path.read_text()))
        state.logs = {name: Fingerprint(*values) for name, values in state.logs.items()}
    except FileNotFoundError:
        return _State()
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {root} and make it again") from error
    return state


def _write_state(root: Path, state: _State) -> None:
    write_atomically(root / LOGS_FILE, json.dumps(vars(state), indent=1, sort_keys=True).encode())


def _changed_logs(known: Mapping[str, Fingerprint], paths: Sequence[Path]) -> list[str]:
    """Names of logs that are not what is known of them."""
    return [path.stem for path in paths if path.stem not in known or not is_unchanged(path, known[path.stem])]
