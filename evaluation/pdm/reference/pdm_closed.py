"""PDM-Closed, the reference planner: the best of fifteen proposals (PDMS_V1, section 12.8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.kernels.areas import AreaMasks
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    CORRIDOR_SECONDS,
    CORRIDOR_SEGMENTS,
    HALF_WIDTH,
    LATERAL_OFFSETS,
    NUM_FRAMES_V2,
    NUM_MAPS,
    NUM_STATES,
    SPEED_FRACTIONS,
    TTC_SAMPLES_V2,
)
from beyonddrive.evaluation.pdm.kernels.grid import Grid
from beyonddrive.evaluation.pdm.kernels.lane_keeping import make_line
from beyonddrive.evaluation.pdm.kernels.lights import make_lights
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings
from beyonddrive.evaluation.pdm.kernels.polyline import arc_length, interpolate, project
from beyonddrive.evaluation.pdm.kernels.prepared import NO_HISTORY
from beyonddrive.evaluation.pdm.kernels.sub_scores import EPDMS, PDMS, TTC_SAMPLE, World, score_references
from beyonddrive.evaluation.pdm.reference.forecast import Forecast
from beyonddrive.evaluation.pdm.reference.idm import Obstacles, corridor_candidates, roll_out
from beyonddrive.evaluation.pdm.scores.epdms import extended_progress, one_stage_score
from beyonddrive.evaluation.pdm.scores.pdms import final_score, relative_progress


@dataclass(frozen=True, eq=False)
class Path:
    """A line that proposals follow.

    Attributes:
        line: (V, 3) x, y, unwrapped heading.
        length: (V,) arc lengths.
        start: Arc length of the ego's projection now.
        projection: (26, N + R) arc lengths of what is in the corridor, NaN for the rest.
    """

    line: Floats
    length: Floats
    start: float
    projection: Floats


def reference_trajectories(
    ego: Floats,
    centerline: Floats,
    speed_limit: float,
    expected: Forecast,
    grid: Grid,
    masks: AreaMasks,
) -> tuple[Floats, Floats]:
    """Poses (51, 3) of PDM-Closed every 0.1 s, global: the choice by PDMS, and the choice by EPDMS.

    NaN from 0.2 s on where the ego stands under a speed limit of 0.

    Args:
        ego: (11,) state now.
        centerline: (V, 3) x, y, heading.
        speed_limit: [m/s]
        expected: Traffic as it is forecast.
        grid: The drivable map,
        masks: and which of its polygons are what.
    """
    obstacles = _obstacles(expected)
    targets = np.array(SPEED_FRACTIONS) * speed_limit
    paths = [
        _path(ego, centerline, offset, float(targets.max()), expected, obstacles)
        for offset in LATERAL_OFFSETS
    ]
    count = len(targets)
    state = np.zeros((len(paths) * count, NUM_MAPS, 5))
    poses = np.empty((len(paths) * count, NUM_MAPS, 3))
    for p, path in enumerate(paths):
        group = slice(p * count, (p + 1) * count)
        state[group, 0, 0], state[group, 0, 1] = path.start, ego[3]
        interpolate(path.line, path.length, path.start, poses[p * count, 0])
        poses[group, 0] = poses[p * count, 0]
        _roll_out(path, targets, obstacles, 1, NUM_STATES - 1, state[group], poses[group])
    # An ego that stands under a speed limit of 0 has an acceleration of 0 / 0. The official code goes on with
    # the NaN: no proposal scores above 0, and the first is taken.
    chosen = (0, 0)
    if np.isfinite(poses[:, :NUM_STATES]).all():
        chosen = _best(ego, poses[:, :NUM_STATES], centerline, expected, grid, masks)
    for best in set(chosen):
        path, own = paths[best // count], slice(best, best + 1)
        target = targets[best % count : best % count + 1]
        _roll_out(path, target, obstacles, NUM_STATES, NUM_MAPS - 1, state[own], poses[own])
    return poses[chosen[0]].copy(), poses[chosen[1]].copy()


def _obstacles(expected: Forecast) -> Obstacles:
    edges, starts = expected.lights.edges()
    traffic = expected.traffic
    return Obstacles(
        traffic.boxes,
        traffic.half,
        expected.heading,
        expected.speed,
        edges,
        starts,
        expected.light_bounds,
        expected.ignored,
    )


def _path(
    ego: Floats,
    centerline: Floats,
    offset: float,
    top_speed: float,
    expected: Forecast,
    obstacles: Obstacles,
) -> Path:
    """The centre line moved to the left by ``offset`` [m], and what is in its corridor."""
    heading = centerline[:, 2]
    line = np.empty_like(centerline)
    line[:, 0] = centerline[:, 0] + offset * np.cos(heading + np.pi / 2)
    line[:, 1] = centerline[:, 1] + offset * np.sin(heading + np.pi / 2)
    line[:, 2] = np.unwrap(heading)
    length = arc_length(line[:, :2])
    start = project(line, length, ego[0], ego[1])
    corridor = _corridor(line, length, start, start + CORRIDOR_SECONDS * top_speed)
    count = len(expected.heading)
    projection = np.full((len(obstacles.boxes), len(obstacles.ignored)), np.nan)
    edges, _ = PolygonRings.from_geometries([corridor]).edges()
    corridor_candidates(obstacles, edges, np.array(corridor.bounds), line, length, projection)
    for r in np.flatnonzero(shapely.intersects(corridor, expected.light_shapes)):
        if not obstacles.ignored[count + r]:
            x, y = expected.light_centers[r]
            projection[:, count + r] = project(line, length, x, y)
    return Path(line, length, start, projection)


def _corridor(line: Floats, length: Floats, start: float, end: float) -> shapely.Geometry:
    """Where the ego's width passes between two arc lengths: whole pieces of the path if there are any."""
    start, end = min(max(start, 0.0), length[-1]), min(max(end, 0.0), length[-1])
    within = (length >= start) & (length <= end)
    if within.sum() >= 2:
        part = shapely.LineString(line[within, :2])
    else:
        x, y = (np.interp([start, end], length, line[:, c]) for c in range(2))
        part = shapely.LineString(np.column_stack([x, y]))
        if start == end:
            part = shapely.Point(x[0], y[0])
    return shapely.buffer(
        part, HALF_WIDTH, quad_segs=CORRIDOR_SEGMENTS, cap_style="square", join_style="round"
    )


def _roll_out(
    path: Path,
    targets: Floats,
    obstacles: Obstacles,
    first: int,
    last: int,
    state: Floats,
    poses: Floats,
) -> None:
    roll_out(path.line, path.length, targets, obstacles, path.projection, first, last, state, poses)


def _best(
    ego: Floats,
    proposals: Floats,
    centerline: Floats,
    expected: Forecast,
    grid: Grid,
    masks: AreaMasks,
) -> tuple[int, int]:
    """The first proposals with the highest score on the forecast, by PDMS and by EPDMS."""
    lights = make_lights(expected.lights, np.ones((NUM_FRAMES_V2, len(expected.lights)), dtype=bool))
    world = World(grid, masks, expected.traffic, make_line(centerline), lights, NO_HISTORY)
    _, _, scores, progress, first = score_references(
        np.ascontiguousarray(proposals), ego, world, PDMS | EPDMS
    )
    nc, dac, ttc, comfort, _, ddc, tlc, lane, past = scores.T
    ep = relative_progress(progress, nc * dac, 0.0, pooled=True)
    best = int(np.argmax(final_score(nc, dac, ep, ttc, comfort)))
    soon = (first[:, TTC_SAMPLE] >= 0) & (first[:, TTC_SAMPLE] < TTC_SAMPLES_V2)
    ttc = np.where(soon, 0.0, 1.0)
    ep = extended_progress(progress, nc * dac * ddc * tlc, 0.0, pooled=True)
    extended = one_stage_score(np.column_stack([nc, dac, ddc, tlc, ep, ttc, lane, past]))
    return best, int(np.argmax(extended))
