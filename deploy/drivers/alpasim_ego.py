"""The ego's motion and the driving command from what an AlpaSim runtime sends (ALPASIM, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.frame import Command, Floats
from beyonddrive.structures.se2 import rotate

STILL = 0.1
"""A car slower than this stands [m/s]."""
_SPEED_OFF, _SPEED_SHARE = 2.0, 0.5
"""A state whose speed differs by more than both of these, in m/s and as a share, is not believed."""
_DIRECTION_OFF = np.radians(30.0)
"""Nor one that moves in another direction than the poses do."""
_SHORTEST_GAP = 1e-3
"""Between two poses that tell a speed [s]."""


@dataclass(frozen=True)
class EgoMotion:
    """Motion in the rig frame of the newest pose.

    Attributes:
        velocity: (2,) ahead, left [m/s].
        acceleration: (2,) [m/s2].
        trouble: Why poses were differenced in place of what was reported; empty if they were not.
    """

    velocity: Floats
    acceleration: Floats
    trouble: str = ""


def ego_motion(
    times: Sequence[float],
    poses: NDArray[np.floating],
    reported: tuple[NDArray[np.floating], NDArray[np.floating]] | None,
) -> EgoMotion:
    """The motion at the last pose.

    What is reported with that pose is believed unless the poses say otherwise: in the runtimes of the 2026
    challenge first states are zero, or in the axes of the world.

    Args:
        times: (n,) of the poses [s], increasing.
        poses: (n, 3) x, y [m], heading [rad] in a fixed frame; the last three are looked at.
        reported: Velocity and acceleration (2,) in the rig, or None.

    >>> still = ego_motion([0.0, 0.1], np.zeros((2, 3)), (np.zeros(2), np.zeros(2)))
    >>> still.velocity.tolist(), still.trouble
    ([0.0, 0.0], '')
    """
    velocities, gaps = _differences(times[-3:], poses[-3:])
    heading = float(poses[-1, 2])
    moved = rotate(velocities[-1], -heading) if len(velocities) else None
    trouble = _disbelief(reported, moved)
    if not trouble and reported is not None:
        return EgoMotion(np.asarray(reported[0], np.float64), np.asarray(reported[1], np.float64))
    if moved is None:
        return EgoMotion(np.zeros(2), np.zeros(2), trouble)
    change = np.zeros(2)
    if len(velocities) == 2:
        change = rotate((velocities[1] - velocities[0]) / gaps.mean(), -heading)
    return EgoMotion(moved, change, trouble)


def _differences(times: Sequence[float], poses: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Velocities (k, 2) of the last gaps in the fixed frame, and the gaps [s]."""
    gaps = np.diff(np.asarray(times, np.float64))
    steps = np.diff(np.asarray(poses, np.float64)[:, :2], axis=0)
    long = gaps >= _SHORTEST_GAP
    return steps[long] / gaps[long][:, None], gaps[long]


def _disbelief(
    reported: tuple[NDArray[np.floating], NDArray[np.floating]] | None, moved: Floats | None
) -> str:
    if reported is None:
        return "no state is reported with the newest pose"
    if not np.isfinite(np.concatenate(reported)).all():
        return "the reported state is not finite"
    if moved is None:
        return ""
    told, seen = float(np.linalg.norm(reported[0])), float(np.linalg.norm(moved))
    if told == 0.0 and seen > STILL:
        return f"the reported state is zero, the poses move at {seen:.1f} m/s"
    if abs(told - seen) > max(_SPEED_OFF, _SPEED_SHARE * seen):
        return f"the reported speed is {told:.1f} m/s, the poses move at {seen:.1f} m/s"
    if min(told, seen) > 1.0:
        cosine = float(reported[0] @ moved) / (told * seen)
        if cosine < np.cos(_DIRECTION_OFF):
            return "the reported velocity points elsewhere than the poses move: it is of other axes"
    return ""


def command_of_route(waypoints: NDArray[np.floating], distance: float, threshold: float) -> Command:
    """The command by the first waypoint that is far enough ahead.

    Args:
        waypoints: (N, 3) in the rig [m]; those with NaN are passed over.
        distance: What is nearer says nothing [m].
        threshold: A point farther aside than this is a turn [m].

    >>> command_of_route(np.array([[42.0, 3.0, 0.0], [np.nan] * 3]), 5.0, 2.0)
    <Command.LEFT: 0>
    """
    if not len(waypoints):
        return Command.UNKNOWN
    known = waypoints[np.isfinite(waypoints[:, :2]).all(axis=1)]
    far = known[np.hypot(known[:, 0], known[:, 1]) >= distance]
    aside = float(far[0, 1]) if len(far) else 0.0
    if aside > threshold:
        return Command.LEFT
    return Command.RIGHT if aside < -threshold else Command.STRAIGHT
