"""Whether a drive in a simulated town stays on the road and keeps clear of everybody.

Asked of the simulated driver, who must be an example, and of a car that keeps its speed and heading, which
should not be one in most scenes.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.structures.boxes import (
    EGO_LENGTH,
    EGO_REAR_AXLE_TO_CENTER,
    EGO_WIDTH,
    box_corners,
)
from beyonddrive.synth.recorded_town import RecordedTown

ROAD_MARGIN = 0.3
"""The driver must stay this far inside the drivable area [m]: a tracker of its plan deviates a little."""
OBJECT_MARGIN = 0.25
"""... and this far from everybody [m]."""
LOOK_AHEAD = (0, 3, 6, 9)
"""Steps of 0.1 s ahead at which the ego, going straight on, must be clear (PDMS_V1, section 9)."""
STRIDE = 2
"""Every so many steps are checked."""
REACH = 12.0
"""More than half the ego and half of the longest thing that stands [m]."""
PLAN_STEPS = 40
"""Length of a plan in steps."""
AHEAD, BESIDE = np.cos(np.deg2rad(32.0)), np.cos(np.deg2rad(150.0))


def boxes_overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether boxes with corners (N, 4, 2) overlap, row by row.

    >>> box = box_corners([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0], 4.0, 2.0)
    >>> boxes_overlap(box, box_corners([[3.9, 0.0], [4.1, 0.0]], [0.0, 0.0], 4.0, 2.0)).tolist()
    [True, False]
    """
    apart = np.zeros(len(a), dtype=bool)
    for box in (a, b):
        for i, j in ((0, 1), (1, 2)):
            axis = box[:, j] - box[:, i]
            mine, other = np.einsum("nkd,nd->nk", a, axis), np.einsum("nkd,nd->nk", b, axis)
            apart |= (mine.max(1) < other.min(1)) | (other.max(1) < mine.min(1))
    return ~apart


def _ego_boxes(poses: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    along = np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=-1)
    center = poses[:, :2] + EGO_REAR_AXLE_TO_CENTER * along
    return box_corners(center, poses[:, 2], EGO_LENGTH + 2 * margin, EGO_WIDTH + 2 * margin)


class Clearance:
    """Checks drives in a recorded town against its map and everybody in it."""

    def __init__(self, town: RecordedTown) -> None:
        layers = town.town_map.layers
        names = ("lane_groups_polygons", "intersections", "carpark_areas")
        self._town = town
        self._drivable = shapely.union_all([g for name in names for g in layers[name].geometries])
        self._junctions = shapely.union_all(layers["intersections"].geometries)
        shapely.prepare(self._drivable)
        shapely.prepare(self._junctions)

    def expert_is_good(self, ego: int, first: int, end: int) -> bool:
        """Whether mover ``ego`` is an example from row ``first`` to ``end`` of its motion.

        It must stay on the road, touch nobody, and have no time to collision of less than 0.9 s, in the sense
        of the score (PDMS_V1, sections 7 and 9).
        """
        motion = self._town.motions[ego]
        rows = np.arange(first, min(end + 1, len(motion.pose)), STRIDE)
        poses, speed = motion.pose[rows], motion.speed[rows]
        return self._on_road(poses, ROAD_MARGIN) and not any(
            self._meets_somebody(ego, motion.first + rows, poses, speed, later, OBJECT_MARGIN)
            for later in LOOK_AHEAD
        )

    def constant_velocity_is_good(self, ego: int, row: int) -> bool:
        """Whether mover ``ego``, going on for 4 s as at ``row`` of its motion, stays on the road, clear."""
        motion = self._town.motions[ego]
        steps = np.arange(0, PLAN_STEPS + 1, STRIDE)
        poses = np.repeat(motion.pose[row][None], len(steps), axis=0)
        distance = 0.1 * steps * motion.speed[row]
        poses[:, 0] += distance * np.cos(poses[:, 2])
        poses[:, 1] += distance * np.sin(poses[:, 2])
        speed = np.full(len(steps), motion.speed[row])
        return self._on_road(poses, 0.0) and not self._meets_somebody(
            ego, motion.first + row + steps, poses, speed, 0, 0.0
        )

    def _on_road(self, poses: NDArray[np.float64], margin: float) -> bool:
        corners = _ego_boxes(poses, margin).reshape(-1, 2)
        return bool(shapely.contains_xy(self._drivable, corners[:, 0], corners[:, 1]).all())

    def _meets_somebody(
        self,
        ego: int,
        steps: NDArray[np.int64],
        poses: NDArray[np.float64],
        speed: NDArray[np.float64],
        later: int,
        margin: float,
    ) -> bool:
        """Whether the ego, going straight on for ``later`` steps from each pose, touches somebody then.

        Whoever is behind does not count; in a junction those beside count, elsewhere only those ahead.
        """
        town = self._town
        keep = (steps + later < town.num_steps) & ((speed > 0.05) | (later == 0))
        if not keep.any():
            return False
        steps, poses, speed = steps[keep] + later, poses[keep], speed[keep]
        direction = np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=-1)
        moved = poses.copy()
        moved[:, :2] += direction * (0.1 * later * speed)[:, None]
        # Only what stands within reach of the stretch can be met.
        lowest, highest = moved[:, :2].min(0) - REACH, moved[:, :2].max(0) + REACH
        inside = (town.static_center > lowest) & (town.static_center < highest)
        things = np.flatnonzero(inside.all(axis=1))
        count, movers = len(steps), town.center.shape[1]
        static = np.broadcast_to(town.static_center[things], (count, len(things), 2))
        centers = np.concatenate([town.center[steps], static], axis=1)
        rows = np.concatenate([np.arange(movers), things + movers])
        relative = centers - moved[:, None, :2]
        near = np.hypot(relative[..., 0], relative[..., 1]) < 4.4 + town.size[rows, 0] / 2
        near[:, ego] = False
        when, what = np.nonzero(near)
        if not len(when):
            return False
        to_object = centers[when, what] - poses[when, :2]
        cosine = (to_object * direction[when]).sum(-1) / np.maximum(np.hypot(*to_object.T), 1e-9)
        in_junction = shapely.contains_xy(self._junctions, poses[:, 0], poses[:, 1])
        wide = in_junction[when] if later else np.ones(len(when), dtype=bool)
        counts = cosine > np.where(wide, BESIDE, AHEAD)
        when, what = when[counts], what[counts]
        static_heading = np.broadcast_to(town.static_heading[things], (count, len(things)))
        heading = np.concatenate([town.heading[steps], static_heading], axis=1)[when, what]
        size = town.size[rows[what]]
        others = box_corners(centers[when, what], heading, size[:, 0], size[:, 1])
        return bool(boxes_overlap(_ego_boxes(moved, margin)[when], others).any())
