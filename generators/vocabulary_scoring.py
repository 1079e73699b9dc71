"""Scores of all plans of a vocabulary in all scenes of a split, one shard per log; resumable, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.log_jobs import CacheReport
from beyonddrive.datasets.navsim.logs import LogError
from beyonddrive.datasets.navsim.root import doubled_scene
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.stores.sources import DataPlace, only_maps
from beyonddrive.datasets.stores.vocabulary_scores import COLUMNS, KIND, manifest_of, pack_scores
from beyonddrive.engine.executors import Executor
from beyonddrive.evaluation.scene_scoring import LogScores, SceneScorer
from beyonddrive.evaluation.score_stream import stream
from beyonddrive.generators.expert_plans import SceneSource
from beyonddrive.structures.vocabulary import Vocabulary


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
) -> CacheReport:
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
    place = DataPlace.of(root, split)
    by_log: dict[Path, list[str]] = {}
    log_of: dict[str, Path] = {}
    for ref in root.refs(split, scene_filter):
        if (other := log_of.setdefault(ref.token, ref.log_path)) != ref.log_path:
            raise StoreError(doubled_scene(ref.token, other, ref.log_path))
        by_log.setdefault(ref.log_path, []).append(ref.token)
    report = CacheReport(problems=list(root.problems))
    jobs = [
        _Job(path, tuple(tokens))
        for path, tokens in by_log.items()
        if not _is_done(writer, path, tokens, place)
    ]
    report.num_new_logs = len(jobs)
    scorer = SceneScorer(
        split,
        None if cache_dir is None else Path(cache_dir),
        root.root,
        root.maps_root,
        plans=_SamePlans(vocabulary.plans),
    )
    scorer.open()
    for problems in stream(scorer, _WriteShard(writer), jobs, executor, f"vocabulary of {split}"):
        report.problems += problems
    store = ShardStore(folder, KIND, config)
    report.num_scenes, report.failures = len(store), dict(store.failures)
    return report


def _is_done(writer: ShardWriter, path: Path, tokens: list[str], place: DataPlace) -> bool:
    index = writer.index(path.stem)
    return (
        index is not None
        and not index.failures
        and sorted(index.tokens) == sorted(tokens)
        and place.log_name(path) in index.sources
        and not place.changed(index.sources, absent=True)
    )


@dataclass(frozen=True)
class _SamePlans:
    """The plans of every scene."""

    plans: NDArray[np.float32]

    def __getitem__(self, token: str) -> NDArray[np.float32]:
        return self.plans


@dataclass(frozen=True)
class _WriteShard:
    """The work of a log: score its scenes and write them as its shard."""

    writer: ShardWriter

    def __call__(self, scorer: SceneScorer, job: _Job) -> list[str]:
        """Why there is no shard, if there is none."""
        caches = scorer.open()
        assert caches.root is not None
        caches.root.read_maps.clear()
        place = DataPlace.of(caches.root, caches.split)
        try:
            sources = place.of_log(job.path)  # before it is read, so that no later change passes for it
        except OSError as error:
            return [f"{job.path}: cannot be read ({error})"]
        stored = [token for token in job.tokens if token in caches]
        missing = set(job.tokens).difference(stored)
        results = scorer.score_stored(stored)
        try:
            found = scorer.score_log(job.path, missing) if missing else LogScores([], {})
        except LogError as error:
            return [str(error)]
        records, failures = {}, dict(found.cut_off)
        for result in [*results, *found.results]:
            if result.values is None:
                failures[result.token] = result.reason
            else:
                records[result.token] = {"scores": pack_scores(result.values[:, : len(COLUMNS)])}
        sources |= only_maps(caches.sources_of(job.path.stem)) | place.of_maps(caches.root.read_maps)
        self.writer.write(job.path.stem, records, failures, sources)
        return []
