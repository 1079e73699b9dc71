"""The ego along the centre line: progress (PDMS_V1, section 11) and lane keeping (EPDMS_V2, section 7)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Flags, Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    CENTER_IN_INTERSECTION,
    LANE_KEEPING_LIMIT,
    LANE_KEEPING_SAMPLES,
    NUM_STATES,
    REAR_AXLE_TO_CENTER,
)
from beyonddrive.evaluation.pdm.kernels.polyline import arc_length, square_distance

CHUNK = 16
"""Segments with bounds of their own; a matter of speed only."""


class Line(NamedTuple):
    """The centre line, prepared for the kernels below."""

    xy: Floats
    """(V, 2) vertices."""
    length: Floats
    """(V,) their arc lengths."""
    chunks: Floats
    """(C, 4) min x, min y, max x, max y of every 16 segments."""


def make_line(centerline: Floats) -> Line:
    """Prepare a centre line with vertices (V, >= 2)."""
    xy = np.ascontiguousarray(centerline[:, :2])
    starts = np.arange(0, max(len(xy) - 1, 1), CHUNK)
    low, high = np.minimum.reduceat(xy, starts), np.maximum.reduceat(xy, starts)
    # The last segment of a chunk ends at the first vertex of the next.
    low[:-1], high[:-1] = np.minimum(low[:-1], xy[starts[1:]]), np.maximum(high[:-1], xy[starts[1:]])
    return Line(xy, arc_length(xy), np.concatenate([low, high], axis=1))


@kernel
def is_near(line: Line, x: float, y: float, limit: float) -> bool:
    """Whether (x, y) is not farther than ``limit`` from the line."""
    xy, chunks, last = line.xy, line.chunks, len(line.xy) - 1
    reach = limit * (1.0 + 1e-6) + 1e-6
    for c in range(len(chunks)):
        if (
            x < chunks[c, 0] - reach
            or y < chunks[c, 1] - reach
            or x > chunks[c, 2] + reach
            or y > chunks[c, 3] + reach
        ):
            continue
        for i in range(c * CHUNK, min((c + 1) * CHUNK, last)):
            distance, _ = square_distance(xy, i, x, y)
            if distance <= limit * limit:
                return True
    return False


@kernel
def box_square_distance(chunks: Floats, c: int, x: float, y: float) -> float:
    """Squared distance of (x, y) to the bounds of a chunk, 0 inside."""
    dx = max(chunks[c, 0] - x, 0.0, x - chunks[c, 2])
    dy = max(chunks[c, 1] - y, 0.0, y - chunks[c, 3])
    return dx * dx + dy * dy


@kernel
def project_on_line(line: Line, x: float, y: float) -> float:
    """As :func:`polyline.project`, without the chunks that are too far away."""
    xy, length, chunks, last = line.xy, line.length, line.chunks, len(line.xy) - 1
    nearest, least = 0, np.inf
    for c in range(len(chunks)):
        square = box_square_distance(chunks, c, x, y)
        if square < least:
            nearest, least = c, square
    limit = np.inf
    for i in range(nearest * CHUNK, min((nearest + 1) * CHUNK, last)):
        distance, _ = square_distance(xy, i, x, y)
        limit = min(limit, distance)
    # Both distances are rounded; the slack is far more than that.
    limit += 1e-6 * (1.0 + limit)
    best, position = np.inf, 0.0
    for c in range(len(chunks)):
        if box_square_distance(chunks, c, x, y) > limit:
            continue
        for i in range(c * CHUNK, min((c + 1) * CHUNK, last)):
            distance, share = square_distance(xy, i, x, y)
            if distance < best:
                best = distance
                position = length[i] + share * (length[i + 1] - length[i])
    return position


@kernel
def center_progress(line: Line, state: Floats) -> float:
    """Arc length of the ego box centre on the centre line [m]."""
    x = state[0] + REAR_AXLE_TO_CENTER * math.cos(state[2])
    y = state[1] + REAR_AXLE_TO_CENTER * math.sin(state[2])
    return project_on_line(line, x, y)


@kernel
def lane_keeping(states: Floats, motion: Floats, flags: Flags, line: Line) -> tuple[float, int]:
    """1, or 0 with the sample at which the ego has been off the centre line for two seconds; -1 for none.

    Samples in an intersection are passed over, so those before and after it count together.
    """
    off = 0
    for t in range(NUM_STATES):
        if flags[t] & CENTER_IN_INTERSECTION:
            continue
        x = states[t, 0] + REAR_AXLE_TO_CENTER * motion[t, 0]
        y = states[t, 1] + REAR_AXLE_TO_CENTER * motion[t, 1]
        off = 0 if is_near(line, x, y, LANE_KEEPING_LIMIT) else off + 1
        if off >= LANE_KEEPING_SAMPLES:
            return 0.0, t
    return 1.0, -1
