"""Scores of plans by scene token: finds the metric cache of a scene and runs the PDM scorer on it.

Nothing here imports torch, so that worker processes start fast and stay small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.executors import make_executor
from beyonddrive.evaluation.metric_caches import MetricCaches, describe_error
from beyonddrive.evaluation.pdm import MetricCache, PdmScores, score
from beyonddrive.evaluation.pdm.explain.explanation import Explanation, explain_scores
from beyonddrive.evaluation.pdm.explain.failure_times import failure_times
from beyonddrive.evaluation.pdm.scores.scorer import Progress, Version
from beyonddrive.structures.plan import check_plans

SCENES_PER_JOB = 8
"""Scenes that a worker scores at a time: enough to hide the queue, few enough to keep all workers busy."""


class ScenePlans(NamedTuple):
    """Plans (N, 8, 3) of one scene: x [m], y [m], heading [rad], rear axle, ego frame at t = 0."""

    token: str
    log_name: str
    plans: NDArray[np.floating]


class Motion(NamedTuple):
    """How the ego drives the plans of a scene: (N, 41, 11) states, from ``time`` [s] on."""

    time: float
    simulated: NDArray[np.float64]


class SceneScores(NamedTuple):
    """Scores (N, 7) of one scene in the order of ``SCORE_COLUMNS``, or the reason why there are none.

    EPDMS has scores (N, 9) in the order of :data:`epdms.EPDMS_COLUMNS`. ``times``
    (N, 7) are those of :func:`failure_times.failure_times`, ``failures`` those of
    :func:`describe_failures`, and ``motion`` what EPDMS compares; each only if asked for.
    """

    token: str
    log_name: str
    values: NDArray[np.float64] | None
    reason: str = ""
    times: NDArray[np.float64] | None = None
    failures: list[list[dict[str, Any]]] | None = None
    motion: Motion | None = None


@dataclass(frozen=True)
class ScoreSettings:
    """What is computed for the plans of a scene.

    Attributes:
        progress: ``pair`` scores each plan against the PDM reference alone, as the benchmark does;
            ``pooled`` normalises progress over all plans of a scene (PDMS_V1, section 9).
        version: ``v1`` is the PDM score, ``v2`` the one-stage EPDMS (EPDMS_V2).
        human_filter: Do not charge a plan with what the human driver fails as well; EPDMS only.
        with_times: Whether to say when plans fail, too; PDM score only.
        with_failures: Whether to say when, where and why plans lose points, too.
        with_motion: Whether to give the simulated motion, too.
    """

    progress: Progress = "pair"
    version: Version = "v1"
    human_filter: bool = True
    with_times: bool = False
    with_failures: bool = False
    with_motion: bool = False

    def score(self, cache: MetricCache, scene: ScenePlans) -> SceneScores:
        """Score the plans of a scene.

        Raises:
            PlanError: If the plans have another shape, hold NaN or infinity, or cannot be simulated.
        """
        plans = check_plans(scene.plans, scene.token)
        scores = score(cache, plans, self.progress, self.version, self.human_filter)
        times = failure_times(scores) if self.with_times and isinstance(scores, PdmScores) else None
        failures = None
        if self.with_failures:
            failures = describe_failures(explain_scores(cache, scores, self.progress))
        motion = Motion(cache.time_us * 1e-6, scores.simulated) if self.with_motion else None
        return SceneScores(
            scene.token, scene.log_name, scores.values, times=times, failures=failures, motion=motion
        )


def describe_failures(explanations: Sequence[Explanation]) -> list[list[dict[str, Any]]]:
    """Failures of each plan as JSON values, by the fields of a ``Failure``."""

    def to_json(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

    return [
        [
            {field.name: to_json(getattr(failure, field.name)) for field in fields(failure)}
            for failure in explanation.failures
        ]
        for explanation in explanations
    ]


@dataclass
class SceneScorer:
    """Scores of the scenes of a split; pickled once per worker.

    Metric caches are read from ``cache_dir`` if it is given, and only from there (``data_root`` then serves
    to notice that they are stale); otherwise they are built from the logs and maps of ``data_root`` each time
    a scene is scored.

    Args:
        split: Split that the scenes belong to.
        cache_dir: Store made by ``tools/cache_metrics.py``.
        data_root: Data root in NAVSIM's layout.
        maps_root: Maps, if they are not in ``data_root/maps``.
        settings: What is computed.

    Raises:
        ValueError: If there is neither a store nor a data root.
    """

    split: str
    cache_dir: Path | None = None
    data_root: Path | None = None
    maps_root: Path | None = None
    settings: ScoreSettings = ScoreSettings()
    _caches: MetricCaches | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cache_dir is None and self.data_root is None:
            raise ValueError(
                "PDM score: give cache_dir (a store made by tools/cache_metrics.py) or data_root"
            )

    def open(self) -> MetricCaches:
        """Open store or data root, so that a wrong path or stale store is found before any scene is planned.

        Raises:
            StoreError: If the store is missing, of another split, or older than its logs and maps.
            NavsimRootError: If there are no logs in ``data_root``.
        """
        if self._caches is None:
            root = None
            if self.data_root is not None and (
                self.cache_dir is None or (self.data_root / "navsim_logs").is_dir()
            ):
                root = NavsimRoot(self.data_root, self.maps_root)
            self._caches = MetricCaches(self.split, root, self.cache_dir)
        return self._caches

    def score(self, job: Sequence[ScenePlans]) -> list[SceneScores]:
        """Score scenes one after another; a scene that cannot be scored does not stop the others."""
        results = []
        for scene in job:
            try:
                results.append(self.settings.score(self.open().get(scene.token, scene.log_name), scene))
            except Exception as error:
                # Whatever is wrong with one scene of thousands, it is named and the rest goes on.
                results.append(SceneScores(scene.token, scene.log_name, None, describe_error(error)))
        return results


class Scorer(Protocol):
    """Scores plans by scene, such as :class:`SceneScorer`."""

    def score(self, job: Sequence[ScenePlans]) -> list[SceneScores]:
        """Score scenes; one that cannot be scored gives a reason instead."""
        ...


_worker_scorer: Scorer | None = None


def start_worker(scorer: Scorer) -> None:
    """Make a process ready for :func:`score_in_worker`."""
    global _worker_scorer
    _worker_scorer = scorer


def score_in_worker(job: list[ScenePlans]) -> list[SceneScores]:
    """Score scenes by the scorer that this process was started with."""
    assert _worker_scorer is not None, "the executor did not run the initializer"
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
    for results in executor.map(score_in_worker, jobs, desc, start_worker, (scorer,)):
        yield from results
