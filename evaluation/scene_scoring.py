"""Scores of plans by scene token: finds the metric cache of a scene and runs the PDM scorer on it.

Nothing here imports torch, so that worker processes start fast and stay small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim_root import NavsimRoot
from beyonddrive.datasets.scene import Scene, SceneError
from beyonddrive.datasets.scene_filter import SceneFilter
from beyonddrive.datasets.shards import ShardStore
from beyonddrive.engine.executors import make_executor
from beyonddrive.evaluation.failure_times import failure_times
from beyonddrive.evaluation.metric_caching import open_metric_caches
from beyonddrive.evaluation.pdm import MetricCache, build_metric_cache, score
from beyonddrive.structures.plan import check_plans

SCENES_PER_JOB = 8
"""Scenes that a worker scores at a time: enough to hide the queue, few enough to keep all workers busy."""


class ScenePlans(NamedTuple):
    """Plans (N, 8, 3) of one scene: x [m], y [m], heading [rad], rear axle, ego frame at t = 0."""

    token: str
    log_name: str
    plans: NDArray[np.floating]


class SceneScores(NamedTuple):
    """Scores (N, 7) of one scene in the order of ``SCORE_COLUMNS``, or the reason why there are none.

    ``times`` (N, 7) are those of :func:`beyonddrive.evaluation.failure_times.failure_times`, if asked for.
    """

    token: str
    log_name: str
    values: NDArray[np.float64] | None
    reason: str = ""
    times: NDArray[np.float64] | None = None


@dataclass
class SceneScorer:
    """PDM scores of the scenes of a split; pickled once per worker.

    Metric caches are read from ``cache_dir`` if it is given, and only from there (``data_root`` then serves
    to notice that they are stale); otherwise they are built from the logs and maps of ``data_root`` each time
    a scene is scored.

    Args:
        split: Split that the scenes belong to.
        cache_dir: Store made by ``tools/cache_metrics.py``.
        data_root: Data root in NAVSIM's layout.
        maps_root: Maps, if they are not in ``data_root/maps``.
        progress: ``pair`` scores each plan against the PDM reference alone, as the benchmark does;
            ``pooled`` normalises progress over all plans of a scene (PDMS_V1, section 9).
        with_times: Whether to say when plans fail, too.

    Raises:
        ValueError: If there is neither a store nor a data root.
    """

    split: str
    cache_dir: Path | None = None
    data_root: Path | None = None
    maps_root: Path | None = None
    progress: Literal["pair", "pooled"] = "pair"
    with_times: bool = False
    _store: ShardStore | None = field(default=None, init=False, repr=False)
    _root: NavsimRoot | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cache_dir is None and self.data_root is None:
            raise ValueError(
                "PDM score: give cache_dir (a store made by tools/cache_metrics.py) or data_root"
            )

    def open(self) -> None:
        """Open store or data root, so that a wrong path or stale store is found before any scene is planned.

        Raises:
            StoreError: If the store is missing, of another split, or older than its logs and maps.
            NavsimRootError: If there are no logs in ``data_root``.
        """
        if self.cache_dir is None:
            assert self.data_root is not None
            self._root = self._root or NavsimRoot(self.data_root, self.maps_root)
        elif self._store is None:
            here = self.data_root is not None and (self.data_root / "navsim_logs").is_dir()
            root = NavsimRoot(self.data_root, self.maps_root) if here and self.data_root else None
            self._store = open_metric_caches(self.cache_dir, self.split, root)

    def score(self, job: Sequence[ScenePlans]) -> list[SceneScores]:
        """Score scenes one after another; a scene that cannot be scored does not stop the others."""
        results = []
        for scene in job:
            try:
                plans = check_plans(scene.plans, scene.token)
                cache = self.metric_cache(scene.token, scene.log_name)
                scores = score(cache, plans, progress=self.progress)
                times = failure_times(scores) if self.with_times else None
                results.append(SceneScores(scene.token, scene.log_name, scores.values, times=times))
            except Exception as error:
                # Whatever is wrong with one scene of thousands, it is named and the rest goes on.
                reason = f"{type(error).__name__}: {error}"
                results.append(SceneScores(scene.token, scene.log_name, None, reason))
        return results

    def metric_cache(self, token: str, log_name: str) -> MetricCache:
        """Metric cache of a scene, from the store or built from log and map."""
        self.open()
        if self._store is not None:
            return MetricCache.from_arrays(self._store[token])
        assert self._root is not None
        scene = self._scene(self._root, token, log_name)
        return build_metric_cache(scene, self._root.map(scene.map_location))

    def _scene(self, root: NavsimRoot, token: str, log_name: str) -> Scene:
        path = root.root / "navsim_logs" / self.split / f"{log_name}.pkl"
        if path.exists():
            any_window = SceneFilter(frame_interval=1, has_route=False, tokens=[token])
            for ref in root.log_refs(path, any_window):
                return root.load(ref, self.split)
        # A log may be stored under another name than its frames give; the search also knows the reason.
        scenes, reasons = root.find(self.split, [token])
        if token not in scenes:
            raise SceneError(reasons[token])
        return scenes[token]


_worker_scorer: SceneScorer | None = None


def _start_worker(scorer: SceneScorer) -> None:
    global _worker_scorer
    _worker_scorer = scorer


def _score_in_worker(job: list[ScenePlans]) -> list[SceneScores]:
    assert _worker_scorer is not None
    return _worker_scorer.score(job)


def score_scenes(
    scorer: SceneScorer, scenes: Sequence[ScenePlans], num_workers: int = 0, desc: str = "PDM score"
) -> Iterator[SceneScores]:
    """Score scenes in worker processes.

    Args:
        scorer: Where the scenes come from and how they are scored.
        scenes: Scenes with their plans, in any order.
        num_workers: Processes; 0 or 1 scores in this process.
        desc: Label of the progress bar; empty for none.

    Yields:
        One result per scene, sorted by log, so that neighbours share what has been read.
    """
    ordered = sorted(scenes, key=lambda scene: (scene.log_name, scene.token))
    jobs: list[list[ScenePlans]] = []
    for _, group in groupby(ordered, key=lambda scene: scene.log_name):
        log = list(group)
        jobs += [log[i : i + SCENES_PER_JOB] for i in range(0, len(log), SCENES_PER_JOB)]
    executor = make_executor(min(num_workers, len(jobs)))
    for results in executor.map(_score_in_worker, jobs, desc, _start_worker, (scorer,)):
        yield from results
