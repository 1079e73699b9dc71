"""Traffic that reacts to the ego: vehicles on their lanes by IDM (EPDMS_TWO_STAGE, section 4.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import shapely

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.inputs.tracks import IS_AGENT, TYPE_INDEX, Tracks
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import Traffic, box_bounds
from beyonddrive.evaluation.pdm.kernels.constants import (
    HALF_LENGTH,
    HALF_WIDTH,
    NUM_FRAMES_V2,
    NUM_STATES,
    STEP,
    STOPPED_TRACK_SPEED,
)
from beyonddrive.evaluation.pdm.kernels.polyline import square_distance
from beyonddrive.evaluation.pdm.reference.reactive_scene import (
    ReactiveScene,
    ReactiveTrafficError,
    SimulatedVehicle,
    vehicle_box,
)

MAX_ACCELERATION, MAX_BRAKING = 1.0, 2.0
"""Of the driver model [m/s2]."""
MIN_GAP, HEADWAY, EXPONENT = 1.0, 1.5, 4
"""Of the driver model [m, s]."""
RADIUS = 100.0
"""Vehicles farther from the ego are removed [m]."""
SIMPLIFIED = 1e-5
"""Tolerance to which footprints are simplified [m]."""
ARC_SEGMENTS = 16
"""Segments of a quarter of a circle around the bends of a corridor."""
EGO, FREE, REMOVED = -1, -2, -3
"""What there is in place of a lead."""
SLACK = 1e-3
"""Added to what is only a cheap test before the exact one [m]."""


@dataclass(eq=False)
class ReactiveMaps:
    """Traffic of one plan.

    Attributes:
        boxes: (41, M, 4) x, y, cosine and sine of the heading of every track every 0.1 s; NaN where absent.
        speed: (41, M) of simulated vehicles; as observed for others.
        trace: (40, A, 5) per step and simulated vehicle: progress, speed, gap, lead speed, rear length; NaN
            once it has been removed.
        lead: (40, A) index of the lead among the simulated vehicles, -1 the ego, -2 none, -3 removed.
    """

    boxes: Floats
    speed: Floats
    trace: Floats
    lead: Ints
    tracks: Tracks = field(repr=False)

    def traffic(self) -> Traffic:
        """The boxes as collision kernels take them; nobody is ignored from the start."""
        half = self.tracks.size * 0.5
        agent = IS_AGENT[self.tracks.types]
        speed = np.hypot(self.tracks.velocity[:, 0], self.tracks.velocity[:, 1])
        return Traffic(
            self.boxes,
            half,
            box_bounds(self.boxes, half),
            agent,
            ~agent | (speed <= STOPPED_TRACK_SPEED),
            np.zeros(len(self.tracks), dtype=bool),
            np.arange(len(self.boxes)),
        )


def react(scene: ReactiveScene, states: Floats) -> ReactiveMaps:
    """Drive the traffic of a scene against the simulated states (41, 11) of the ego.

    Raises:
        ReactiveTrafficError: If a vehicle lies beyond the end of its rail, which the official code cannot
            simulate.
    """
    return _Simulation(scene, states).run()


class _Footprint:
    """Where a vehicle is and will be soon, for the others; its polygon is made when somebody comes near."""

    __slots__ = ("_made", "_part", "center", "pose", "radius", "vehicle")

    def __init__(self, vehicle: SimulatedVehicle, pose: Floats, part: Floats | None) -> None:
        self.vehicle, self.pose, self._part = vehicle, pose, part
        self._made: shapely.Geometry | None = None
        half = 0.5 * math.hypot(vehicle.length, vehicle.width)
        if part is None:
            self.center, self.radius = pose[:2], half
        else:
            # The box is on the piece of the rail, which a circle around its middle covers.
            way = 0.5 * float(np.hypot(*np.diff(part, axis=0).T).sum())
            self.center = 0.5 * (part[0] + part[-1])
            self.radius = way + half + float(np.hypot(*(pose[:2] - self.center)))

    @property
    def is_on_rail(self) -> bool:
        """Whether it has moved; before, it is at its snapped pose, perhaps beyond the rail."""
        return self._part is not None

    @property
    def polygon(self) -> shapely.Geometry:
        """The polygon, simplified as every vehicle sees it."""
        if self._made is None:
            vehicle = self.vehicle
            shape = vehicle_box(self.pose, vehicle.length, vehicle.width)
            if self._part is not None:
                shape = shapely.union(_band(self._part, vehicle.width), shape)
            self._made = shapely.simplify(shape, SIMPLIFIED)
        return self._made


def _band(line: Floats, width: float) -> shapely.Geometry:
    return shapely.buffer(
        shapely.LineString(line),
        0.5 * width,
        quad_segs=ARC_SEGMENTS,
        cap_style="flat",
        join_style="round",
    )


@kernel
def _near_line(line: Floats, centers: Floats, radii: Floats, out: Bools) -> None:
    """Whether circles come within their radius of a polyline (n, 2)."""
    for j in range(len(centers)):
        out[j] = False
        for i in range(len(line) - 1):
            square, _ = square_distance(line, i, centers[j, 0], centers[j, 1])
            if square <= radii[j] * radii[j]:
                out[j] = True
                break


class _Simulation:
    """The traffic of one plan, step by step."""

    def __init__(self, scene: ReactiveScene, states: Floats) -> None:
        self.scene, self.states = scene, states
        vehicles = scene.vehicles
        count = len(vehicles)
        self.progress = np.array([v.progress for v in vehicles])
        self.speed = np.array([v.speed for v in vehicles])
        self.poses = np.array([v.rail.pose(v.progress) for v in vehicles]).reshape(count, 3)
        self.alive = np.ones(count, dtype=bool)
        self.footprints = [_Footprint(vehicle, vehicle.snapped, None) for vehicle in vehicles]
        # The last circle is the ego's.
        self.centers = np.array([*(f.center for f in self.footprints), [0.0, 0.0]])
        self.radii = np.array([*(f.radius for f in self.footprints), math.hypot(HALF_LENGTH, HALF_WIDTH)])
        self._near = np.zeros(count + 1, dtype=bool)

    def run(self) -> ReactiveMaps:
        """All 41 maps."""
        scene, tracks = self.scene, self.scene.tracks
        boxes = tracks.boxes(NUM_FRAMES_V2).copy()
        now = np.isfinite(tracks.poses[0, :, 0])
        boxes[0, ~now] = np.nan
        boxes[1:, tracks.types == TYPE_INDEX["vehicle"]] = np.nan
        boxes[0, now, :2] = tracks.poses[0, now, :2]
        boxes[0, now, 2], boxes[0, now, 3] = np.cos(tracks.poses[0, now, 2]), np.sin(tracks.poses[0, now, 2])
        speed = np.full(boxes.shape[:2], np.nan)
        speed[0] = np.hypot(*tracks.velocity.T)
        count = len(scene.vehicles)
        trace = np.full((NUM_STATES - 1, count, 5), np.nan)
        lead = np.full((NUM_STATES - 1, count), REMOVED, dtype=np.int64)
        rows = np.array([v.row for v in scene.vehicles], dtype=np.int64)
        for k in range(1, NUM_STATES):
            self._step(self.states[k - 1], trace[k - 1], lead[k - 1])
            alive = np.flatnonzero(self.alive)
            boxes[k, rows[alive], :2] = self.poses[alive, :2]
            boxes[k, rows[alive], 2] = np.cos(self.poses[alive, 2])
            boxes[k, rows[alive], 3] = np.sin(self.poses[alive, 2])
            speed[k, rows[alive]] = self.speed[alive]
            for row in self._standing(alive):
                boxes[k, row], speed[k, row] = boxes[0, row], speed[0, row]
        return ReactiveMaps(boxes, speed, trace, lead, tracks)

    def _step(self, ego: Floats, trace: Floats, lead: Ints) -> None:
        """One step of all vehicles, the later ones after the earlier ones."""
        self.alive &= ~(np.hypot(self.poses[:, 0] - ego[0], self.poses[:, 1] - ego[1]) > RADIUS)
        self.centers[-1] = ego[:2]
        for i in np.flatnonzero(self.alive).tolist():
            vehicle = self.scene.vehicles[i]
            line = vehicle.rail.ahead(self.poses[i], self.progress[i])
            found, shapes = self._in_corridor(i, line, ego)
            if i not in found:
                raise ReactiveTrafficError(
                    f"vehicle {self.scene.tracks.tokens[vehicle.row]}: it lies beyond the end of its lane's "
                    f"baseline, where its traffic cannot be simulated"
                )
            gap, lead_speed, rear, who = self._gap(i, found, shapes, ego)
            self._advance(i, gap, lead_speed, rear)
            trace[i] = self.progress[i], self.speed[i], gap, lead_speed, rear
            lead[i] = who

    def _in_corridor(self, i: int, line: Floats, ego: Floats) -> tuple[list[int], list[shapely.Geometry]]:
        """Who is in a vehicle's way, itself included, and their polygons; the ego has the last number."""
        half = 0.5 * self.scene.vehicles[i].width
        _near_line(line, self.centers, self.radii + (half + SLACK), self._near)
        self._near[:-1] &= self.alive
        near = np.flatnonzero(self._near)
        count = len(self.footprints)
        if near.tolist() == [i] and self.footprints[i].is_on_rail:
            return [i], []  # nobody but itself, whose box is where the corridor starts
        shapes = [
            # The official code puts the middle of the ego's box at its rear axle.
            vehicle_box(ego, 2 * HALF_LENGTH, 2 * HALF_WIDTH) if j == count else self.footprints[j].polygon
            for j in near
        ]
        chosen = np.flatnonzero(shapely.intersects(_band(line, 2 * half), shapes))
        return [int(near[c]) for c in chosen], [shapes[c] for c in chosen]

    def _gap(
        self, i: int, found: list[int], shapes: list[shapely.Geometry], ego: Floats
    ) -> tuple[float, float, float, int]:
        """Gap to the lead, its speed along the vehicle, what is taken off the gap, and who it is."""
        vehicle = self.scene.vehicles[i]
        if len(found) == 1:
            return float(vehicle.rail.length[-1] - self.progress[i]), 0.0, 0.5 * vehicle.length, FREE
        own = found.index(i)
        others = [n for n in range(len(found)) if n != own]
        distance = shapely.distance(shapes[own], [shapes[n] for n in others])
        nearest = [n for n, d in zip(others, distance, strict=True) if d == distance.min()]
        bounds = shapely.bounds([shapes[n] for n in nearest])
        chosen = found[nearest[int(np.argmin(bounds[:, 1] + bounds[:, 3]))]]
        if chosen == len(self.footprints):
            heading, speed, who = ego[2], math.hypot(ego[3], ego[4]), EGO
        else:
            heading, speed, who = self.poses[chosen, 2], self.speed[chosen], chosen
        return float(distance.min()), float(speed * np.cos(heading - self.poses[i, 2])), 0.0, who

    def _advance(self, i: int, gap: float, lead_speed: float, rear: float) -> None:
        vehicle, v = self.scene.vehicles[i], float(self.speed[i])
        closing = v * (v - lead_speed) / (2 * math.sqrt(MAX_ACCELERATION * MAX_BRAKING))
        wanted = MIN_GAP + HEADWAY * v + closing
        share = wanted / max(gap - rear, MIN_GAP)
        acceleration = MAX_ACCELERATION * (1 - (v / vehicle.target) ** EXPONENT - share**2)
        acceleration = min(max(acceleration, -MAX_BRAKING), MAX_ACCELERATION)
        self.progress[i] += STEP * v
        self.speed[i] = v = max(v + STEP * acceleration, 0.0)
        self.poses[i] = pose = vehicle.rail.pose(self.progress[i])
        half = 0.5 * vehicle.length
        part = vehicle.rail.part(self.progress[i] - half, self.progress[i] + half + HEADWAY * v)
        self.footprints[i] = made = _Footprint(vehicle, pose, part)
        self.centers[i], self.radii[i] = made.center, made.radius

    def _standing(self, alive: Ints) -> list[int]:
        """Rows of other vehicles of the current frame that stand in this map, in nobody's way."""
        scene, tracks = self.scene, self.scene.tracks
        vehicles = scene.vehicles
        taken = {vehicles[i].row for i in alive}
        rows: list[int] = []
        kept: list[shapely.Geometry] = []
        for row, may_stand in zip(scene.others, scene.may_stand, strict=True):
            if row in taken or not may_stand:
                continue
            box, center = vehicle_box(tracks.poses[0, row], *tracks.size[row]), tracks.poses[0, row, :2]
            reach = 0.5 * float(np.hypot(*tracks.size[row]))
            near = [
                vehicle_box(self.poses[i], vehicles[i].length, vehicles[i].width)
                for i in alive
                if math.hypot(*(self.poses[i, :2] - center))
                <= reach + 0.5 * math.hypot(vehicles[i].length, vehicles[i].width) + SLACK
            ]
            others = near + kept
            if others and shapely.intersects(box, others).any():
                continue
            kept.append(box)
            rows.append(row)
        return rows
