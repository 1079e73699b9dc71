"""A simulator's frame as a driver sees it, the plan that it answers, and what a driver is.

Frames are given in the planner's own convention, so that a transport converts once: the ego frame has its
origin on the ground below the rear axle, x ahead, y left, z up [m]; angles in radians, counter-clockwise
positive; time in seconds. Neither torch nor mmengine is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.lenses import Lens

Floats = NDArray[np.float64]

PLANNER, CACHED_PLAN, STRAIGHT_ON = "planner", "cached_plan", "straight_on"
"""Where a plan comes from: the planner, its last good plan moved to now, or going on straight."""


class Command(IntEnum):
    """Where the route leads; the value is the place in the one-hot command of a planner's status.

    >>> Command.LEFT.one_hot().tolist()
    [1.0, 0.0, 0.0, 0.0]
    """

    LEFT = 0
    STRAIGHT = 1
    RIGHT = 2
    UNKNOWN = 3

    def one_hot(self) -> NDArray[np.float32]:
        """The status form, (4,)."""
        return np.eye(4, dtype=np.float32)[self.value]


@dataclass(frozen=True, eq=False)
class CameraView:
    """An image and where it was taken from.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        lens: How rays in camera axes (x right, y down, z ahead) become pixels of this image.
        rotation: (3, 3) from camera axes to the ego frame.
        translation: (3,) place of the camera in the ego frame [m].
    """

    image: NDArray[np.uint8]
    lens: Lens
    rotation: Floats
    translation: Floats


@dataclass(frozen=True, eq=False)
class Frame:
    """What a driver is told at one moment of one session.

    Attributes:
        session: The session, as it was given to :meth:`Driver.reset`.
        time: Since any moment that stays the same within the session [s].
        cameras: By name. Images of a rig as NAVSIM has it are called ``CAM_L0``, ``CAM_F0``, ``CAM_R0``;
            others are brought to that rig by their calibration.
        velocity: (2,) ahead, left [m/s].
        acceleration: (2,) ahead, left [m/s2].
        command: Where the route leads.
        steering: Angle of the front wheels [rad], positive to the left; NaN if nobody knows.
        pose: (3,) x [m], y [m], heading [rad] of the ego in a frame that stays the same within the session:
            plans of earlier moments are brought to now by it.
        lidar: float32 (4, N) x, y, z [m] in the ego frame and intensity (0 to 255) of a sweep; None for none.
        history: Earlier frames of the session half a second apart, oldest first; the driver keeps it.
    """

    session: str
    time: float
    cameras: Mapping[str, CameraView]
    velocity: Floats
    acceleration: Floats
    command: Command
    pose: Floats
    steering: float = float("nan")
    lidar: NDArray[np.float32] | None = None
    history: tuple[Frame, ...] = ()

    @property
    def status(self) -> NDArray[np.float32]:
        """(8,) one-hot command, vx, vy [m/s], ax, ay [m/s2] (MODELS, section 1)."""
        parts = (self.command.one_hot(), self.velocity, self.acceleration)
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])


@dataclass(frozen=True, eq=False)
class DrivenPlan:
    """What a driver answers to a frame.

    Attributes:
        poses: float64 (8, 3) x [m], y [m], heading [rad] every 0.5 s, in the ego frame of that frame.
        source: :data:`PLANNER`, :data:`CACHED_PLAN` or :data:`STRAIGHT_ON`.
        reason: Why it is not the planner's own; empty if it is.
    """

    poses: Floats
    source: str = PLANNER
    reason: str = ""


@dataclass
class DriverReport:
    """What became of a session.

    Attributes:
        counts: How often what happened: ``inference`` (plans of the planner), ``cached_plan``,
            ``straight_on``, ``planner_error``, ``bad_plan``, ``bad_frame``, ``camera_missing``,
            ``camera_black``, and what a transport adds. Keys that never happened are absent.
        reasons: Per kind of trouble its first reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def count(self, name: str, reason: str = "", times: int = 1) -> None:
        """Count that something happened."""
        self.counts[name] = self.counts.get(name, 0) + times
        if reason:
            self.reasons.setdefault(name, reason)

    @property
    def fallbacks(self) -> int:
        """Plans that were not the planner's own."""
        return self.counts.get(CACHED_PLAN, 0) + self.counts.get(STRAIGHT_ON, 0)

    @property
    def troubles(self) -> dict[str, int]:
        """How often something was not as it should be, by kind; plans may be the planner's all the same.

        >>> DriverReport({"inference": 8, "images_late": 2, "anchor_stale": 1}).troubles
        {'anchor_stale': 1, 'images_late': 2}
        """
        return {name: count for name, count in sorted(self.counts.items()) if name != "inference"}

    def to_dict(self) -> dict[str, Any]:
        """As JSON, fallbacks first."""
        return {"fallbacks": self.fallbacks, "counts": dict(self.counts), "reasons": dict(self.reasons)}


class Driver(Protocol):
    """Drives any number of sessions, which know nothing of each other."""

    def reset(self, session: str, seed: int | None = None) -> None:
        """Begin a session, or begin it anew; a planner that samples draws its noise from ``seed``."""

    def plan(self, frame: Frame) -> DrivenPlan:
        """The plan for a frame; never raises for what a frame holds, but falls back and counts."""

    def close(self, session: str) -> DriverReport:
        """End a session and tell what became of it."""
