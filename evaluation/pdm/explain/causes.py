"""What each failed sub-score of a plan comes from, one function per sub-score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCache
from beyonddrive.evaluation.pdm.explain.contact import (
    CORNERS,
    BrokenBound,
    broken_bounds,
    broken_history_bounds,
    corner_off_road,
    ego_center,
    object_box,
    off_route_meters,
    overlap_center,
    projected_box,
    too_far_off_route,
)
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    CENTER_IN_INTERSECTION,
    DDC_COMPLIANT,
    LANE_KEEPING_LIMIT,
    LANE_KEEPING_SAMPLES,
    NON_DRIVABLE,
    NUM_STATES,
    PROGRESS_THRESHOLD,
    STEP,
    TTC_PROJECTIONS,
    TTC_STRIDE,
)
from beyonddrive.evaluation.pdm.kernels.sub_scores import World
from beyonddrive.evaluation.pdm.scores.epdms import EpdmsScores
from beyonddrive.evaluation.pdm.scores.pdms import PdmScores
from beyonddrive.structures.boxes import OBJECT_TYPES

RED_LIGHT = "red_light"
"""Class of what is touched if a plan fails TLC."""

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
        time: When it was first broken [s after now]; 4.0 for progress, which is judged at the end; below 0
            for comfort of v2 if the driven past broke it already.
        position: (2,) global x, y [m]: the middle of the contact for NC, TTC and TLC, the corner that left
            the road for DAC, the middle of the ego box then for the others.
        words: What happened, for a reader.
        object_token: Track token of what was hit or came too close; for TLC the id of the lane that was red.
        object_type: Its class, one of :data:`beyonddrive.structures.boxes.OBJECT_TYPES`, or ``red_light``.
        corner: The first that left the road: ``front_left``, ``rear_left``, ``rear_right``, ``front_right``.
        bound: Name of the comfort bound, one of :data:`comfort.COMFORT_BOUNDS`.
        value: What was measured: the ego's speed at the contact [m/s] for NC; seconds until the contact for
            TTC; the most metres off the route's lanes within a second for DDC; the metres of progress that
            count for EP; metres beside the centre line for LK; the value farthest beyond the bound for
            comfort.
        limit: What it is held against: the longest look ahead [s] for TTC; 2 m for DDC; the metres that give
            full marks for EP; 0.5 m for LK; the bound for comfort, with its sign; None for NC, DAC, TLC,
            and for EP of v2 where pooled progress hides it.
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
class Case:
    """What causes are found in: scored plans of a scene.

    Attributes:
        cache: The scene.
        world: Its map and traffic, as the plans were scored in.
        scores: Scores of N plans.
        full: (N,) metres of progress that give full marks.
        counted: (N,) metres of progress that count.
    """

    cache: MetricCache
    world: World
    scores: PdmScores | EpdmsScores
    full: Floats
    counted: Floats

    def object(self, m: int) -> tuple[str, str]:
        """Track token and class of an object."""
        tracks = self.cache.tracks
        return tracks.tokens[m], OBJECT_TYPES[int(tracks.types[m])]


def _collision(case: Case, n: int) -> list[Failure]:
    m, time = int(case.scores.nc_object[n]), float(case.scores.nc_time[n])
    t = round(time / STEP)
    state = case.scores.simulated[n, t]
    token, kind = case.object(m)
    speed = float(np.hypot(state[3], state[4]))
    position = overlap_center(projected_box(state, 0.0), object_box(case.world.traffic, t, m))
    words = f"hits {_name(kind)} at {time:.1f} s, driving {speed:.1f} m/s"
    return [Failure("NC", time, position, words, token, kind, value=speed)]


def _time_to_collision(case: Case, n: int) -> list[Failure]:
    m, time = int(case.scores.ttc_object[n]), float(case.scores.ttc_time[n])
    t = round(time / STEP)
    state = case.scores.simulated[n, t]
    token, kind = case.object(m)
    # Had it been touched on an earlier look, it would be ignored by now: the first touch is the infraction.
    looks = [
        (projected_box(state, k * TTC_STRIDE * STEP), object_box(case.world.traffic, t + k * TTC_STRIDE, m))
        for k in range(TTC_PROJECTIONS)
    ]
    touching = [k for k, (ego, other) in enumerate(looks) if ego.intersects(other)]
    k = touching[0] if touching else int(np.nanargmin([ego.distance(other) for ego, other in looks]))
    ahead, limit = k * TTC_STRIDE * STEP, (TTC_PROJECTIONS - 1) * TTC_STRIDE * STEP
    when = f"would touch it in {ahead:.1f} s" if k else "touches it"
    words = f"gets too close to {_name(kind)} at {time:.1f} s: {when}"
    position = overlap_center(*looks[k])
    return [Failure("TTC", time, position, words, token, kind, value=ahead, limit=round(limit, 9))]


def _off_road(case: Case, n: int) -> list[Failure]:
    t = int(np.argmax(case.scores.areas[n] & NON_DRIVABLE != 0))
    corner, position = corner_off_road(case.world, case.scores.simulated[n, t])
    name = CORNERS[corner]
    words = f"leaves the road at {t * STEP:.1f} s with its {name.replace('_', ' ')} corner"
    return [Failure("DAC", t * STEP, position, words, corner=name)]


def _off_route(case: Case, n: int, exempt: int = 0) -> list[Failure]:
    states = case.scores.simulated[n]
    meters = off_route_meters(states[None], case.scores.areas[n, None], exempt)
    most, t = float(meters.max()), int(too_far_off_route(meters)[0])
    words = (
        f"leaves the lanes of its route: {most:.1f} m off them within a second, "
        f"more than {DDC_COMPLIANT:.0f} m at {t * STEP:.1f} s"
    )
    return [Failure("DDC", t * STEP, ego_center(states[t]), words, value=most, limit=DDC_COMPLIANT)]


def _off_route_extended(case: Case, n: int) -> list[Failure]:
    return _off_route(case, n, CENTER_IN_INTERSECTION)


def _discomfort(case: Case, n: int) -> list[Failure]:
    states = case.scores.simulated[n]
    return [_uncomfortable("C", bound, states) for bound in broken_bounds(states)]


def _history_discomfort(case: Case, n: int) -> list[Failure]:
    states, history = case.scores.simulated[n], case.world.history
    motion = np.concatenate([history, states])
    return [
        _uncomfortable("HC", bound, motion, len(history)) for bound in broken_history_bounds(history, states)
    ]


def _uncomfortable(column: str, broken: BrokenBound, states: Floats, past: int = 0) -> Failure:
    time = (broken.sample - past) * STEP
    words = (
        f"drives uncomfortably at {time:.1f} s: {broken.name} "
        f"{broken.value:.2f} {_UNITS[broken.name]}, limit {broken.limit:.2f}"
    )
    position = ego_center(states[broken.sample])
    return Failure(column, time, position, words, bound=broken.name, value=broken.value, limit=broken.limit)


def _progress(case: Case, n: int) -> list[Failure]:
    scores = case.scores
    way, counted = float(scores.progress[n]), float(case.counted[n])
    full: float | None = float(case.full[n])
    if isinstance(scores, PdmScores) and counted == 0.0 and way > 0.0:
        why = "it collides" if scores.column("NC")[n] == 0.0 else "it leaves the road"
        words = f"its progress of {way:.1f} m does not count, because {why}"
    elif isinstance(scores, EpdmsScores) and case.full[n] <= PROGRESS_THRESHOLD:
        # Only of a pooled batch: somebody went further, but no plan says how far exactly.
        words, full = "makes no progress along its route", None
    else:
        halved = ", halved by the collision," if counted < way else ""
        words = f"makes too little progress: {way:.1f} m{halved} against {full:.1f} m"
    end = (NUM_STATES - 1) * STEP
    return [Failure("EP", end, ego_center(scores.simulated[n, -1]), words, value=counted, limit=full)]


def _red_light(case: Case, n: int) -> list[Failure]:
    assert isinstance(case.scores, EpdmsScores) and case.cache.extended is not None
    light, time = int(case.scores.tlc_light[n]), float(case.scores.tlc_time[n])
    state = case.scores.simulated[n, round(time / STEP)]
    lane = str(case.cache.extended.light_ids[light])
    # A polygon that intersects itself is as good as its parts, for where the contact is.
    stretch = shapely.make_valid(case.cache.extended.lights.take(np.array([light])).geometries()[0])
    position = overlap_center(projected_box(state, 0.0), stretch)
    words = f"is on a stretch with a red light at {time:.1f} s"
    return [Failure("TLC", time, position, words, lane, RED_LIGHT)]


def _off_lane(case: Case, n: int) -> list[Failure]:
    assert isinstance(case.scores, EpdmsScores)
    time = float(case.scores.lk_time[n])
    center = ego_center(case.scores.simulated[n, round(time / STEP)])
    beside = float(shapely.LineString(case.world.line.xy).distance(shapely.Point(center)))
    words = (
        f"keeps off its lane: more than {LANE_KEEPING_LIMIT} m beside the centre line for "
        f"{LANE_KEEPING_SAMPLES * STEP:.0f} s, {beside:.1f} m at {time:.1f} s"
    )
    return [Failure("LK", time, center, words, value=beside, limit=LANE_KEEPING_LIMIT)]


Cause = Callable[[Case, int], Sequence[Failure]]

CAUSES: dict[str, Cause] = {
    "NC": _collision,
    "DAC": _off_road,
    "TTC": _time_to_collision,
    "C": _discomfort,
    "EP": _progress,
    "DDC": _off_route,
}
"""Of the PDM score, in the order in which failures are told: the multipliers of the score first, then its
terms, those that fail at once before the gradual one, and the column that does not count."""

EXTENDED_CAUSES: dict[str, Cause] = {
    "NC": _collision,
    "DAC": _off_road,
    "DDC": _off_route_extended,
    "TLC": _red_light,
    "TTC": _time_to_collision,
    "LK": _off_lane,
    "HC": _history_discomfort,
    "EP": _progress,
}
"""The same of EPDMS."""


def _name(kind: str) -> str:
    return _OBJECTS.get(kind, f"a {kind}")
