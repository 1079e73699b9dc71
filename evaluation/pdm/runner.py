"""Scores of many scenes: plans by token in, scores by token out, over processes, with metric caches kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from beyonddrive.datasets.logs import Frame, LogError, read_log
from beyonddrive.datasets.navsim_root import NavsimRoot
from beyonddrive.datasets.scene import FUTURE, HISTORY, Scene, SceneError
from beyonddrive.datasets.shards import MANIFEST, ShardStore, ShardWriter, StoreError, read_manifest
from beyonddrive.engine.executors import Executor, SerialExecutor
from beyonddrive.evaluation.metric_caching import KIND, fingerprint, open_metric_caches
from beyonddrive.evaluation.pdm.build import build_metric_cache
from beyonddrive.evaluation.pdm.cache import CACHE_VERSION, MetricCache
from beyonddrive.evaluation.pdm.scorer import Progress, score
from beyonddrive.structures.plan import check_plans

TOKENS_PER_JOB = 32
"""Scenes whose metric caches are there that a worker scores at a time."""
_SOURCE = "source"


@dataclass(frozen=True)
class SplitScores:
    """Scores of a split.

    Attributes:
        values: Token -> (N, 7) float64 in the order of
            :data:`beyonddrive.structures.plan.SCORE_COLUMNS`, in the order of the plans.
        failures: Token -> why it has no scores.
        problems: What else was passed over: logs that cannot be read.
    """

    values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def score_split(
    root: NavsimRoot,
    split: str,
    plans: Mapping[str, ArrayLike],
    progress: Progress = "pair",
    executor: Executor | None = None,
    cache_dir: Path | None = None,
    progress_bar: bool = True,
) -> SplitScores:
    """Score plans of many scenes of a split.

    A scene that cannot be scored does not stop the others. Logs are read one at a time per worker and only
    until every token is found.

    Args:
        root: Where logs and maps are.
        split: Name of the split.
        plans: Token of a scene -> (N, 8, 3). The token is that of any frame with 3 frames before and 10 after
            it in its log. Sent to every worker, so use :class:`beyonddrive.evaluation.pdm.plan_file.PlanFile`
            for many plans.
        progress: See :func:`beyonddrive.evaluation.pdm.scorer.score`.
        executor: Where to run; None is this process.
        cache_dir: Folder that metric caches are kept in. A store of ``tools/cache_metrics.py`` is read and
            left as it is; any other folder is filled as scenes are asked for.
        progress_bar: Whether to show progress, rate and time left.

    Raises:
        NavsimRootError: If there is no such split.
        StoreError: If ``cache_dir`` holds something else, or caches of another split or version.
    """
    executor = executor or SerialExecutor()
    logs = root.log_paths(split)
    caches = _Caches.open(Path(cache_dir), split, root) if cache_dir is not None else None
    known = [token for token in plans if caches is not None and token in caches]
    result = SplitScores()
    worker = (root, split, plans, progress, caches)
    missing = set(plans).difference(known)
    with tqdm(total=len(plans), unit="scene", disable=not progress_bar, dynamic_ncols=True) as bar:
        jobs = [known[i : i + TOKENS_PER_JOB] for i in range(0, len(known), TOKENS_PER_JOB)]
        for part in executor.map(_score_known, jobs, "", _start_worker, worker):
            _merge(result, part, bar)
        if missing:
            _search(result, executor.map(_score_log, logs, "", _start_worker, worker), set(missing), bar)
    reason = f"no frame of split {split} in {root.root} has this token"
    if result.problems:
        reason += f"; it may be in a log that cannot be read: {result.problems[0]}"
    for token in missing:
        if token not in result.values:
            result.failures.setdefault(token, reason)
    return SplitScores(
        {token: result.values[token] for token in plans if token in result.values},
        {token: result.failures[token] for token in plans if token in result.failures},
        result.problems,
    )


def _search(result: SplitScores, found: Iterator[SplitScores], open_tokens: set[str], bar: tqdm[Any]) -> None:
    """Collect results of logs until every token has scores or a reason of its own."""
    for part in found:
        _merge(result, part, bar)
        open_tokens.difference_update(part.values)
        # A window that is cut off in one log may be whole in another one.
        if not open_tokens:
            break
    close = getattr(found, "close", None)
    if close is not None:
        close()


def _merge(result: SplitScores, part: SplitScores, bar: tqdm[Any]) -> None:
    for token, values in part.values.items():
        if token not in result.values:
            result.values[token] = values
            result.failures.pop(token, None)
            bar.update()
    for token, reason in part.failures.items():
        if token not in result.values:
            result.failures.setdefault(token, reason)
    result.problems.extend(part.problems)


# ------------------------------------------------------------------ metric caches
@dataclass
class _Caches:
    """Metric caches on disk, and whether new ones may be added."""

    store: ShardStore
    writer: ShardWriter | None

    def __contains__(self, token: object) -> bool:
        return token in self.store

    @classmethod
    def open(cls, folder: Path, split: str, root: NavsimRoot) -> _Caches:
        config = {"cache_version": CACHE_VERSION, "split": split, "scenes": "as asked for"}
        if (folder / MANIFEST).exists() and "scene_filter" in (read_manifest(folder)["config"] or {}):
            return cls(open_metric_caches(folder, split, root), None)
        writer = ShardWriter(folder, KIND, config, f"{root.root}, split {split}")
        return cls(ShardStore(folder, KIND, config), writer)

    def load(self, token: str, root: NavsimRoot, split: str) -> MetricCache:
        arrays = self.store[token]
        cache = MetricCache.from_arrays(arrays)
        log = root.root / "navsim_logs" / split / f"{cache.log_name}.pkl"
        if _SOURCE in arrays and log.exists() and arrays[_SOURCE].tobytes().decode() != _source(log):
            raise StoreError(
                f"the metric cache in {self.store.root} is not of {log} as it is now; delete that folder, "
                f"it will be filled again"
            )
        return cache

    def save(self, log: Path, caches: Mapping[str, MetricCache]) -> None:
        if self.writer is None or not caches:
            return
        source = np.frombuffer(_source(log).encode(), dtype=np.uint8)
        records = {token: {**cache.to_arrays(), _SOURCE: source} for token, cache in caches.items()}
        digest = blake2b("\n".join(sorted(caches)).encode(), digest_size=6).hexdigest()
        self.writer.write(f"{log.stem}-{digest}", records)


_SOURCES: dict[tuple[Path, int], str] = {}


def _source(log: Path) -> str:
    """Fingerprint of a log, read once while the file stays as it is."""
    key = (log, log.stat().st_mtime_ns)
    if key not in _SOURCES:
        _SOURCES[key] = fingerprint(log)
    return _SOURCES[key]


# ------------------------------------------------------------------ in a worker
class _Worker(NamedTuple):
    root: NavsimRoot
    split: str
    plans: Mapping[str, ArrayLike]
    progress: Progress
    caches: _Caches | None


_worker: _Worker | None = None


def _start_worker(*args: Any) -> None:
    global _worker
    _worker = _Worker(*args)


def _score_known(tokens: Sequence[str]) -> SplitScores:
    """Score scenes whose metric caches are on disk."""
    assert _worker is not None and _worker.caches is not None
    result = SplitScores()
    for token in tokens:
        try:
            plans = check_plans(_worker.plans[token], token)
            cache = _worker.caches.load(token, _worker.root, _worker.split)
            result.values[token] = score(cache, plans, _worker.progress).values
        except Exception as error:
            # Whatever is wrong with one scene of thousands, it is named and the rest goes on.
            result.failures[token] = _describe(error)
    return result


def _score_log(path: Path) -> SplitScores:
    """Score those scenes of one log that are asked for and have no metric cache yet."""
    assert _worker is not None
    result = SplitScores()
    try:
        frames = read_log(path)
    except LogError as error:
        result.problems.append(str(error))
        return result
    caches: dict[str, MetricCache] = {}
    for index, frame in enumerate(frames):
        token = frame["token"]
        if token not in _worker.plans or (_worker.caches is not None and token in _worker.caches):
            continue
        try:
            plans = check_plans(_worker.plans[token], token)
            scene = _scene(frames, index, path, _worker.split)
            cache = build_metric_cache(scene, _worker.root.map(scene.map_location))
            result.values[token] = score(cache, plans, _worker.progress).values
            caches[token] = cache
        except Exception as error:
            result.failures[token] = _describe(error)
    if _worker.caches is not None:
        _worker.caches.save(path, caches)
    return result


def _scene(frames: list[Frame], index: int, path: Path, split: str) -> Scene:
    """The scene whose current frame is at ``index``."""
    before, after = index, len(frames) - 1 - index
    if before < HISTORY - 1 or after < FUTURE:
        raise SceneError(
            f"frame {index} of {path} has {before} frames before and {after} after it; a scene needs "
            f"{HISTORY - 1} and {FUTURE}"
        )
    return Scene(frames[index]["log_name"], split, frames[index - HISTORY + 1 : index + FUTURE + 1])


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
