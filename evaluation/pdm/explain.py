"""Why plans lose points: for every sub-score below 1 when, where and by what it was lost, in words too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.arrays import Floats
from beyonddrive.evaluation.pdm.cache import MetricCache
from beyonddrive.evaluation.pdm.constants import (
    DDC_COMPLIANT,
    NON_DRIVABLE,
    NUM_STATES,
    STEP,
    TTC_PROJECTIONS,
    TTC_STRIDE,
)
from beyonddrive.evaluation.pdm.contact import (
    CORNERS,
    broken_bounds,
    corner_off_road,
    ego_center,
    object_box,
    off_route_meters,
    overlap_center,
    projected_box,
)
from beyonddrive.evaluation.pdm.scorer import PdmScores, Progress, score
from beyonddrive.structures.boxes import OBJECT_TYPES
from beyonddrive.structures.plan import SCORE_COLUMNS

Version = Literal["v1", "v2"]

PRECEDENCE = ("NC", "DAC", "TTC", "C", "EP", "DDC")
"""Order of failures: the multipliers of the score first, then its terms, those that fail at once before the
gradual one, and the column that does not count (PDMS_V1, section 11)."""

_OBJECTS = {
    "traffic_cone": "a traffic cone",
    "czone_sign": "a construction sign",
    "generic_object": "an object",
    "ego": "a vehicle",
}
_UNITS = {
    "longitudinal acceleration": "m/s²",
    "lateral acceleration": "m/s²",
    "jerk": "m/s³",
    "longitudinal jerk": "m/s³",
    "yaw rate": "rad/s",
    "yaw acceleration": "rad/s²",
}


@dataclass(frozen=True, eq=False)
class Failure:
    """One reason for a sub-score below 1.

    Attributes:
        column: The sub-score.
        time: When it was first broken [s after now]; 4.0 for progress, which is judged at the end.
        position: (2,) global x, y [m]: the middle of the contact for NC and TTC, the corner that left the
            road for DAC, the middle of the ego box then for the others.
        words: What happened, for a reader.
        object_token: Track token of what was hit or came too close.
        object_type: Its class, one of :data:`beyonddrive.structures.boxes.OBJECT_TYPES`.
        corner: The first that left the road: ``front_left``, ``rear_left``, ``rear_right``, ``front_right``.
        bound: Name of the comfort bound, one of :data:`beyonddrive.evaluation.pdm.comfort.COMFORT_BOUNDS`.
        value: What was measured: the ego's speed at the contact [m/s] for NC; seconds until the contact for
            TTC; the most metres off the route's lanes within a second for DDC; the metres of progress that
            count for EP; the value farthest beyond the bound for comfort.
        limit: What it is held against: the longest look ahead [s] for TTC; 2 m for DDC; the metres that give
            full marks for EP; the bound for comfort, with its sign; None for NC and DAC.
    """

    column: str
    time: float
    position: Floats = field(repr=False)
    words: str
    object_token: str | None = None
    object_type: str | None = None
    corner: str | None = None
    bound: str | None = None
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        return self.words


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
    cache: MetricCache, plans: ArrayLike, version: Version = "v1", progress: Progress = "pair"
) -> list[Explanation]:
    """Score plans and say when, where and why each lost points.

    Args:
        cache: The scene.
        plans: (N, 8, 3) as for :func:`beyonddrive.evaluation.pdm.score`.
        version: Of the score.
        progress: As for :func:`beyonddrive.evaluation.pdm.score`.

    Returns:
        One explanation per plan; a sub-score has failures in it if and only if it is below 1.

    Raises:
        PlanError: As :func:`beyonddrive.evaluation.pdm.score`.
    """
    if version != "v1":
        raise ValueError(f"version must be 'v1', got {version!r}")
    return explain_scores(cache, score(cache, plans, progress), progress)


def explain_scores(cache: MetricCache, scores: PdmScores, progress: Progress = "pair") -> list[Explanation]:
    """As :func:`explain`, for plans that are scored already.

    Args:
        cache: The scene that the plans were scored in.
        scores: Their scores.
        progress: How progress was normalised.
    """
    full = np.maximum(cache.prepared.reference_progress, counted_progress(scores))
    if progress == "pooled" and len(full):
        full = np.full_like(full, full.max())
    case = _Case(cache, scores, full)
    explanations = []
    for n, row in enumerate(scores.values):
        failures: list[Failure] = []
        for column in PRECEDENCE:
            if row[SCORE_COLUMNS.index(column)] < 1.0:
                failures += _CAUSES[column](case, n)
        explanations.append(Explanation(SCORE_COLUMNS, row, tuple(failures), scores.simulated[n]))
    return explanations


def counted_progress(scores: PdmScores) -> Floats:
    """Metres (N,) of progress that count: what NC and DAC leave of it (PDMS_V1, section 11)."""
    return scores.progress * scores.column("NC") * scores.column("DAC")


@dataclass(frozen=True, eq=False)
class _Case:
    """What the causes are found in."""

    cache: MetricCache
    scores: PdmScores
    full: Floats
    """(N,) metres of progress that give full marks."""

    @property
    def world(self) -> Any:
        """Map and traffic as the kernels take them."""
        return getattr(self.cache.prepared, "world", self.cache.prepared)

    def object(self, m: int) -> tuple[str, str]:
        """Track token and class of an object."""
        tracks = self.cache.tracks
        return tracks.tokens[m], OBJECT_TYPES[int(tracks.types[m])]


def _collision(case: _Case, n: int) -> list[Failure]:
    m, time = int(case.scores.nc_object[n]), float(case.scores.nc_time[n])
    state = case.scores.simulated[n, round(time / STEP)]
    traffic = case.world.traffic
    token, kind = case.object(m)
    speed = float(np.hypot(state[3], state[4]))
    position = overlap_center(projected_box(state, 0.0), object_box(traffic, round(time / STEP), m))
    words = f"hits {_name(kind)} at {time:.1f} s, driving {speed:.1f} m/s"
    return [Failure("NC", time, position, words, token, kind, value=speed)]


def _time_to_collision(case: _Case, n: int) -> list[Failure]:
    m, time = int(case.scores.ttc_object[n]), float(case.scores.ttc_time[n])
    t = round(time / STEP)
    state = case.scores.simulated[n, t]
    traffic = case.world.traffic
    token, kind = case.object(m)
    # The object was not to be blamed on an earlier look, or it would be ignored by now: the first one counts.
    looks = [
        (projected_box(state, k * TTC_STRIDE * STEP), object_box(traffic, t + k * TTC_STRIDE, m))
        for k in range(TTC_PROJECTIONS)
    ]
    touching = [k for k, (ego, other) in enumerate(looks) if ego.intersects(other)]
    k = touching[0] if touching else int(np.argmin([ego.distance(other) for ego, other in looks]))
    ahead = k * TTC_STRIDE * STEP
    when = f"would touch it in {ahead:.1f} s" if k else "touches it"
    words = f"gets too close to {_name(kind)} at {time:.1f} s: {when}"
    limit = (TTC_PROJECTIONS - 1) * TTC_STRIDE * STEP
    return [
        Failure(
            "TTC", time, overlap_center(*looks[k]), words, token, kind, value=ahead, limit=round(limit, 9)
        )
    ]


def _off_road(case: _Case, n: int) -> list[Failure]:
    t = int(np.argmax(case.scores.areas[n] & NON_DRIVABLE != 0))
    corner, position = corner_off_road(case.world, case.scores.simulated[n, t])
    name = CORNERS[corner]
    words = f"leaves the road at {t * STEP:.1f} s with its {name.replace('_', ' ')} corner"
    return [Failure("DAC", t * STEP, position, words, corner=name)]


def _off_route(case: _Case, n: int) -> list[Failure]:
    states = case.scores.simulated[n]
    meters = off_route_meters(states, case.scores.areas[n])
    most = float(meters.max())
    # Rounding may keep the sum in numpy below the kernel's; the first sample at the limit is meant.
    t = int(np.argmax(meters >= min(DDC_COMPLIANT, most)))
    words = (
        f"leaves the lanes of its route: {most:.1f} m off them within a second, "
        f"more than {DDC_COMPLIANT:.0f} m at {t * STEP:.1f} s"
    )
    return [Failure("DDC", t * STEP, ego_center(states[t]), words, value=most, limit=DDC_COMPLIANT)]


def _discomfort(case: _Case, n: int) -> list[Failure]:
    states = case.scores.simulated[n]
    failures = []
    for broken in broken_bounds(states):
        words = (
            f"drives uncomfortably at {broken.sample * STEP:.1f} s: {broken.name} "
            f"{broken.value:.2f} {_UNITS[broken.name]}, limit {broken.limit:.2f}"
        )
        failures.append(
            Failure(
                "C",
                broken.sample * STEP,
                ego_center(states[broken.sample]),
                words,
                bound=broken.name,
                value=broken.value,
                limit=broken.limit,
            )
        )
    return failures


def _progress(case: _Case, n: int) -> list[Failure]:
    scores = case.scores
    way, counted, full = float(scores.progress[n]), float(counted_progress(scores)[n]), float(case.full[n])
    values = scores.values[n]
    nc, dac = values[SCORE_COLUMNS.index("NC")], values[SCORE_COLUMNS.index("DAC")]
    if nc * dac == 0.0:
        why = "it collides" if nc == 0.0 else "it leaves the road"
        words = f"its progress of {way:.1f} m does not count, because {why}"
    else:
        halved = ", halved by the collision," if nc < 1.0 else ""
        words = f"makes too little progress: {way:.1f} m{halved} against {full:.1f} m"
    end = (NUM_STATES - 1) * STEP
    return [Failure("EP", end, ego_center(scores.simulated[n, -1]), words, value=counted, limit=full)]


_CAUSES: dict[str, Callable[[_Case, int], Sequence[Failure]]] = {
    "NC": _collision,
    "DAC": _off_road,
    "TTC": _time_to_collision,
    "C": _discomfort,
    "EP": _progress,
    "DDC": _off_route,
}


def _name(kind: str) -> str:
    return _OBJECTS.get(kind, f"a {kind}")
