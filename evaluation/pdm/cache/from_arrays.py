"""Metric caches from plain arrays: the score for simulators, RL loops and others, without logs and maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.cache.array_inputs import (
    agent_tracks,
    as_centerline,
    as_numbers,
    as_polygons,
    now_of,
)
from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCache, MetricCacheError
from beyonddrive.evaluation.pdm.inputs.extended import ExtendedScene
from beyonddrive.evaluation.pdm.kernels.arrays import Bools
from beyonddrive.evaluation.pdm.kernels.constants import (
    CARPARK_AREA,
    DEFAULT_SPEED_LIMIT,
    INTERSECTION,
    LANE,
    NUM_FRAMES_V2,
    NUM_MAPS,
    PLAN_INTERVAL_US,
    ROADBLOCK,
)
from beyonddrive.evaluation.pdm.kernels.polygons import concatenate
from beyonddrive.evaluation.pdm.kernels.prepared import scene_map
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE
from beyonddrive.evaluation.pdm.reference.forecast import forecast_objects
from beyonddrive.evaluation.pdm.reference.pdm_closed import reference_trajectories

Polygons = Sequence[ArrayLike | shapely.Geometry]
"""Vertices (V, 2) of each polygon [m], or shapely polygons and multi-polygons."""


def metric_cache_from_arrays(
    ego: ArrayLike,
    centerline: ArrayLike,
    lanes: Polygons,
    *,
    on_route: ArrayLike | None = None,
    roads: Polygons | None = None,
    intersections: Polygons = (),
    car_parks: Polygons = (),
    agent_poses: ArrayLike | None = None,
    agent_sizes: ArrayLike | None = None,
    agent_types: Sequence[str] = (),
    agent_velocities: ArrayLike | None = None,
    agent_tokens: Sequence[str] | None = None,
    red_lights: Polygons = (),
    red: ArrayLike | None = None,
    speed_limit: float = DEFAULT_SPEED_LIMIT,
    reference: ArrayLike | None = None,
    history: ArrayLike | None = None,
    human: ArrayLike | None = None,
    token: str = "scene",
    time_us: int = 0,
) -> MetricCache:
    """Describe a scene by arrays; the result goes to :func:`beyonddrive.evaluation.pdm.score` like any other.

    Metres, seconds, radians in one frame that does not move (any origin will do). A point is in a polygon
    if a ray from it crosses the outline an odd number of times, which also defines outlines that intersect
    themselves; a point on an outline is outside.

    Args:
        ego: (7,) x, y, heading of the rear axle; vx, vy, ax, ay along and across the ego. All of it now.
        centerline: (V, 2) what the ego is to follow, in driving direction; may begin behind the ego.
        lanes: L lanes; on more than one of them at once, the ego is to blame for a touch from the side.
        on_route: (L,) which lanes are of the ego's route, away from which DDC counts; None for all.
        roads: Where the ego may drive, besides intersections and car parks. None: the lanes.
        intersections: Drivable. There TTC looks to the sides too, and v2 has no DDC and lane keeping.
        car_parks: Drivable, nothing else.
        agent_poses: (11, M, 3) centre x, y, heading of M agents now and every 0.5 s after; NaN where an agent
            is not there. A simulator at 10 Hz gives every fifth of its next 51 steps.
        agent_sizes: (M, 2) length and width.
        agent_types: M classes out of :data:`beyonddrive.structures.boxes.OBJECT_TYPES`.
        agent_velocities: (M, 2) velocity when first there; None: from the first two poses, 0 if there is one.
        agent_tokens: M names, each of its own; None: ``'agent 0'`` and so on.
        red_lights: R stretches of road that the ego must not enter while their light is red.
        red: (9, R) whether the light is, now and every 0.5 s after; None: always.
        speed_limit: Of the reference planner [m/s].
        reference: (51, 3) x, y, heading of the rear axle every 0.1 s: whom progress is compared with. None:
            the reference planner of the score (PDM-Closed), which drives in this scene.
        history: (3, 7) the ego as above 1.5, 1.0 and 0.5 s ago. Only for v2, which needs it,
        human: and (8, 3) what the human driver did: poses like a plan's, in the ego frame now.
        token: What to call the scene in errors.
        time_us: Time stamp now [us]; it moves samples by a microsecond, as it does in the official code.

    Raises:
        MetricCacheError: If an array has another shape or is not finite, an agent has no size, an unknown
            class or the name of another, or a polygon is empty; the message names the argument.

    >>> from beyonddrive.evaluation.pdm import explain, metric_cache_from_arrays, score
    >>> road = [[-20, -4], [120, -4], [120, 4], [-20, 4]]
    >>> standing_car = np.tile([30.0, 0.0, 0.0], (11, 1, 1))
    >>> cache = metric_cache_from_arrays(
    ...     ego=[0, 0, 0, 10, 0, 0, 0],
    ...     centerline=[[-20, 0], [120, 0]],
    ...     lanes=[road],
    ...     agent_poses=standing_car,
    ...     agent_sizes=[[4.8, 2.0]],
    ...     agent_types=["vehicle"],
    ... )
    >>> plans = np.zeros((2, 8, 3))
    >>> plans[0, :, 0] = 5.0 * np.arange(1, 9)  # on at 10 m/s, into the car
    >>> plans[1, :, 0] = [4.8, 9.0, 12.5, 15.2, 17.0, 18.0, 18.4, 18.5]  # stops behind it
    >>> score(cache, plans).column("NC").tolist()
    [0.0, 1.0]
    >>> print(explain(cache, plans)[0].of("NC")[0])
    hits a vehicle at 2.4 s, driving 10.0 m/s
    """
    state = np.zeros(STATE_SIZE)
    state[:7] = as_numbers(token, "ego", ego, (7,))
    line = as_centerline(token, centerline)
    lane_rings, road_rings = as_polygons(token, "lanes", lanes), as_polygons(token, "roads", roads or ())
    if roads is None:
        road_rings = lane_rings
    parts = (
        (ROADBLOCK, road_rings),
        (LANE, lane_rings),
        (INTERSECTION, as_polygons(token, "intersections", intersections)),
        (CARPARK_AREA, as_polygons(token, "car_parks", car_parks)),
    )
    polygons = concatenate([rings for _, rings in parts])
    types = np.repeat([kind for kind, _ in parts], [len(rings) for _, rings in parts]).astype(np.int8)
    ids = np.arange(len(polygons), dtype=np.int64)
    lane_ids = ids[types == LANE]
    if on_route is not None:
        lane_ids = lane_ids[_flags(token, "on_route", on_route, (len(lane_ids),))]
    lights = as_polygons(token, "red_lights", red_lights)
    light_red = np.ones((NUM_FRAMES_V2, len(lights)), dtype=bool)
    if red is not None:
        light_red = _flags(token, "red", red, light_red.shape)
    tracks = agent_tracks(token, agent_poses, agent_sizes, agent_types, agent_velocities, agent_tokens)

    if reference is not None:
        proposal = extended_proposal = as_numbers(token, "reference", reference, (NUM_MAPS, 3))
    else:
        if not (np.isfinite(speed_limit) and speed_limit >= 0):
            raise MetricCacheError(f"{token}: speed_limit must not be below 0 m/s, got {speed_limit}")
        grid, masks = scene_map(state, polygons, types, np.isin(ids, lane_ids))
        now = lights.take(np.flatnonzero(light_red[0]))
        try:
            expected = forecast_objects(*now_of(tracks), now, now.geometries(), state[:3])
            proposal, extended_proposal = reference_trajectories(
                state, line, float(speed_limit), expected, grid, masks
            )
        except shapely.errors.GEOSException as error:
            raise MetricCacheError(f"{token}: red_lights: a polygon is not valid ({error})") from error
    extended = None
    if (history is None) != (human is None):
        raise MetricCacheError(f"{token}: v2 needs both history and human; give both or neither")
    if history is not None and human is not None:
        extended = ExtendedScene(
            extended_proposal,
            as_numbers(token, "human", human, (8, 3)),
            time_us + PLAN_INTERVAL_US * np.arange(-3, 1, dtype=np.int64),
            np.concatenate([as_numbers(token, "history", history, (3, 7)), state[None, :7]]),
            len(polygons) + np.arange(len(lights), dtype=np.int64),
            light_red,
            lights,
        )
    return MetricCache(
        token, "arrays", time_us, state, proposal, line, lane_ids, polygons, ids, types, tracks, extended
    )


def _flags(token: str, name: str, values: ArrayLike, shape: tuple[int, ...]) -> Bools:
    array = np.asarray(values)
    if array.shape != shape or (array.size and array.dtype.kind not in "bui"):
        raise MetricCacheError(
            f"{token}: {name} must be booleans of shape {shape}, got {array.dtype} {array.shape}"
        )
    return array.astype(bool)
