"""How HUGSIM moves other road users: constant, replayed, and IDM (HUGSIM, section 5.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

Floats = NDArray[np.float64]

FORECAST_ROWS = 20
"""Rows of a forecast; the first is now."""
STEP = 0.25
"""Seconds between rows, and of a step of the simulation."""


def moved_straight(state: Floats) -> Floats:
    """State (4,) a, b, yaw, speed a step after, going straight on; the yaw is positive to the left.

    >>> moved_straight(np.array([0.0, 0.0, 0.0, 4.0])).tolist()
    [0.0, 1.0, 0.0, 4.0]
    """
    a, b, yaw, speed = state
    return np.array([a - speed * math.sin(yaw) * STEP, b + speed * math.cos(yaw) * STEP, yaw, speed])


def forecasts(states: Floats) -> Floats:
    """What agents expect of everyone: (n, 20, 4) every 0.25 s, straight on, from (n, 4) a, b, yaw, speed.

    Right for the ego, whose yaw is positive to the right, and mirrored for agents, as in the official code.
    """
    times = STEP * np.arange(FORECAST_ROWS)
    rows = np.repeat(states[:, None], FORECAST_ROWS, axis=1)
    rows[..., 0] += states[:, None, 3] * np.sin(states[:, None, 2]) * times
    rows[..., 1] += states[:, None, 3] * np.cos(states[:, None, 2]) * times
    return rows


@dataclass(frozen=True, eq=False)
class Replay:
    """A car that drove there when the scene was recorded.

    Attributes:
        times: (n,) time stamps [s], ascending.
        states: (n, 4) a, b, yaw, speed at these.
    """

    times: Floats
    states: Floats

    def __post_init__(self) -> None:
        count = len(self.times)
        if count < 2 or self.states.shape != (count, 4) or (np.diff(self.times) <= 0).any():
            raise HugsimError(
                f"replayed car: needs two or more ascending time stamps with states (n, 4), got "
                f"{self.times.shape} and {self.states.shape}"
            )

    def at(self, time: float) -> Floats:
        """State (4,) at a time: bicycle motion between stamps, straight on before and after them.

        With no turn between two stamps the car stands still until the second, as in the official code.
        """
        stamps = self.times.astype(np.float32)
        now = np.float32(time)
        if now < stamps[0]:
            return self._beyond(0, float(time - self.times[0]))
        if now > stamps[-1]:
            return self._beyond(-1, float(time - self.times[-1]))
        i = int(np.searchsorted(stamps, now, side="right")) - 1
        if stamps[i] == now:
            return self.states[i].copy()
        span = self.times[i + 1] - self.times[i]
        rates = (self.states[i + 1, 2:] - self.states[i, 2:]) / span
        since = time - self.times[i]
        a, b, yaw, speed = self.states[i]
        new_yaw, turn = yaw + rates[0] * since, rates[0] + 1e-6
        return np.array(
            [
                a + speed * (math.sin(new_yaw) - math.sin(yaw)) / turn,
                b - speed * (math.cos(new_yaw) - math.cos(yaw)) / turn,
                new_yaw,
                speed + rates[1] * since,
            ]
        )

    def _beyond(self, end: int, since: float) -> Floats:
        a, b, yaw, speed = self.states[end]
        return np.array([a + speed * math.cos(yaw) * since, b + speed * math.sin(yaw) * since, yaw, speed])


@dataclass(frozen=True)
class IntelligentDriver:
    """Follows a path and keeps its distance (IDM).

    Attributes:
        desired_speed: [m/s]
        min_gap: [m]
        headway: [s]
        acceleration: [m/s2]
        braking: [m/s2]
        exponent: Of the free-road term.
    """

    desired_speed: float = 30.0
    min_gap: float = 5.0
    headway: float = 2.0
    acceleration: float = 2.0
    braking: float = 4.0
    exponent: float = 4.0

    LOOK_AHEAD = 100
    LEAD_RADIUS = 1.0

    def step(self, state: Floats, path: Floats, neighbors: Floats, dt: float = STEP) -> Floats:
        """Next state (4,) a, b, yaw, speed.

        Args:
            state: (4,) now.
            path: (P, 3) a, b, yaw of the lane's points.
            neighbors: (K, 20, 4) forecasts of the nearest road users.
            dt: Seconds.

        Raises:
            HugsimError: If a lead is ahead and one point of the path is left.
        """
        a, b, yaw, speed = (float(value) for value in state)
        distance = np.hypot(path[:, 0] - a, path[:, 1] - b)
        nearest = int(distance.argmin())
        ahead = path[nearest + 1 : nearest + 1 + self.LOOK_AHEAD]
        if not len(ahead):
            return np.array([a, b, yaw, 0.0])
        acceleration = self._acceleration(speed, ahead, neighbors)
        new = np.array([a, b, yaw, speed])
        way = speed * dt
        beyond = np.flatnonzero(distance[nearest + 1 :] > way)
        if not len(beyond):
            return np.array([a, b, yaw, 0.0])
        target = path[nearest + 1 + int(beyond[0])]
        share = min(1.0, way / math.hypot(target[0] - a, target[1] - b))
        new[:2] += share * (target[:2] - new[:2])
        sin = (1 - share) * math.sin(yaw) + share * math.sin(target[2])
        cos = (1 - share) * math.cos(yaw) + share * math.cos(target[2])
        new[2] = math.atan2(sin, cos)
        new[3] = max(0.0, speed + acceleration * dt)
        return new

    def _acceleration(self, speed: float, ahead: Floats, neighbors: Floats) -> float:
        free = self.acceleration * (1 - (speed / self.desired_speed) ** self.exponent)
        rows = neighbors.reshape(-1, 4)
        gap = np.hypot(
            rows[:, None, 0] - ahead[None, :, 0], rows[:, None, 1] - ahead[None, :, 1]
        )  # (rows, points)
        found = np.argwhere(gap < self.LEAD_RADIUS)
        if not len(found):
            return free
        if len(ahead) < 2:
            raise HugsimError("IDM: one point of its path is left and a lead on it; give it a longer path")
        length = np.cumsum(np.hypot(*np.diff(ahead[:, :2], axis=0).T))
        length = np.append(length, length[-1])
        lead, points = rows[found[:, 0]], found[:, 1]
        closing = speed - lead[:, 3] * np.cos(lead[:, 2] - ahead[points, 2])
        braking = speed * closing / (2 * math.sqrt(self.acceleration * self.braking))
        wanted = self.min_gap + np.maximum(0.0, speed * self.headway + braking)
        values = free - self.acceleration * (wanted / length[points]) ** 2
        return float(values.min())


def neighbors_of(index: int, states: Floats) -> list[int]:
    """Rows of ``states`` (n, 4) that are the second to fourth nearest to a row: itself is the first."""
    distance = np.hypot(*(states[:, :2] - states[index, :2]).T)
    order: list[int] = np.argsort(distance, kind="stable").tolist()
    return order[1:4]
