"""A scene made ready for the kernels: what scoring a plan reads, none of it dependent on the plan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.kernels.areas import AreaMasks, area_masks
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import (
    NUM_FRAMES_V2,
    NUM_STATES,
    REAR_AXLE_TO_CENTER,
    STEP,
)
from beyonddrive.evaluation.pdm.kernels.grid import HALF_EXTENT, Grid, build_grid
from beyonddrive.evaluation.pdm.kernels.lights import Lights
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE
from beyonddrive.evaluation.pdm.kernels.sub_scores import World

SIMULATED_SECONDS = STEP * (NUM_STATES - 1)
GRID_MARGIN = 20.0
"""The grid reaches so far around the way that the ego may cover [m]."""
NO_LIGHTS = Lights(
    np.zeros((0, 4)), np.zeros(1, np.int64), np.zeros((0, 4)), np.zeros((NUM_FRAMES_V2, 0), np.bool_)
)
NO_HISTORY = np.zeros((0, STATE_SIZE))


class PreparedScene(NamedTuple):
    """What scoring a plan reads; nothing in it depends on the plan."""

    ego: Floats
    """(11,) state now."""
    interval: Ints
    time: Floats
    """Where the samples of a plan fall (:func:`beyonddrive.evaluation.pdm.kernels.plan_states.sampling`)."""
    world: World
    reference_progress: float
    """Progress of the reference planner [m], times what multiplies its score."""
    human: Floats
    """(8,) sub-scores of the human driver as the filter of EPDMS sees them; ones for PDMS."""


def scene_map(
    ego_state: Floats,
    polygons: PolygonRings,
    polygon_types: NDArray[np.int8],
    on_route: Bools,
) -> tuple[Grid, AreaMasks]:
    """Grid and masks of the drivable map where the ego can get to."""
    cos, sin = np.cos(ego_state[2]), np.sin(ego_state[2])
    # As far as it gets when it speeds up; what lies beyond is looked up as well, only slower.
    reach = min(SIMULATED_SECONDS * abs(ego_state[3]) + 16.0, 2.0 * (HALF_EXTENT - GRID_MARGIN))
    ahead = REAR_AXLE_TO_CENTER + (0.5 * reach if ego_state[3] >= 0.0 else -0.5 * reach)
    x, y = float(ego_state[0] + ahead * cos), float(ego_state[1] + ahead * sin)
    return build_grid(polygons, x, y, 0.5 * reach + GRID_MARGIN), area_masks(polygon_types, on_route)
