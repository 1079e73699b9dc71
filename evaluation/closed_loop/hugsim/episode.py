"""A closed loop without a renderer: plans in, motion, ends and a record out (HUGSIM, sections 3, 5, 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import STEP
from beyonddrive.evaluation.closed_loop.hugsim.footprints import touch
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import check_plan, command_of
from beyonddrive.evaluation.closed_loop.hugsim.points import MAX_POINTS
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame
from beyonddrive.evaluation.closed_loop.hugsim.route import Route, plan_in_record, pose_matrix
from beyonddrive.evaluation.closed_loop.hugsim.scenario import Scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS, HugsimSettings
from beyonddrive.evaluation.closed_loop.hugsim.tracker import WHEELBASE

EGO_SIZE = (1.6, 3.0, 1.5)
"""Width, length and height of the ego [m]."""
MAX_STEPS = 400
MAX_DISTANCE = 10.0
"""Farther from the recorded path than this the episode ends [m]."""
COMPLETE, BACKGROUND, FOREGROUND, OFF_ROUTE, PLANNER_FAILURE, TRUNCATED = (
    "Complete",
    "Collision with background",
    "Collision with foreground",
    "Far from preset trajectory",
    "planner_failure",
    "400 steps",
)
"""Why episodes end, by the official texts where there are some."""

Floats = NDArray[np.float64]
Planner = Callable[["Observation"], "ArrayLike | None"]
"""Gives a plan (N, 2) right, ahead [m] every 0.5 s, or None if it fails."""


@dataclass(frozen=True)
class Observation:
    """What a planner is told besides images; HUGSIM's ``info``.

    Attributes:
        position: (3,) of the front camera, world.
        euler: (3,) XYZ Euler angles [rad].
        speed: [m/s]
        steering: [rad], positive to the right.
        acceleration: Last command [m/s2].
        steering_rate: Last command [rad/s].
        time: [s]
        command: 0 right, 1 left, 2 forward.
        ego_box: (7,) in the record frame.
        obj_boxes: (A, 7).
    """

    position: Floats
    euler: Floats
    speed: float
    steering: float
    acceleration: float
    steering_rate: float
    time: float
    command: int
    ego_box: Floats
    obj_boxes: Floats


class Movers(Protocol):
    """What moves the other road users."""

    def move(self, ego: NDArray[np.float64], time: float) -> None:
        """Move them by a step: the ego's state a, b, heading, speed, and the time [s]."""

    def boxes(self) -> NDArray[np.float64]:
        """Where they are, as ``Traffic.boxes``."""


@dataclass
class Episode:
    """One run of a scenario.

    Args:
        scenario: How it starts.
        route: The recorded path.
        traffic: The other road users.
        background: (n, 3) points that the ego may collide with, world frame.
        settings: Switches.
        pivot: Distance of the point that the kinematics move behind the pose of the ego [m]. HUGSIM moves the
            front camera as if it were the rear axle: 0.

    Attributes:
        frames: The record so far.
        ends: Why it ended; empty while it goes on.
        driven: How far the ego went, from where it started [m]; the record may lack the first or last step.
    """

    scenario: Scenario
    route: Route
    traffic: Movers
    background: NDArray[np.float32]
    settings: HugsimSettings = field(default_factory=lambda: PRESETS["pr57"])
    pivot: float = 0.0
    frames: list[Frame] = field(default_factory=list, init=False)
    ends: tuple[str, ...] = field(default=(), init=False)
    driven: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._euler = np.deg2rad(np.array(self.scenario.euler, dtype=np.float64))
        self._ab = np.array(self.scenario.start, dtype=np.float64)
        self._speed, self._steering = float(self.scenario.speed), float(self.scenario.steering)
        self._command = np.zeros(2)
        self._time = 0.0
        # The order of the ground plane lets a step look at the neighbourhood only.
        self._points = np.ascontiguousarray(self.background[np.argsort(self.background[:, 2])], np.float32)
        for _ in range(self.settings.resets):
            self.traffic.move(self._state(), self._time)

    def observe(self) -> Observation:
        """What the planner sees now."""
        position = self._position()
        return Observation(
            position,
            self._euler.copy(),
            self._speed,
            self._steering,
            float(self._command[0]),
            float(self._command[1]),
            self._time,
            self.route.command(position),
            self._ego_box(),
            self.traffic.boxes(),
        )

    def step(self, plan: ArrayLike | None, recorded: ArrayLike | None = None) -> bool:
        """Drive one step by a plan (N, 2) right, ahead; None ends the episode as a failure of the planner.

        Args:
            plan: Where the point that the kinematics move is to go.
            recorded: (N, 2) where the pose of the ego goes by it; the same if there is no pivot.

        Returns:
            Whether the episode goes on.

        Raises:
            HugsimError: If the plan cannot be used; nothing has moved then.
        """
        if plan is None:
            self.ends = (PLANNER_FAILURE,)
            return False
        points = check_plan(plan)
        told = points if recorded is None else check_plan(recorded)
        command = self.command(points)
        before = (self._time, self._ego_box(), self.traffic.boxes())
        self._time += STEP
        self.traffic.move(self._state(), self._time)
        start = self._ab
        self._drive(command)
        self.driven += float(np.hypot(*(self._ab - start)))
        rc, distance = self.route.completion(self._ab)
        background, foreground = self._hits_background(), self._hits_agent()
        after = (self._time, self._ego_box(), self.traffic.boxes())
        time, box, boxes = after if self.settings.plan_anchor == "post_step" else before
        self.frames.append(
            Frame(
                time,
                box,
                boxes,
                ("car",) * len(boxes),
                plan_in_record(told, box),
                self.settings.plan_timestep,
                background or foreground,
                rc,
            )
        )
        reasons = {
            BACKGROUND: background,
            FOREGROUND: foreground,
            OFF_ROUTE: distance > MAX_DISTANCE,
            COMPLETE: rc >= 1.0,
            TRUNCATED: len(self.frames) >= MAX_STEPS,
        }
        self.ends = tuple(name for name, holds in reasons.items() if holds)
        return not self.ends

    def command(self, points: NDArray[np.floating]) -> Floats:
        """Acceleration [m/s2] and steering rate [rad/s] (2,) that the controller makes of a plan."""
        return command_of(points, self._speed, self._steering, self.settings.controller).inputs[0]

    def run(self, planner: Planner) -> list[Frame]:
        """Drive to the end and return the record."""
        while self.step(planner(self.observe())):
            pass
        return self.frames

    def _drive(self, command: Floats) -> None:
        self._command = command.copy()
        self._speed += command[0] * STEP
        self._steering += command[1] * STEP
        heading = self._euler[1]
        self._ab = self._ab + self._speed * STEP * np.array([np.sin(heading), np.cos(heading)])
        turn = self._speed * np.tan(self._steering) / WHEELBASE * STEP
        self._euler = self._euler + np.array([0.0, turn, 0.0])
        if self.pivot:
            turned = self._euler[1]
            swing = [np.sin(turned) - np.sin(heading), np.cos(turned) - np.cos(heading)]
            self._ab = self._ab + self.pivot * np.array(swing)

    def _state(self) -> Floats:
        return np.array([*self._ab, self._euler[1], self._speed])

    def _position(self) -> Floats:
        return np.array([self._ab[0], self.route.ego_height(self._ab), self._ab[1]])

    def _ego_box(self) -> Floats:
        x, y, z = self._position()
        return np.array([z, -x, -y, *EGO_SIZE, -self._euler[1]])

    def _hits_background(self) -> bool:
        """More than 100 points in the box that reaches from the camera down and turns with the ego."""
        pose = pose_matrix(self._euler, self._position())
        reach = float(np.linalg.norm(EGO_SIZE))
        low, high = np.searchsorted(self._points[:, 2], [pose[2, 3] - reach, pose[2, 3] + reach])
        near = self._points[low:high]
        local = (near - pose[:3, 3].astype(np.float32)) @ pose[:3, :3].astype(np.float32)
        width, length, height = (np.float32(size) for size in EGO_SIZE)
        inside = (np.abs(local[:, 0]) < width / 2) & (np.abs(local[:, 2]) < length / 2)
        return bool((inside & (local[:, 1] > 0) & (local[:, 1] < height)).sum() > MAX_POINTS)

    def _hits_agent(self) -> bool:
        boxes, ego = self.traffic.boxes(), self._ego_box()
        mine = np.tile(ego[[0, 1, 6]], (len(boxes), 1))
        sizes = np.tile(ego[3:5], (len(boxes), 1))
        return bool(touch(mine, sizes, boxes[:, [0, 1, 6]], boxes[:, 3:5]).any())
