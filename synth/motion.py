"""Smooth, consistent motion from SUMO's raw tracks.

SUMO moves the front bumper along lane centres, which are polylines, with a speed whose acceleration jumps.
Here the path becomes a smooth curve, the speed a smooth function of time, and the vehicle is drawn along the
path as a bicycle model is: its rear axle always moves in the direction of its heading. Positions, headings,
velocities and accelerations are derived from the same curve, so they agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from beyonddrive.structures.boxes import EGO_WHEELBASE
from beyonddrive.synth.curves import arc_length
from beyonddrive.synth.recording import RawTrack
from beyonddrive.synth.traffic import STEP
from beyonddrive.synth.vehicle_types import EGO_TYPE, LAUNCH_TYPE, VehicleType

TIME_SIGMA = 0.55
"""Width of the Gaussian that smooths the distance driven [s]. Smoothing all vehicles alike keeps their order
in a lane: the smoothed gap is an average of gaps that were positive."""
LAUNCH_SIGMA = 0.35
"""The same for those who accelerate as hard as a car can, which takes them little more than a second [s]."""
GRID = 0.25
"""Spacing of the path's samples [m]."""
PATH_SIGMAS = (1.2, 1.8, 2.6, 3.8, 5.5)
"""Widths of the Gaussians that smooth the path [m]; faster stretches take wider ones."""
SIGMA_PER_SPEED = 0.36
"""Width of the path's Gaussian per speed [s]."""
GUIDE_SHARE = 0.48
"""The point that follows the lane centre lies this share of the wheelbase ahead of the rear axle, so that in
a turn the rear cuts the corner about as much as the front swings out."""
RUN_UP = 32.0
"""A path is continued straight by this length before its beginning [m] ..."""
RUN_OUT = 20.0
"""... and behind its end [m]."""


@dataclass(frozen=True)
class Motion:
    """Smooth motion of one traffic participant, at every step from ``first`` on."""

    name: str
    type: str
    """Class of NAVSIM: vehicle, pedestrian or bicycle."""
    size: tuple[float, float, float]
    """Length, width, height [m]."""
    first: int
    pose: NDArray[np.float64]
    """(N, 3) x, y [m], heading [rad, unwrapped] of the rear axle, or of the person."""
    center: NDArray[np.float64]
    """(N, 2) centre of the box [m]."""
    speed: NDArray[np.float64]
    """(N,) of the rear axle along the heading [m/s]."""
    acceleration: NDArray[np.float64]
    """(N,) along the heading [m/s2]."""
    curvature: NDArray[np.float64]
    """(N,) of the rear axle's path [1/m]."""
    center_velocity: NDArray[np.float64]
    """(N, 2) velocity of the box centre, global axes [m/s]."""
    rear_index: NDArray[np.int64]
    """(N,) sample of the raw track at which the front bumper was where the rear axle is now."""

    @property
    def last(self) -> int:
        """Last step."""
        return self.first + len(self.pose) - 1


def smooth_in_time(values: NDArray[np.float64], sigma: float = TIME_SIGMA) -> NDArray[np.float64]:
    """Gaussian smoothing along the first axis; the ends are continued with their own slope."""
    pad = int(4 * sigma / STEP) + 1
    if len(values) < 2:
        return values.copy()
    steps = np.arange(1, pad + 1, dtype=np.float64).reshape(-1, *([1] * (values.ndim - 1)))
    before = values[0] - steps[::-1] * (values[1] - values[0])
    after = values[-1] + steps * (values[-1] - values[-2])
    padded = np.concatenate([before, values, after])
    smoothed = gaussian_filter1d(padded, sigma / STEP, axis=0, truncate=4.0)
    return np.asarray(smoothed[pad:-pad], dtype=np.float64)


def _smooth_path(
    raw: NDArray[np.float64], station: NDArray[np.float64], heading: float, speed: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return stations (M,) and points (M, 2) of the smoothed path, with its run-up."""
    moved = np.concatenate([[True], np.diff(station) > 1e-3])
    keep = np.flatnonzero(moved)
    back = raw[0] - RUN_UP * np.array([np.cos(heading), np.sin(heading)])
    ahead = raw[keep[-1]] - raw[keep[-2]] if len(keep) > 1 else np.array([np.cos(heading), np.sin(heading)])
    ahead = raw[keep[-1]] + RUN_OUT * ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    knots = np.concatenate([[-RUN_UP], station[keep], [station[keep[-1]] + RUN_OUT]])
    points = np.concatenate([back[None], raw[keep], ahead[None]])
    grid = np.arange(-RUN_UP, knots[-1], GRID)
    line = np.stack([np.interp(grid, knots, points[:, axis]) for axis in (0, 1)], axis=-1)
    wish = np.interp(grid, station[keep], SIGMA_PER_SPEED * speed[keep])
    # SUMO lets vehicles slide sideways while they stand: that jump of the path is spread over some metres.
    slide = np.maximum(arc_length(raw) - station, 0.0)
    slid = np.interp(grid + 4.0, station, slide) - np.interp(grid - 4.0, station, slide)
    wish = np.maximum(wish, 1.6 * slid)
    wish = gaussian_filter1d(np.clip(wish, PATH_SIGMAS[0], PATH_SIGMAS[-1]), 6.0 / GRID)
    levels = np.stack(
        [gaussian_filter1d(line, sigma / GRID, axis=0, mode="nearest") for sigma in PATH_SIGMAS]
    )
    position = np.interp(wish, PATH_SIGMAS, np.arange(len(PATH_SIGMAS)))
    lower = np.minimum(position.astype(int), len(PATH_SIGMAS) - 2)
    share = (position - lower)[:, None]
    rows = np.arange(len(grid))
    return grid, levels[lower, rows] * (1.0 - share) + levels[lower + 1, rows] * share


def _rear_axle_path(points: NDArray[np.float64], lead: float) -> NDArray[np.float64]:
    """Path of a rear axle that is drawn along ``points`` by a point ``lead`` metres ahead of it."""
    step = np.gradient(points, axis=0)
    direction = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    decay = np.exp(-GRID / lead)
    # theta' = (direction - theta) / lead, exact for a direction that is constant over a grid step.
    theta = lfilter([1.0 - decay], [1.0, -decay], direction, zi=[decay * direction[0]])[0]
    return np.asarray(points - lead * np.stack([np.cos(theta), np.sin(theta)], axis=-1), dtype=np.float64)


def vehicle_motion(track: RawTrack, kind: VehicleType, heading: float) -> Motion:
    """Smooth a vehicle or bicycle.

    Args:
        track: Raw track of the front bumper.
        kind: Its type.
        heading: Heading [rad] when it appeared (of its lane); a standing vehicle keeps it.
    """
    wheelbase = 0.597 * kind.length
    overhang = 0.185 * kind.length
    if kind.name.startswith(EGO_TYPE):
        wheelbase, overhang = EGO_WHEELBASE, 0.96
    station = np.concatenate([[0.0], np.cumsum(track.speed[1:] * STEP)])
    grid, guide = _smooth_path(track.position, station, heading, smooth_in_time(track.speed))
    lead = GUIDE_SHARE * wheelbase
    rear = _rear_axle_path(guide, lead)
    along = np.gradient(rear, axis=0)
    direction = np.unwrap(np.arctan2(along[:, 1], along[:, 0]))
    rear_length = arc_length(rear)
    bend = gaussian_filter1d(np.gradient(direction, rear_length), 1.0)
    # The guide point runs along the path of the bumper, behind it.
    behind = wheelbase + overhang - lead
    sigma = LAUNCH_SIGMA if kind.name.startswith(LAUNCH_TYPE) else TIME_SIGMA
    now = np.maximum(smooth_in_time(station, sigma) - behind, grid[0])
    x, y, yaw, length, curvature = (
        np.interp(now, grid, values) for values in (rear[:, 0], rear[:, 1], direction, rear_length, bend)
    )
    velocity = np.gradient(length, STEP) if len(length) > 1 else np.zeros(1)
    velocity[np.abs(velocity) < 1e-3] = 0.0
    acceleration = np.gradient(velocity, STEP) if len(length) > 1 else np.zeros(1)
    to_center = wheelbase + overhang - kind.length / 2
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turning = velocity * curvature * to_center
    return Motion(
        track.name,
        "bicycle" if kind.vehicle_class == "bicycle" else "vehicle",
        (kind.length, kind.width, kind.height),
        track.first,
        np.stack([x, y, yaw], axis=-1),
        np.stack([x + to_center * cosine, y + to_center * sine], axis=-1),
        velocity,
        acceleration,
        curvature,
        np.stack([velocity * cosine - turning * sine, velocity * sine + turning * cosine], axis=-1),
        np.searchsorted(station, now - lead, side="right").clip(1, len(station)) - 1,
    )


def pedestrian_motion(track: RawTrack, size: tuple[float, float, float]) -> Motion:
    """Smooth a pedestrian; the heading is the direction of walking, kept while standing."""
    position = smooth_in_time(track.position, 0.4)
    velocity = np.gradient(position, STEP, axis=0) if len(position) > 1 else np.zeros_like(position)
    speed = np.hypot(velocity[:, 0], velocity[:, 1])
    moving = np.flatnonzero(speed > 0.25)
    if len(moving):
        turn = np.unwrap(np.arctan2(velocity[moving, 1], velocity[moving, 0]))
        yaw = smooth_in_time(np.interp(np.arange(len(speed)), moving, turn), 0.3)
    else:
        yaw = np.zeros(len(speed))
    zeros = np.zeros(len(speed))
    return Motion(
        track.name,
        "pedestrian",
        size,
        track.first,
        np.column_stack([position, yaw]),
        position,
        speed,
        zeros,
        zeros,
        velocity,
        np.arange(len(speed)),
    )
