"""Reactive traffic as EPDMS_TWO_STAGE, section 4.4 reads: polygon by polygon, step by step.

What the compiled traffic of ``evaluation/pdm/reference`` is measured against, and compared with: nothing is
kept between steps, and shapely does all geometry.
"""

from __future__ import annotations

import math

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import HALF_LENGTH, HALF_WIDTH, STEP
from beyonddrive.evaluation.pdm.reference.reactive_scene import (
    Rail,
    ReactiveScene,
    SimulatedVehicle,
    vehicle_box,
)

SIMPLIFIED = 1e-5
RADIUS = 100.0


class Driver:
    """A simulated vehicle: where it is, how fast, and its footprint."""

    def __init__(self, vehicle: SimulatedVehicle) -> None:
        self.vehicle, self.progress, self.speed = vehicle, vehicle.progress, vehicle.speed
        self.pose = pose_at(vehicle.rail, self.progress)
        self.footprint: shapely.Geometry = vehicle_box(vehicle.snapped, vehicle.length, vehicle.width)

    def corridor(self) -> shapely.Geometry:
        """What it drives along."""
        rail = self.vehicle.rail
        beyond = rail.xy[rail.length > np.clip(self.progress, rail.length[0], rail.length[-1])]
        return self.band(np.vstack([self.pose[:2], beyond]) if len(beyond) else rail.xy[-2:])

    def band(self, line: Floats) -> shapely.Geometry:
        """A line as wide as the vehicle."""
        return shapely.LineString(line).buffer(0.5 * self.vehicle.width, cap_style="flat")

    def move(self, gap: float, lead_speed: float) -> None:
        """One step behind a lead."""
        v, vehicle, rail = self.speed, self.vehicle, self.vehicle.rail
        wanted = 1.0 + 1.5 * v + v * (v - lead_speed) / (2 * math.sqrt(2.0))
        pull = 1.0 - (v / vehicle.target) ** 4 - (wanted / max(gap, 1.0)) ** 2
        self.progress += STEP * v
        self.speed = max(v + STEP * min(max(pull, -2.0), 1.0), 0.0)
        self.pose = pose_at(rail, self.progress)
        half = 0.5 * vehicle.length
        ends = np.array([self.progress - half, self.progress + half + 1.5 * self.speed])
        start, end = np.clip(ends, rail.length[0], rail.length[-1])
        between = rail.xy[(rail.length > start) & (rail.length < end)]
        if not (rail.length > start).any():
            part = rail.xy[-2:]
        elif not (rail.length < end).any():
            part = rail.xy[:2]
        else:
            part = np.vstack([pose_at(rail, start)[:2], between, pose_at(rail, end)[:2]])
        box = vehicle_box(self.pose, vehicle.length, vehicle.width)
        self.footprint = shapely.union(self.band(part), box)


def pose_at(rail: Rail, progress: float) -> Floats:
    """Pose (3,) at an arc length of a rail, clamped to it."""
    x, y = (np.interp(progress, rail.length, rail.xy[:, axis]) for axis in (0, 1))
    heading = float(np.interp(progress, rail.length, rail.heading))
    return np.array([x, y, (heading + math.pi) % (2 * math.pi) - math.pi])


def drive(scene: ReactiveScene, states: Floats) -> Floats:
    """Poses (40, A, 3) of all simulated vehicles after each step; NaN once they are removed."""
    drivers: dict[int, Driver] = {number: Driver(vehicle) for number, vehicle in enumerate(scene.vehicles)}
    poses = np.full((len(states) - 1, len(scene.vehicles), 3), np.nan)
    for k, ego in enumerate(states[:-1]):
        drivers = {n: d for n, d in drivers.items() if math.dist(d.pose[:2], ego[:2]) <= RADIUS}
        ego_box = vehicle_box(ego, 2 * HALF_LENGTH, 2 * HALF_WIDTH)
        for number, driver in drivers.items():
            names = [*drivers, -1]
            shapes = [shapely.simplify(d.footprint, SIMPLIFIED) for d in drivers.values()]
            shapes.append(shapely.simplify(ego_box, SIMPLIFIED))
            found = sorted(shapely.STRtree(shapes).query(driver.corridor(), predicate="intersects"))
            own = names.index(number)
            assert own in found
            others = [row for row in found if row != own]
            if others:
                distances = [shapely.distance(shapes[own], shapes[row]) for row in others]
                near = [row for row, d in zip(others, distances, strict=True) if d == min(distances)]
                lead = min(near, key=lambda row: shapes[row].bounds[1] + shapes[row].bounds[3])
                heading, speed = ego[2], math.hypot(ego[3], ego[4])
                if names[lead] >= 0:
                    heading, speed = drivers[names[lead]].pose[2], drivers[names[lead]].speed
                driver.move(min(distances), speed * math.cos(heading - driver.pose[2]))
            else:
                rear = 0.5 * driver.vehicle.length
                driver.move(driver.vehicle.rail.length[-1] - driver.progress - rear, 0.0)
        for number, driver in drivers.items():
            poses[k, number] = driver.pose
    return poses
