"""The reference planner on its paths: leads and the intelligent driver model (PDMS_V1, section 12.8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.box_in_polygon import box_in_corridor
from beyonddrive.evaluation.pdm.kernels.collision import boxes_touch
from beyonddrive.evaluation.pdm.kernels.constants import (
    HALF_LENGTH,
    HALF_WIDTH,
    HEADWAY,
    IDM_EXPONENT,
    LEAD_STRIDE,
    MAX_ACCELERATION,
    MAX_DECELERATION,
    MIN_GAP,
    REAR_AXLE_TO_CENTER,
    STEP,
)
from beyonddrive.evaluation.pdm.kernels.polyline import interpolate, project
from beyonddrive.evaluation.pdm.kernels.rings import point_segment
from beyonddrive.evaluation.pdm.kernels.str_tree import listing_order


class Obstacles(NamedTuple):
    """Forecast objects and, after them, red lights."""

    boxes: Floats
    """(26, N, 4) centre, cosine and sine of the heading."""
    half: Floats
    heading: Floats
    speed: Floats
    light_edges: Floats
    light_starts: Ints
    """Edges (E, 4) of the red lights' polygons and the first of each (R + 1,)."""
    light_bounds: Floats
    ignored: Bools
    """(N + R,)"""


@kernel
def corridor_candidates(
    obstacles: Obstacles, edges: Floats, bounds: Floats, line: Floats, length: Floats, projection: Floats
) -> None:
    """Project the objects in a corridor on its path: projection (26, N), NaN for those outside or ignored.

    Args: edges (E, 4) and bounds (4,) of the corridor, line (V, 3) and arc lengths (V,) of the path.
    """
    maps, count = obstacles.boxes.shape[0], obstacles.boxes.shape[1]
    for m in range(count):
        reach = obstacles.half[m, 0] + obstacles.half[m, 1]
        for k in range(maps):
            if k > 0 and obstacles.speed[m] == 0.0:
                projection[k, m] = projection[0, m]
                continue
            projection[k, m] = np.nan
            box = obstacles.boxes[k, m]
            if (
                obstacles.ignored[m]
                or box[0] + reach < bounds[0]
                or box[1] + reach < bounds[1]
                or box[0] - reach > bounds[2]
                or box[1] - reach > bounds[3]
            ):
                continue
            if box_in_corridor(box, obstacles.half[m, 0], obstacles.half[m, 1], edges):
                projection[k, m] = project(line, length, box[0], box[1])


@kernel
def box_edges(box: Floats, half_length: float, half_width: float, edges: Floats) -> None:
    """Write the four edges of a box x, y, cos, sin to edges (4, 4)."""
    ax, ay = half_length * box[2], half_length * box[3]
    lx, ly = -half_width * box[3], half_width * box[2]
    for i in range(4):
        front = 1.0 if i == 0 or i == 3 else -1.0
        left = 1.0 if i < 2 else -1.0
        edges[i, 0] = box[0] + front * ax + left * lx
        edges[i, 1] = box[1] + front * ay + left * ly
        edges[i - 1, 2], edges[i - 1, 3] = edges[i, 0], edges[i, 1]


@kernel
def ego_distance(ego_edges: Floats, edges: Floats) -> float:
    """Distance from the ego box x, y, cos, sin to a polygon that it does not touch, by edges of both."""
    best = np.inf
    for e in range(len(edges)):
        ax, ay, bx, by = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        for i in range(4):
            cx, cy, dx, dy = ego_edges[i, 0], ego_edges[i, 1], ego_edges[i, 2], ego_edges[i, 3]
            best = min(best, point_segment(cx, cy, ax, ay, bx, by))
            best = min(best, point_segment(ax, ay, cx, cy, dx, dy))
    return math.sqrt(best)


@kernel
def lead_distance(
    ego: Floats, ego_edges: Floats, obstacles: Obstacles, row: int, m: int, edges: Floats
) -> float:
    """Distance from the ego box x, y, cos, sin to an object or red light; edges (4, 4) is scratch."""
    count = obstacles.boxes.shape[1]
    if m >= count:
        light = obstacles.light_edges[
            obstacles.light_starts[m - count] : obstacles.light_starts[m - count + 1]
        ]
        if box_in_corridor(ego, HALF_LENGTH, HALF_WIDTH, light):
            return 0.0
        return ego_distance(ego_edges, light)
    box = obstacles.boxes[row, m]
    if boxes_touch(
        box[0] - ego[0],
        box[1] - ego[1],
        ego[2],
        ego[3],
        HALF_LENGTH,
        HALF_WIDTH,
        box[2],
        box[3],
        obstacles.half[m, 0],
        obstacles.half[m, 1],
    ):
        return 0.0
    box_edges(box, obstacles.half[m, 0], obstacles.half[m, 1], edges)
    return ego_distance(ego_edges, edges)


@kernel
def tree_rank(obstacles: Obstacles, row: int) -> Ints:
    """Rank (N + R,) of objects and lights in the listing of the spatial index of one map."""
    count = obstacles.boxes.shape[1]
    bounds = np.empty((len(obstacles.ignored), 4))
    for m in range(count):
        box = obstacles.boxes[row, m]
        dx = abs(obstacles.half[m, 0] * box[2]) + abs(obstacles.half[m, 1] * box[3])
        dy = abs(obstacles.half[m, 0] * box[3]) + abs(obstacles.half[m, 1] * box[2])
        bounds[m, 0], bounds[m, 1] = box[0] - dx, box[1] - dy
        bounds[m, 2], bounds[m, 3] = box[0] + dx, box[1] + dy
    bounds[count:] = obstacles.light_bounds
    rank = np.empty(len(bounds), np.int64)
    order = listing_order(bounds)
    for place in range(len(order)):
        rank[order[place]] = place
    return rank


@kernel
def find_lead(
    obstacles: Obstacles, row: int, projection: Floats, position: float, pose: Floats, lead: Floats
) -> bool:
    """Update lead (3,) progress, speed, rear with the nearest object ahead; False if the path is free.

    ``projection`` (N + R,) is of the candidates of this map, NaN for the rest; ``position`` and ``pose`` (3,)
    are the ego's on the path one step before. Fields that the rules leave out keep what the buffer held.
    """
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    ego = np.empty(4)
    ego[0], ego[1] = pose[0] + REAR_AXLE_TO_CENTER * cos, pose[1] + REAR_AXLE_TO_CENTER * sin
    ego[2], ego[3] = cos, sin
    ego_edges, edges = np.empty((4, 4)), np.empty((4, 4))
    box_edges(ego, HALF_LENGTH, HALF_WIDTH, ego_edges)
    best, nearest = np.inf, -1
    rank = np.empty(0, np.int64)
    for m in range(len(projection)):
        if not projection[m] > position:
            continue
        distance = lead_distance(ego, ego_edges, obstacles, row, m, edges)
        if distance == best:
            if len(rank) == 0:
                rank = tree_rank(obstacles, row)
            if rank[m] < rank[nearest]:
                nearest = m
        elif distance < best:
            best, nearest = distance, m
    if nearest < 0:
        return False
    lead[0] = position + best
    if nearest < obstacles.boxes.shape[1]:
        # cos(wrap(x)) is cos(x).
        lead[1] = obstacles.speed[nearest] * math.cos(obstacles.heading[nearest] - pose[2])
    return True


@kernel
def idm_acceleration(position: float, speed: float, target: float, lead: Floats) -> float:
    """Acceleration [m/s2] of the intelligent driver behind lead (3,) progress, speed, rear."""
    gap = max(lead[0] - position - lead[2], MIN_GAP)
    wanted = (
        MIN_GAP
        + HEADWAY * speed
        + speed * (speed - lead[1]) / (2.0 * math.sqrt(MAX_ACCELERATION * MAX_DECELERATION))
    )
    acceleration = MAX_ACCELERATION * (1.0 - (speed / target) ** IDM_EXPONENT - (wanted / gap) ** 2)
    return min(max(acceleration, -MAX_DECELERATION), MAX_ACCELERATION)


@kernel
def roll_out(
    line: Floats,
    length: Floats,
    targets: Floats,
    obstacles: Obstacles,
    projection: Floats,
    first: int,
    last: int,
    state: Floats,
    poses: Floats,
) -> None:
    """Move the proposals of one path along it, from sample ``first`` to ``last``.

    Args:
        line: (V, 3) x, y, unwrapped heading of the path.
        length: (V,) arc lengths of its vertices.
        targets: (Q,) target speeds of the proposals [m/s].
        obstacles: What may be in the way.
        projection: (26, N + R) of the candidates on this path, NaN for the rest.
        first: First sample to write; sample ``first - 1`` is there.
        last: Last sample to write.
        state: (Q, 51, 5) position, speed and lead of every proposal; read at ``first - 1``.
        poses: (Q, 51, 3) written alike.
    """
    buffer = np.empty(3)
    for t in range(first, last + 1):
        if t % LEAD_STRIDE == 0:
            # One buffer for the group: what one proposal leaves in it, the next one finds.
            buffer[:] = 0.0
            for q in range(len(targets)):
                row = t // LEAD_STRIDE
                position = state[q, t - 1, 0]
                if not find_lead(obstacles, row, projection[row], position, poses[q, t - 1], buffer):
                    buffer[0], buffer[2] = length[-1], HALF_LENGTH
                state[q, t, 2:] = buffer
        else:
            state[:, t, 2:] = state[:, t - 1, 2:]
        for q in range(len(targets)):
            position, speed = state[q, t - 1, 0], state[q, t - 1, 1]
            acceleration = idm_acceleration(position, speed, targets[q], state[q, t, 2:])
            state[q, t, 0] = position + STEP * speed
            state[q, t, 1] = speed + STEP * acceleration
            interpolate(line, length, state[q, t, 0], poses[q, t])
