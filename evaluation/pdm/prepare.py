"""A scene made ready for the kernels: grid of polygons, traffic, centre line, the reference planner's row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.areas import AreaMasks, area_masks
from beyonddrive.evaluation.pdm.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.collision import Traffic
from beyonddrive.evaluation.pdm.constants import REAR_AXLE_TO_CENTER
from beyonddrive.evaluation.pdm.grid import Grid, build_grid
from beyonddrive.evaluation.pdm.kernels import score_references
from beyonddrive.evaluation.pdm.polygons import PolygonRings
from beyonddrive.evaluation.pdm.polyline import arc_length
from beyonddrive.evaluation.pdm.reference import plan_stamps, proposal_stamps, sample_poses, sampling


class PreparedScene(NamedTuple):
    """What scoring a plan reads; nothing in it depends on the plan."""

    ego: Floats
    """(11,) state now."""
    interval: Ints
    time: Floats
    """Where the samples of a plan fall (:func:`beyonddrive.evaluation.pdm.reference.sampling`)."""
    grid: Grid
    masks: AreaMasks
    traffic: Traffic
    line: Floats
    length: Floats
    """Centre line (V, 2) and its arc lengths (V,)."""
    reference_progress: float
    """Progress of the reference planner [m], times its NC and DAC."""


def prepare(
    ego_state: Floats,
    time_us: int,
    proposal: Floats,
    centerline: Floats,
    polygons: PolygonRings,
    polygon_types: NDArray[np.int8],
    on_route: Bools,
    traffic: Traffic,
) -> PreparedScene:
    """Prepare a scene and score the reference planner's trajectory in it.

    Args:
        ego_state: (11,) state now.
        time_us: Time stamp now [us].
        proposal: (51, 3) poses of the reference planner.
        centerline: (V, >= 2) vertices.
        polygons: P polygons of the drivable map.
        polygon_types: (P,) classes of the polygons.
        on_route: (P,) which polygons are of a lane or connector of the route.
        traffic: Other road users.
    """
    grid, masks = scene_map(ego_state, polygons, polygon_types, on_route)
    line = np.ascontiguousarray(centerline[:, :2])
    length = arc_length(line)
    reference = np.empty((1, 41, 3))
    sample_poses(proposal.copy(), *sampling(time_us, proposal_stamps(time_us)), reference[0])
    _, _, scores, progress, _ = score_references(reference, ego_state, grid, masks, traffic, line, length)
    interval, time = sampling(time_us, plan_stamps(time_us))
    return PreparedScene(
        ego_state,
        interval,
        time,
        grid,
        masks,
        traffic,
        line,
        length,
        float(progress[0] * scores[0, 0] * scores[0, 1]),
    )


def scene_map(
    ego_state: Floats,
    polygons: PolygonRings,
    polygon_types: NDArray[np.int8],
    on_route: Bools,
) -> tuple[Grid, AreaMasks]:
    """Grid and masks of the drivable map around the ego."""
    x = float(ego_state[0] + REAR_AXLE_TO_CENTER * np.cos(ego_state[2]))
    y = float(ego_state[1] + REAR_AXLE_TO_CENTER * np.sin(ego_state[2]))
    return build_grid(polygons, x, y), area_masks(polygon_types, on_route)
