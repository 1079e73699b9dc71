"""Red lights: lanes and connectors that the ego must not touch while they are red (EPDMS_V2, section 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.box_in_polygon import box_in_corridor
from beyonddrive.evaluation.pdm.kernels.collision import EGO_RADIUS, SLACK
from beyonddrive.evaluation.pdm.kernels.constants import (
    FRAME_STRIDE,
    HALF_LENGTH,
    HALF_WIDTH,
    NUM_STATES,
    REAR_AXLE_TO_CENTER,
)
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings


class Lights(NamedTuple):
    """Lanes and connectors of the route that are red at some time."""

    edges: Floats
    """(E, 4) of all polygons,"""
    starts: Ints
    """and the first of each (L + 1,)."""
    bounds: Floats
    """(L, 4) min x, min y, max x, max y."""
    red: Bools
    """(9, L) in the current frame and the eight after it; each holds until the next."""


def make_lights(polygons: PolygonRings, red: Bools) -> Lights:
    """Prepare L polygons, red in frames as (9, L) says."""
    edges, starts = polygons.edges()
    bounds = np.array([_bounds(edges[a:b]) for a, b in pairwise(starts)])
    return Lights(edges, starts, bounds.reshape(-1, 4), np.ascontiguousarray(red, dtype=np.bool_))


def _bounds(edges: Floats) -> Floats:
    return np.concatenate([edges[:, :2].min(axis=0), edges[:, :2].max(axis=0)])


@kernel
def traffic_light_compliance(states: Floats, motion: Floats, lights: Lights) -> tuple[float, int, int]:
    """Sub-score of states (41, 11), sample and light of the first contact with a red one, -1 for none."""
    box = np.empty(4)
    reach = EGO_RADIUS + SLACK
    for t in range(NUM_STATES if len(lights.bounds) else 0):
        cos, sin = motion[t, 0], motion[t, 1]
        box[0], box[1] = states[t, 0] + REAR_AXLE_TO_CENTER * cos, states[t, 1] + REAR_AXLE_TO_CENTER * sin
        box[2], box[3] = cos, sin
        for r in range(len(lights.bounds)):
            bounds = lights.bounds[r]
            if (
                not lights.red[t // FRAME_STRIDE, r]
                or box[0] + reach < bounds[0]
                or box[1] + reach < bounds[1]
                or box[0] - reach > bounds[2]
                or box[1] - reach > bounds[3]
            ):
                continue
            edges = lights.edges[lights.starts[r] : lights.starts[r + 1]]
            if box_in_corridor(box, HALF_LENGTH, HALF_WIDTH, edges):
                return 0.0, t, r
    return 1.0, -1, -1
