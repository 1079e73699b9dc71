"""Why plans lose points: for every sub-score below 1 when, where and by what it was lost, in words too."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCache
from beyonddrive.evaluation.pdm.explain.causes import CAUSES, EXTENDED_CAUSES, Case, Failure
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.scores.epdms import EpdmsScores
from beyonddrive.evaluation.pdm.scores.pdms import PdmScores
from beyonddrive.evaluation.pdm.scores.scorer import Progress, Version, score

PRECEDENCE = tuple(CAUSES)
"""Sub-scores of the PDM score, the gravest first (:data:`causes.CAUSES`)."""
EXTENDED_PRECEDENCE = tuple(EXTENDED_CAUSES)
"""The same of EPDMS."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one plan has the score it has.

    Attributes:
        columns: Names of the scores.
        values: (S,) the scores themselves.
        failures: At least one :class:`Failure` per sub-score below 1 and none for any other, the gravest
            first; comfort has one per bound that is broken.
        states: (41, 11) simulated states every 0.1 s, as in :class:`beyonddrive.evaluation.pdm.PdmScores`.
    """

    columns: tuple[str, ...]
    values: Floats
    failures: tuple[Failure, ...]
    states: Floats = field(repr=False)

    @property
    def failed(self) -> tuple[str, ...]:
        """Sub-scores below 1, the gravest first."""
        return tuple(dict.fromkeys(failure.column for failure in self.failures))

    def of(self, column: str) -> tuple[Failure, ...]:
        """The failures of one sub-score."""
        return tuple(failure for failure in self.failures if failure.column == column)

    def __str__(self) -> str:
        return "; ".join(failure.words for failure in self.failures) or "loses nothing"


def explain(
    cache: MetricCache,
    plans: ArrayLike,
    version: Version = "v1",
    progress: Progress = "pair",
    human_filter: bool = True,
) -> list[Explanation]:
    """Score plans and say when, where and why each lost points.

    Args:
        cache: The scene.
        plans: (N, 8, 3) as for :func:`beyonddrive.evaluation.pdm.score`.
        version: ``'v1'`` explains the PDM score, ``'v2'`` the one-stage EPDMS.
        progress: As for :func:`beyonddrive.evaluation.pdm.score`.
        human_filter: As for :func:`beyonddrive.evaluation.pdm.score`: what the human driver fails as well is
            no failure.

    Returns:
        One explanation per plan; a sub-score has failures in it if and only if it is below 1.

    Raises:
        PlanError: As :func:`beyonddrive.evaluation.pdm.score`.
        MetricCacheError: As :func:`beyonddrive.evaluation.pdm.score`.
    """
    return explain_scores(cache, score(cache, plans, progress, version, human_filter), progress)


def explain_scores(
    cache: MetricCache, scores: PdmScores | EpdmsScores, progress: Progress = "pair"
) -> list[Explanation]:
    """As :func:`explain`, for plans that are scored already.

    Args:
        cache: The scene that the plans were scored in.
        scores: Their scores.
        progress: How progress was normalised.
    """
    if isinstance(scores, EpdmsScores):
        causes, scene, counted = EXTENDED_CAUSES, cache.prepared_extended, scores.progress
    else:
        causes, scene = CAUSES, cache.prepared
        counted = scores.progress * scores.column("NC") * scores.column("DAC")
    full = np.full(len(counted), scene.reference_progress)
    if progress == "pooled" and len(full):
        full[:] = _largest(scores, counted, scene.reference_progress)
    case = Case(cache, scene.world, scores, full, counted)
    explanations = []
    for n, row in enumerate(scores.values):
        failures: list[Failure] = []
        for column, cause in causes.items():
            if row[scores.columns.index(column)] < 1.0:
                failures += cause(case, n)
        explanations.append(Explanation(scores.columns, row, tuple(failures), scores.simulated[n]))
    return explanations


def _largest(scores: PdmScores | EpdmsScores, counted: Floats, reference: float) -> float:
    """Metres of progress that give full marks when the progress of a batch is pooled."""
    if isinstance(scores, PdmScores):
        return float(np.max(counted, initial=reference))
    # The human filter hides what multiplied the progress of others; any plan with a share of it tells.
    ep = scores.column("EP")
    told = (ep > 0.0) & (ep < 1.0)
    return float(np.max(counted[told] / ep[told], initial=reference))
