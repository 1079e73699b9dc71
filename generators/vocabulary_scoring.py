"""Scores of all plans of a vocabulary in all scenes of a split, one shard per log; resumable, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.fingerprints import fingerprint, is_unchanged
from beyonddrive.datasets.stores.shards import ShardStore, ShardWriter
from beyonddrive.datasets.stores.vocabulary_scores import COLUMNS, KIND, manifest_of, pack_scores
from beyonddrive.engine.executors import Executor
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.pdm import MetricCache, score
from beyonddrive.generators.expert_plans import SceneSource
from beyonddrive.structures.vocabulary import Vocabulary

PLANS_AT_ONCE = 512
"""Plans that are scored together: enough to be fast, few enough to stay small in memory."""


@dataclass
class ScoringReport:
    """What a run of :func:`score_vocabulary` did.

    Attributes:
        num_scenes: Scenes that the store now holds.
        num_new_logs: Logs that were scored in this run; the others were there.
        failures: Scene token -> why it has no scores.
        problems: Logs that could not be read, and whatever else was passed over.
    """

    num_scenes: int = 0
    num_new_logs: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class _Job(NamedTuple):
    """The scenes of one log."""

    path: Path
    tokens: tuple[str, ...]


def score_vocabulary(
    source: SceneSource,
    vocabulary: Vocabulary,
    folder: str | Path,
    executor: Executor,
    cache_dir: str | Path | None = None,
) -> ScoringReport:
    """Score a vocabulary; a killed run goes on where it was.

    A scene that cannot be scored is recorded with the reason and does not stop the others. Logs with such
    scenes, logs that have changed, and logs of which other scenes are wanted now, are done again.

    Args:
        source: The scenes.
        vocabulary: The plans; progress is normalised plan by plan, as the benchmark does.
        folder: Folder of the store.
        executor: Where to run.
        cache_dir: Store of metric caches of the split to read; built from logs and maps if None.

    Raises:
        StoreError: If the folder holds scores of another vocabulary or split, or the caches do not fit.
        NavsimRootError: If there is no such split.
    """
    root, split, scene_filter = source
    config = manifest_of(split, vocabulary.plans)
    writer = ShardWriter(folder, KIND, config, f"{root.root}, split {split}")
    root.forget_problems()
    by_log: dict[Path, list[str]] = {}
    for ref in root.refs(split, scene_filter):
        by_log.setdefault(ref.log_path, []).append(ref.token)
    report = ScoringReport(problems=list(root.problems))
    jobs = [
        _Job(path, tuple(tokens)) for path, tokens in by_log.items() if not _is_done(writer, path, tokens)
    ]
    report.num_new_logs = len(jobs)
    caches = MetricCaches(split, root, None if cache_dir is None else Path(cache_dir))
    arguments = (caches, writer, vocabulary.plans)
    for problems in executor.map(_score_log, jobs, f"vocabulary of {split}", _start, arguments):
        report.problems += problems
    store = ShardStore(folder, KIND, config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    return report


def _is_done(writer: ShardWriter, path: Path, tokens: list[str]) -> bool:
    index = writer.index(path.stem)
    return (
        index is not None
        and not index.failures
        and sorted(index.tokens) == sorted(tokens)
        and is_unchanged(path, index.sources["log"])
    )


# ------------------------------------------------------------------ in a worker
class _Worker(NamedTuple):
    caches: MetricCaches
    writer: ShardWriter
    plans: NDArray[np.float32]


_worker: _Worker | None = None


def _start(caches: MetricCaches, writer: ShardWriter, plans: NDArray[np.float32]) -> None:
    global _worker
    _worker = _Worker(caches, writer, plans)


def _score_log(job: _Job) -> list[str]:
    """Make the shard of one log; return why there is none."""
    assert _worker is not None, "the executor did not run the initializer"
    records: dict[str, dict[str, NDArray[Any]]] = {}
    failures: dict[str, str] = {}
    source = fingerprint(job.path)
    try:
        for token, cache in _caches_of(_worker.caches, job):
            try:
                if isinstance(cache, Exception):
                    raise cache
                records[token] = {"scores": _scores(cache, _worker.plans)}
            except Exception as error:
                # Whatever is wrong with one scene of thousands, it is recorded and the rest goes on.
                failures[token] = f"{type(error).__name__}: {error}"
    except ValueError as error:  # the log itself
        return [str(error)]
    _worker.writer.write(job.path.stem, records, failures, {"log": source})
    return []


def _caches_of(caches: MetricCaches, job: _Job) -> Iterator[tuple[str, MetricCache | Exception]]:
    in_store = [token for token in job.tokens if token in caches]
    for token in in_store:
        yield token, caches[token]
    missing = set(job.tokens).difference(in_store)
    if missing:
        yield from caches.of_log(job.path, missing)


def _scores(cache: MetricCache, plans: NDArray[np.float32]) -> NDArray[np.uint8]:
    parts = [
        score(cache, plans[start : start + PLANS_AT_ONCE].astype(np.float64)).values[:, : len(COLUMNS)]
        for start in range(0, len(plans), PLANS_AT_ONCE)
    ]
    return pack_scores(np.concatenate(parts))
