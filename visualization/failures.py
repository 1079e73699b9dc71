"""Why a plan fails, in words, colours and moments: what the pictures show of a PDM score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.constants import DDC_COMPLIANT, DDC_WINDOW, NON_DRIVABLE, ONCOMING, STEP
from beyonddrive.structures.boxes import EGO_REAR_AXLE_TO_CENTER, OBJECT_TYPES
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.visualization.palette import FAILURES, PASS, Color

if TYPE_CHECKING:
    from beyonddrive.evaluation.pdm import MetricCache, PdmScores

PRECEDENCE = ("NC", "DAC", "TTC", "C", "EP", "DDC")
"""Which failure names a plan that has several: the multipliers of the score first, then its terms, those that
fail at once before the gradual one, and the column that does not count (PDMS_V1, section 11)."""
THRESHOLD = 0.6
"""A sub-score below this has failed (METHOD, section 3); only EP takes other values than 0, 0.5 and 1."""

_WORDS = {
    "NC": "hits {object}",
    "DAC": "leaves the road",
    "TTC": "gets too close to {object}",
    "C": "drives uncomfortably",
    "EP": "makes too little progress",
    "DDC": "leaves the lanes of the route",
}
_OBJECTS = {
    "traffic_cone": "a traffic cone",
    "czone_sign": "a construction sign",
    "generic_object": "an object",
    "ego": "a vehicle",
}


@dataclass(frozen=True)
class Verdict:
    """What a picture says about one plan.

    Attributes:
        values: (7,) the scores, in the order of :data:`beyonddrive.structures.plan.SCORE_COLUMNS`.
        failed: Failed sub-scores in the order of :data:`PRECEDENCE`; empty for a plan that passes.
        moments: When a failed sub-score was first broken [s], for those that break at one moment.
        objects: Track token and class of what was hit or came too close, by sub-score.
        poses: (41, 3) simulated rear-axle poses, global, every 0.1 s.
    """

    values: NDArray[np.float64]
    failed: tuple[str, ...]
    moments: dict[str, float]
    poses: NDArray[np.float64]
    objects: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def first(self) -> str | None:
        """The failure that names the plan, None if it passes."""
        return self.failed[0] if self.failed else None

    @property
    def color(self) -> Color:
        """Colour of the plan."""
        return PASS if self.first is None else FAILURES[self.first]

    @property
    def moment(self) -> float | None:
        """When the naming failure happened [s], None if there is no such moment."""
        return None if self.first is None else self.moments.get(self.first)

    def pose_at(self, moment: float) -> NDArray[np.float64]:
        """Simulated rear-axle pose (3,), global, at ``moment`` seconds."""
        return self.poses[min(round(moment / STEP), len(self.poses) - 1)]

    def __str__(self) -> str:
        """The failures in words: ``hits a vehicle at 2.3 s, gets too close to a vehicle at 1.4 s``."""
        return ", ".join(self._phrase(name) for name in self.causes()) or "passes"

    def causes(self) -> tuple[str, ...]:
        """Failed sub-scores without a progress that only NC or DAC set to 0 (PDMS_V1, section 11)."""
        if "NC" in self.failed or "DAC" in self.failed:
            return tuple(name for name in self.failed if name != "EP")
        return self.failed

    def _phrase(self, name: str) -> str:
        kind = self.objects.get(name, ("", "generic_object"))[1]
        words = _WORDS[name].format(object=_OBJECTS.get(kind, f"a {kind}"))
        return f"{words} at {self.moments[name]:.1f} s" if name in self.moments else words


def judge(scores: PdmScores, cache: MetricCache, threshold: float = THRESHOLD) -> list[Verdict]:
    """One :class:`Verdict` per scored plan.

    Args:
        scores: Scores of N plans of one scene.
        cache: The metric cache that they were scored with; names the objects.
        threshold: A sub-score below this has failed.
    """
    times = {
        "NC": scores.nc_time,
        "DAC": first_time((scores.areas & NON_DRIVABLE) != 0),
        "TTC": scores.ttc_time,
        "DDC": off_route_times(scores.simulated, scores.areas),
    }
    hit = {"NC": scores.nc_object, "TTC": scores.ttc_object}
    verdicts = []
    for index, row in enumerate(scores.values):
        failed = failed_columns(row, threshold)
        known = [name for name in failed if name in times and np.isfinite(times[name][index])]
        moments = {name: float(times[name][index]) for name in known}
        objects = {}
        for name in (name for name in failed if name in hit and hit[name][index] >= 0):
            track = int(hit[name][index])
            objects[name] = (cache.tracks.tokens[track], OBJECT_TYPES[int(cache.tracks.types[track])])
        verdicts.append(Verdict(row, failed, moments, scores.simulated[index, :, :3], objects))
    return verdicts


def failed_columns(
    values: Sequence[float] | NDArray[np.float64], threshold: float = THRESHOLD
) -> tuple[str, ...]:
    """Names of the sub-scores (7,) below ``threshold``, the one that names the plan first.

    >>> failed_columns([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    ('DAC', 'TTC', 'EP')
    """
    return tuple(name for name in PRECEDENCE if values[SCORE_COLUMNS.index(name)] < threshold)


def first_time(broken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """When samples (N, 41) are first true: (N,) seconds, inf for never.

    >>> first_time(np.array([[False, True, True], [False, False, False]])).tolist()
    [0.1, inf]
    """
    return np.where(broken.any(axis=1), broken.argmax(axis=1) * STEP, np.inf)


def off_route_times(simulated: NDArray[np.float64], areas: NDArray[np.uint8]) -> NDArray[np.float64]:
    """When plans have been off the lanes of the route for 2 m within a second (PDMS_V1, section 8).

    Args:
        simulated: (N, 41, 11) states.
        areas: (N, 41) area bits.

    Returns:
        (N,) seconds, inf for never.
    """
    heading = simulated[..., 2:3]
    center = simulated[..., :2] + EGO_REAR_AXLE_TO_CENTER * np.concatenate(
        [np.cos(heading), np.sin(heading)], -1
    )
    steps = np.zeros(areas.shape)
    steps[:, 1:] = np.hypot(*np.moveaxis(np.diff(center, axis=1), -1, 0))
    steps[(areas & ONCOMING) == 0] = 0.0
    total = np.cumsum(np.pad(steps, ((0, 0), (DDC_WINDOW, 0))), axis=1)
    return first_time(total[:, DDC_WINDOW:] - total[:, :-DDC_WINDOW] >= DDC_COMPLIANT)


def count_failures(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many plans each failure names, in the order of :data:`PRECEDENCE`, those of none left out."""
    names = [verdict.first for verdict in verdicts]
    return {name: names.count(name) for name in PRECEDENCE if name in names}
