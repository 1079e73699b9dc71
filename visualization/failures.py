"""Why a plan fails, in words, colours and moments: what the pictures show of an explained PDM score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.explain.explanation import (
    EXTENDED_PRECEDENCE,
    PRECEDENCE,
    Explanation,
    Failure,
    explain_scores,
)
from beyonddrive.evaluation.pdm.kernels.constants import STEP
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.visualization.palette import EXTENDED_FAILURES, PASS, Color

if TYPE_CHECKING:
    from beyonddrive.evaluation.pdm import EpdmsScores, MetricCache, PdmScores
    from beyonddrive.evaluation.pdm.scores.scorer import Progress

THRESHOLD = 0.6
"""A sub-score below this has failed (METHOD, section 3); only EP takes other values than 0, 0.5 and 1."""
PLACED = ("NC", "DAC", "TTC", "DDC", "TLC", "LK")
"""Sub-scores that break at one moment and place; comfort and progress are of the whole motion."""


def precedence(columns: Sequence[str]) -> tuple[str, ...]:
    """Sub-scores of a score, the gravest first.

    Args:
        columns: Of the PDM score, or of EPDMS.

    >>> precedence(SCORE_COLUMNS)[:2]
    ('NC', 'DAC')
    """
    return EXTENDED_PRECEDENCE if "TLC" in columns else PRECEDENCE


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a picture says about one plan.

    Attributes:
        explanation: Why the plan has its score.
        threshold: A sub-score below this has failed.
    """

    explanation: Explanation
    threshold: float = THRESHOLD

    @property
    def values(self) -> NDArray[np.float64]:
        """(S,) the scores, in the order of :attr:`columns`."""
        return self.explanation.values

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the scores: of the PDM score, or of EPDMS."""
        return self.explanation.columns

    def __getitem__(self, column: str) -> float:
        """One of the scores."""
        return float(self.values[self.columns.index(column)])

    @property
    def failed(self) -> tuple[str, ...]:
        """Failed sub-scores, the one that names the plan first; empty for a plan that passes."""
        return failed_columns(self.values, self.threshold, self.columns)

    @property
    def first(self) -> str | None:
        """The failure that names the plan, None if it passes."""
        return next(iter(self.failed), None)

    @property
    def color(self) -> Color:
        """Colour of the plan."""
        return PASS if self.first is None else EXTENDED_FAILURES[self.first]

    @property
    def mark(self) -> Failure | None:
        """The failure that names the plan, if it has a moment and a place; else None."""
        return self.explanation.of(self.first)[0] if self.first in PLACED and self.first else None

    @property
    def moment(self) -> float | None:
        """When the naming failure happened [s], None if there is no such moment."""
        return None if self.mark is None else self.mark.time

    def pose_at(self, moment: float) -> NDArray[np.float64]:
        """Simulated rear-axle pose (3,), global, at ``moment`` seconds."""
        states = self.explanation.states
        return states[min(round(moment / STEP), len(states) - 1), :3]

    def __str__(self) -> str:
        """The failures in words: ``hits a vehicle at 2.3 s, driving 4.1 m/s; leaves the road ..``."""
        return "; ".join(self._phrase(name) for name in self.causes()) or "passes"

    def causes(self) -> tuple[str, ...]:
        """Failed sub-scores without a progress that only NC or DAC set to 0 (PDMS_V1, section 11)."""
        if "NC" in self.failed or "DAC" in self.failed:
            return tuple(name for name in self.failed if name != "EP")
        return self.failed

    def _phrase(self, name: str) -> str:
        first, *others = self.explanation.of(name)
        more = f" (and {len(others)} more bound{'s' * (len(others) > 1)})" if others else ""
        return first.words + more


def judge(scores: PdmScores | EpdmsScores, cache: MetricCache, progress: Progress = "pair") -> list[Verdict]:
    """One :class:`Verdict` per scored plan.

    Args:
        scores: Scores of N plans of one scene.
        cache: The metric cache that they were scored with.
        progress: How they were scored.
    """
    return [Verdict(explanation) for explanation in explain_scores(cache, scores, progress)]


def failed_columns(
    values: Sequence[float] | NDArray[np.float64],
    threshold: float = THRESHOLD,
    columns: Sequence[str] = SCORE_COLUMNS,
) -> tuple[str, ...]:
    """Names of the sub-scores (S,) below ``threshold``, the one that names the plan first.

    >>> failed_columns([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    ('DAC', 'TTC', 'EP')
    """
    return tuple(name for name in precedence(columns) if values[columns.index(name)] < threshold)


def count_failures(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many plans each failure names, the gravest first, those of none left out."""
    names = [verdict.first for verdict in verdicts]
    order = precedence(verdicts[0].columns) if verdicts else ()
    return {name: names.count(name) for name in order if name in names}
