"""How a scene is scored: its plans and its metric cache in, its scores or the reason for having none out.

Nothing here imports torch, so that worker processes start fast and stay small.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import SceneError
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.pdm import MetricCache, PdmScores, score
from beyonddrive.evaluation.pdm.explain.explanation import Explanation, explain_scores
from beyonddrive.evaluation.pdm.explain.failure_times import failure_times
from beyonddrive.evaluation.pdm.scores.scorer import Progress, Version
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.plan import check_plans


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


class PlansByToken(Protocol):
    """Plans of scenes that are named by their token alone, such as any mapping."""

    def __getitem__(self, token: str, /) -> ArrayLike:
        """Plans (N, 8, 3) of a scene."""
        ...


class Scorer(Protocol):
    """Scores plans by scene, such as :class:`SceneScorer`."""

    def score(self, scenes: Sequence[ScenePlans]) -> list[SceneScores]:
        """Score scenes; one that cannot be scored gives a reason instead."""
        ...


class LogScores(NamedTuple):
    """What was found in a log.

    Attributes:
        results: One per scene that was asked for and is in the log.
        cut_off: Token of a frame that is in the log -> why there is no whole scene around it.
    """

    results: list[SceneScores]
    cut_off: dict[str, str]


@dataclass
class SceneScorer:
    """Scores scenes of a split; pickled once per worker.

    Metric caches are read from ``cache_dir`` if it is given, and only from there unless ``grow`` is set
    (``data_root`` then serves to notice that they are stale); otherwise they are built from the logs and maps
    of ``data_root`` each time a scene is scored. Whatever is wrong with one scene of thousands, its result
    has the reason and the rest goes on.

    Args:
        split: Split that the scenes belong to.
        cache_dir: Store made by ``beyonddrive cache-metrics``.
        data_root: Data root in NAVSIM's layout.
        maps_root: Maps, if they are not in ``data_root/maps``.
        settings: What is computed.
        plans: Token -> (N, 8, 3), for scenes that are named without their plans.
        grow: Whether caches that have to be built are added to ``cache_dir``.

    Raises:
        ValueError: If there is neither a store nor a data root.
    """

    split: str
    cache_dir: Path | None = None
    data_root: Path | None = None
    maps_root: Path | None = None
    settings: ScoreSettings = ScoreSettings()
    plans: PlansByToken | None = None
    grow: bool = False
    _caches: MetricCaches | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cache_dir is None and self.data_root is None:
            raise ValueError(
                "PDM score: give cache_dir (a store, made by: beyonddrive cache-metrics CONFIG) or data_root"
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
                self.cache_dir is None or self.grow or (self.data_root / "navsim_logs").is_dir()
            ):
                root = NavsimRoot(self.data_root, self.maps_root)
            self._caches = MetricCaches(self.split, root, self.cache_dir, self.grow)
        return self._caches

    def score(self, scenes: Sequence[ScenePlans]) -> list[SceneScores]:
        """Score scenes that are given with log and plans."""
        return [self._score(token, log_name, None, plans) for token, log_name, plans in scenes]

    def score_stored(self, tokens: Iterable[str]) -> list[SceneScores]:
        """Score scenes whose metric caches are in the store, and whose plans are in ``plans``."""
        return [self._score(token, self.open().shard_of(token) or "") for token in tokens]

    def score_log(self, path: Path, tokens: Container[str]) -> LogScores:
        """Score those scenes of one log that are asked for, and whose plans are in ``plans``.

        Raises:
            LogError: If the log cannot be read.
        """
        found = LogScores([], {})
        for token, cache in self.open().of_log(path, tokens):
            if isinstance(cache, SceneError):
                found.cut_off[token] = describe_error(cache, token)
            else:
                found.results.append(self._score(token, path.stem, cache))
        return found

    def _score(
        self,
        token: str,
        log_name: str,
        cache: MetricCache | Exception | None = None,
        plans: NDArray[np.floating] | None = None,
    ) -> SceneScores:
        """Scores of a scene; whatever is wrong with one of thousands, it is named and the rest goes on."""
        try:
            if plans is None:
                assert self.plans is not None, "a scene without plans"
                plans = np.asarray(self.plans[token])
            if cache is None:
                cache = self.open().get(token, log_name)
            if isinstance(cache, Exception):
                raise cache
            return self.settings.score(cache, ScenePlans(token, log_name, plans))
        except Exception as error:
            return SceneScores(token, log_name, None, describe_error(error, token))
