"""Which vehicles of a scene react to the ego, and on which rails (EPDMS_TWO_STAGE, sections 4.1 to 4.3).

Nothing here depends on a plan, so it is found once per scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex
from beyonddrive.evaluation.pdm.inputs.tracks import TYPE_INDEX, Tracks
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats
from beyonddrive.evaluation.pdm.kernels.bands import ring_capacity
from beyonddrive.evaluation.pdm.kernels.collision import Traffic
from beyonddrive.evaluation.pdm.kernels.constants import NUM_FRAMES_V2
from beyonddrive.evaluation.pdm.kernels.polyline import arc_length
from beyonddrive.evaluation.pdm.reference.rails import Fleet
from beyonddrive.evaluation.pdm.reference.start_segments import LaneLocator, StartSegment
from beyonddrive.structures.boxes import ego_corners
from beyonddrive.structures.errors import BeyondDriveError

DEFAULT_SPEED = 10.0
"""Wanted where a lane has no speed limit, unless an earlier vehicle's lane had one [m/s]."""
SNAP_DISTANCE = 3.0
"""Vehicles farther from their lane's baseline are not simulated [m]."""
STANDING_SPEED = 0.1
"""Vehicles off the road that are slower than this stay where they are [m/s]."""
MIN_VERTEX_GAP = 1e-8
"""Vertices of a baseline that are nearer than this to the next one are left out [m]."""


class ReactiveTrafficError(BeyondDriveError, ValueError):
    """The traffic of a scene cannot be simulated, as the official code cannot; names the vehicle."""


@dataclass(frozen=True, eq=False)
class Rail:
    """The baseline that a vehicle drives along, without its last vertex.

    Attributes:
        xy: (R, 2) vertices.
        heading: (R,) directions, unwrapped.
        length: (R,) arc lengths along the whole baseline [m].
    """

    xy: Floats
    heading: Floats
    length: Floats


@dataclass(frozen=True, eq=False)
class SimulatedVehicle:
    """A vehicle that is simulated.

    Attributes:
        row: Its row in the tracks.
        rail: What it drives along.
        snapped: (3,) its first pose, on the baseline, which may lie beyond the rail.
        progress: Where it starts [m].
        speed: At the start [m/s].
        target: Speed that it wants [m/s].
        length: [m]
        width: [m]
    """

    row: int
    rail: Rail
    snapped: Floats
    progress: float
    speed: float
    target: float
    length: float
    width: float


@dataclass(frozen=True, eq=False)
class ReactiveScene:
    """The vehicles of a scene that can react, and those that cannot.

    Attributes:
        tracks: Everybody, as observed.
        vehicles: Simulated vehicles in the order of their creation.
        others: Rows of the other vehicles of the current frame, in its order.
        may_stand: (len(others),) whether such a vehicle stands where it is while nobody is in its way.
    """

    tracks: Tracks
    vehicles: tuple[SimulatedVehicle, ...]
    others: tuple[int, ...]
    may_stand: Bools

    @cached_property
    def unmoved(self) -> Traffic:
        """Traffic as the kernels take it, in which no vehicle is there after the current frame."""
        tracks, traffic = self.tracks, self.tracks.traffic(NUM_FRAMES_V2)
        boxes, now = traffic.boxes, tracks.poses[0]
        boxes[1:, tracks.types == TYPE_INDEX["vehicle"]] = np.nan
        boxes[0] = np.column_stack([now[:, :2], np.cos(now[:, 2]), np.sin(now[:, 2])])
        return traffic

    @cached_property
    def fleet(self) -> Fleet:
        """The vehicles as the kernels take them."""
        vehicles, rails = self.vehicles, [vehicle.rail for vehicle in self.vehicles]
        standing = np.array(self.others, dtype=np.int64)[self.may_stand]
        turns = (float(np.abs(np.diff(rail.heading)).sum()) for rail in rails)
        sizes = [len(rail.length) for rail in rails]
        return Fleet(
            np.array([vehicle.row for vehicle in vehicles], dtype=np.int64),
            np.array([[0.5 * v.length, 0.5 * v.width] for v in vehicles]).reshape(-1, 2),
            np.array([vehicle.snapped for vehicle in vehicles]).reshape(-1, 3),
            np.array([vehicle.progress for vehicle in vehicles]),
            np.array([vehicle.speed for vehicle in vehicles]),
            np.array([vehicle.target for vehicle in vehicles]),
            np.cumsum([0, *sizes]),
            np.concatenate([np.zeros((0, 2)), *(rail.xy for rail in rails)]),
            np.concatenate([np.zeros(0), *(rail.heading for rail in rails)]),
            np.concatenate([np.zeros(0), *(rail.length for rail in rails)]),
            max(map(ring_capacity, sizes, turns), default=0),
            standing,
            self.unmoved.boxes[0, standing],
            0.5 * self.tracks.size[standing],
        )


def reactive_scene(tracks: Tracks, ego: Floats, index: MapIndex, locator: LaneLocator) -> ReactiveScene:
    """Find the vehicles that are simulated, and their rails (section 4.3).

    Args:
        tracks: Objects of the scene; those of the current frame first.
        ego: (>= 3,) x, y, heading of the rear axle now.
        index: The map.
        locator: Its lanes by position.

    Raises:
        ReactiveTrafficError: If a vehicle's baseline is too short.
    """
    current = np.isfinite(tracks.poses[0, :, 0]) & (tracks.types == TYPE_INDEX["vehicle"])
    taken = [shapely.Polygon(ego_corners(ego[:3]))]
    default, created, others, may_stand = DEFAULT_SPEED, [], [], []
    for row in np.flatnonzero(current):
        pose, (length, width) = tracks.poses[0, row], tracks.size[row]
        speed = float(np.hypot(*tracks.velocity[row]))
        segment = locator.start_segment(*pose)
        near = segment is not None and float(np.hypot(*(pose[:2] - segment.pose[:2]))) <= SNAP_DISTANCE
        if segment is not None and near:
            box = vehicle_box(segment.pose, length, width)
            if not shapely.intersects(box, taken).any():
                limit = index.speed_limit(segment.lane)
                if not np.isnan(limit):
                    default = limit
                created.append(_vehicle(int(row), segment, index, speed, default, length, width))
                taken.append(box)
        is_parked = speed < STANDING_SPEED and not locator.is_on_road(*pose[:2])
        others.append(int(row))
        may_stand.append(is_parked or (segment is not None and not near))
    return ReactiveScene(tracks, tuple(created), tuple(others), np.array(may_stand, dtype=bool))


def _vehicle(
    row: int,
    segment: StartSegment,
    index: MapIndex,
    speed: float,
    default: float,
    length: float,
    width: float,
) -> SimulatedVehicle:
    baseline = index.baseline(segment.lane)
    cumulative = arc_length(np.ascontiguousarray(baseline[:, :2]))
    kept = np.append(np.hypot(*np.diff(baseline[:, :2], axis=0).T) > MIN_VERTEX_GAP, False)
    if kept.sum() < 2:
        raise ReactiveTrafficError(
            f"lane {index.lane_ids[segment.lane]}: its baseline has fewer than three vertices, so no vehicle "
            f"can be simulated on it"
        )
    rail = Rail(baseline[kept, :2].copy(), np.unwrap(baseline[kept, 2]), cumulative[kept])
    limit = index.speed_limit(segment.lane)
    target = limit if not np.isnan(limit) and limit > 0 else default
    return SimulatedVehicle(
        row, rail, segment.pose, segment.progress, speed, float(target), float(length), float(width)
    )


def vehicle_box(pose: Floats, length: float, width: float) -> shapely.Polygon:
    """Box of a vehicle around a pose (>= 3,) x, y, heading."""
    along = 0.5 * length * np.array([np.cos(pose[2]), np.sin(pose[2])])
    across = 0.5 * width * np.array([-np.sin(pose[2]), np.cos(pose[2])])
    middle = pose[:2]
    return shapely.Polygon(
        [middle + along + across, middle - along + across, middle - along - across, middle + along - across]
    )
