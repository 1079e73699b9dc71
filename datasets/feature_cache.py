"""Feature caches: the arrays of a split, made once, read in every epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from beyonddrive.datasets.navsim_root import SceneRef
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
_SAMPLE_BYTES = 1 << 16


@dataclass
class FeatureCacheReport:
    """What a run of :func:`cache_features` did.

    Attributes:
        num_scenes: Scenes that the cache now holds.
        num_new_logs: Logs whose scenes were made in this run; the others were there.
        failures: Scene token -> why its features could not be made.
        problems: Logs that could not be read, and whatever else was passed over.
    """

    num_scenes: int = 0
    num_new_logs: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.failures and not self.problems


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


def cache_features(dataset: NavsimDataset, cache_dir: str | Path, executor: Executor) -> FeatureCacheReport:
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
    jobs = _jobs(dataset)
    paths = [path for path, _ in jobs]
    _refuse_other_shards(root, paths)
    changed = set(_changed_logs(_read_state(root).logs, paths))
    for name in changed:
        writer.path(name).unlink(missing_ok=True)
    todo = [job for job in jobs if not _is_done(writer.path(job[0].stem))]
    logs = {path.stem: _fingerprint(path) for path in paths}
    _write_state(root, _State(complete=False, logs=logs))
    report = FeatureCacheReport(num_new_logs=len(todo), problems=list(data.problems))
    results = executor.map(
        _cache_log, todo, desc=f"features of {dataset.split}", initializer=_start, initargs=(dataset, root)
    )
    for problems in results:
        report.problems += problems
    store = ShardStore(root, KIND, dataset.feature_config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    report.problems += _missing_tokens(dataset, {*store.tokens, *store.failures})
    _write_state(root, _State(complete=True, logs=logs, problems=report.problems))
    return report


# ------------------------------------------------------------------ in a worker
_Job = tuple[Path, "list[SceneRef] | None"]
_worker: tuple[NavsimDataset, ShardWriter] | None = None


def _start(dataset: NavsimDataset, root: Path) -> None:
    global _worker
    _worker = dataset, ShardWriter(root, KIND, dataset.feature_config, "")


def _cache_log(job: _Job) -> list[str]:
    """Make the shard of one log; return why there is none."""
    assert _worker is not None, "the executor did not run the initializer"
    dataset, writer = _worker
    path, refs = job
    if refs is None:
        dataset.root.problems.clear()
        refs = dataset.root.log_refs(path, dataset.scene_filter)
        if dataset.root.problems:
            return list(dataset.root.problems)
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
    writer.write(path.stem, records, failures)
    return []


# ------------------------------------------------------------------ what to do
def _jobs(dataset: NavsimDataset) -> list[_Job]:
    """Logs to read; with the scenes in them if the filter cannot be applied to one log alone."""
    data, scene_filter = dataset.root, dataset.scene_filter
    if scene_filter.max_scenes is None:
        return [(path, None) for path in data.filtered_logs(dataset.split, scene_filter)]
    by_log: dict[Path, list[SceneRef]] = {}
    for ref in data.refs(dataset.split, scene_filter):
        by_log.setdefault(ref.log_path, []).append(ref)
    return list(by_log.items())


def _is_done(shard: Path) -> bool:
    """Whether a shard is there, can be read, and lacks no scene."""
    try:
        with safe_open(shard, framework="np") as handle:
            return json.loads((handle.metadata() or {})["index"])["failures"] == {}
    except (OSError, SafetensorError, KeyError, ValueError):
        return False


def _refuse_other_shards(root: Path, paths: Sequence[Path]) -> None:
    other = {path.name.removesuffix(SUFFIX) for path in root.glob(f"*{SUFFIX}")}.difference(
        path.stem for path in paths
    )
    if other:
        raise StoreError(
            f"{root}: holds features of {len(other)} log(s) that are not in the split, such as {min(other)}; "
            f"delete the folder or use another one"
        )


def _missing_tokens(dataset: NavsimDataset, present: set[str]) -> list[str]:
    missing = set(dataset.scene_filter.tokens or ()) - present
    if not missing or dataset.scene_filter.max_scenes is not None:
        return []
    return [f"{len(missing)} tokens of the scene filter are no scene of the split, such as {min(missing)}"]


# ------------------------------------------------------------------ which logs
@dataclass
class _State:
    complete: bool = False
    logs: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _read_state(root: Path) -> _State:
    path = root / LOGS_FILE
    try:
        return _State(**json.loads(path.read_text()))
    except FileNotFoundError:
        return _State()
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {root} and make it again") from error


def _write_state(root: Path, state: _State) -> None:
    write_atomically(root / LOGS_FILE, json.dumps(vars(state), indent=1, sort_keys=True).encode())


def _changed_logs(known: Mapping[str, str], paths: Sequence[Path]) -> list[str]:
    """Names of logs that are not what is known of them."""
    return [path.stem for path in paths if known.get(path.stem) != _fingerprint(path)]


def _fingerprint(path: Path) -> str:
    """Digest of a log's size, start and end: enough to notice that it was written anew, and quick."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = blake2b(file.read(_SAMPLE_BYTES), digest_size=8)
            file.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return "unreadable"  # the reader of the log will say why
    return f"{size}-{digest.hexdigest()}"
