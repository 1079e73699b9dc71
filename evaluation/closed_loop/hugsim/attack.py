"""HUGSIM's attacking agent: of many short manoeuvres the one that gets nearest to the ego (section 5.5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HORIZON = 2.0
"""Length of a manoeuvre [s]."""
SAMPLES = 20
ROW_STEP = 0.1
SIDEWAYS = (-3.0, -1.5, 0.0, 1.5, 3.0)
ACCELERATIONS = np.linspace(-2.0, 5.0, 10)
TURNS = np.deg2rad([-30.0, 0.0, 30.0])
MIN_END_SPEED = 1e-3
MAX_SPEED = 50.0
MIN_ACCELERATION, MAX_ACCELERATION = -6.0, 5.0
LIMIT_MARGIN = 1e-9
"""Tells acceleration at exactly the limit, up to rounding, from less [m/s2]."""
MAX_SIDE_ACCELERATION = 8.0
MAX_CURVATURE, MIN_CURVATURE_SPEED = 0.5, 0.5
END_TOLERANCE = 5e-3
SLOW = 2.0
"""Below this speed manoeuvres with a steered start are looked at, too [m/s]."""
STEERED = (-0.4, 0.0, 0.4)
CHANGES = np.linspace(-0.7, 0.7, 9)
NEIGHBOR_COST, NEIGHBOR_RADIUS = 0.1, 2.0


class DrawNumbers:
    """The random numbers that the official code draws: torch's generator, seeded with 0.

    >>> draws = DrawNumbers()
    >>> all(0 <= draws.below(3) < 3 for _ in range(100))
    True
    """

    def __init__(self) -> None:
        self._bits = np.random.RandomState(0)

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return int(self._bits.randint(0, 2**32, dtype=np.uint32)) % limit


def candidates(state: Floats, with_limit: bool = False) -> Floats:
    """Manoeuvres (C, 19, 4) that an agent may drive.

    Args:
        state: (4,) a, b, yaw, speed.
        with_limit: Keep the manoeuvre that accelerates at exactly the limit, of which the rounding of float32
            decides in the official code.

    Returns:
        a, b, yaw, speed of each of 19 rows.
    """
    splines = _splines(state, with_limit)
    if state[3] < SLOW:
        return np.concatenate([splines, _steered(state)])
    return splines


def cost(rows: Floats, victim: Floats, neighbors: Floats) -> Floats:
    """Cost (C,) of manoeuvres (C, 20, 4): the smallest distance to the victim, row by row, and to neighbours.

    Args:
        rows: State now, then the manoeuvre.
        victim: (20, 4) forecast of the ego.
        neighbors: (K, 20, 4) forecasts of others.
    """
    total = np.hypot(*np.moveaxis(rows[..., :2] - victim[:, :2], -1, 0)).min(axis=1)
    for other in neighbors:
        gap = np.hypot(*np.moveaxis(rows[..., :2] - other[:, :2], -1, 0)).min(axis=1)
        total = total + NEIGHBOR_COST * (gap < NEIGHBOR_RADIUS)
    return total


def choose(
    state: Floats,
    victim: Floats,
    neighbors: Floats,
    best: int,
    draws: DrawNumbers,
    with_limit: bool = False,
) -> Floats | None:
    """Rows (20, 4) of the chosen manoeuvre, the state now first; None if there is none.

    Among equally cheap ones the first is taken: the official order depends on the program that sorts.
    ``with_limit`` is that of :func:`candidates`.
    """
    found = candidates(state, with_limit)
    if not len(found):
        draws.below(best)
        return None
    rows = np.concatenate([np.tile(state, (len(found), 1, 1)), found], axis=1)
    cheapest = np.argsort(cost(rows, victim, neighbors), kind="stable")[:best]
    chosen: Floats = rows[cheapest[min(draws.below(best), len(cheapest) - 1)]]
    return chosen


def _splines(state: Floats, with_limit: bool) -> Floats:
    a, b, yaw, speed = (float(value) for value in state)
    speed = max(speed, MIN_END_SPEED)
    direction = yaw + math.pi / 2
    side, gain, turn = (grid.ravel() for grid in np.meshgrid(SIDEWAYS, ACCELERATIONS, TURNS, indexing="ij"))
    forward = speed * HORIZON + gain * HORIZON**2 / 2
    cos, sin = math.cos(direction), math.sin(direction)
    offset = np.stack([forward * cos - side * sin, forward * sin + side * cos], axis=1)  # (C, 2)
    end_direction = np.arctan2(offset[:, 1], offset[:, 0]) + turn
    end_speed = np.maximum(speed + gain * HORIZON, MIN_END_SPEED)
    start_tangent = HORIZON * speed * np.array([cos, sin])
    end_tangent = (
        HORIZON * end_speed[:, None] * np.stack([np.cos(end_direction), np.sin(end_direction)], axis=1)
    )
    # p = c1 u + c2 u^2 + c3 u^3 from the start, u in [0, 1]
    c1 = np.broadcast_to(start_tangent, offset.shape)
    c2 = 3 * offset - 2 * c1 - end_tangent
    c3 = -2 * offset + c1 + end_tangent
    u = np.arange(SAMPLES)[:, None] / (SAMPLES - 1)
    c1, c2, c3 = c1[:, None], c2[:, None], c3[:, None]
    place = c1 * u + c2 * u**2 + c3 * u**3
    velocity = (c1 + 2 * c2 * u + 3 * c3 * u**2) / HORIZON
    change = (2 * c2 + 6 * c3 * u) / HORIZON**2
    pace = np.hypot(velocity[..., 0], velocity[..., 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (velocity * change).sum(axis=-1) / pace
        rate = (velocity[..., 0] * change[..., 1] - velocity[..., 1] * change[..., 0]) / pace**2
    heading = np.arctan2(velocity[..., 1], velocity[..., 0])
    keep = (
        (pace < MAX_SPEED)
        & (along >= MIN_ACCELERATION)
        & (along < MAX_ACCELERATION + (LIMIT_MARGIN if with_limit else -LIMIT_MARGIN))
        & (np.abs(rate * pace) <= MAX_SIDE_ACCELERATION)
        & (np.abs(rate) <= MAX_CURVATURE * np.maximum(pace, MIN_CURVATURE_SPEED))
    ).all(axis=1)
    keep &= (np.abs(place[:, -1] - offset) <= END_TOLERANCE).all(axis=1)
    keep &= np.abs(pace[:, -1] - end_speed) <= END_TOLERANCE
    keep &= np.abs(heading[:, -1] - end_direction) <= END_TOLERANCE
    rows = np.stack([a + place[..., 0], b + place[..., 1], heading - math.pi / 2, pace], axis=-1)
    kept: Floats = rows[keep, 1:]
    return kept


def _steered(state: Floats) -> Floats:
    a, b, yaw, speed = (float(value) for value in state)
    speed = max(speed, MIN_END_SPEED)
    direction = yaw + math.pi / 2
    made = []
    for gain in ACCELERATIONS:
        pace = np.clip(speed + ROW_STEP * gain * np.arange(SAMPLES), -5.0, 30.0)
        before = np.concatenate([[speed], pace[:-1]])
        c0 = np.abs(before)
        c1 = np.cumsum(ROW_STEP * c0)
        c2 = np.cumsum(ROW_STEP * c1)
        c3 = np.cumsum(ROW_STEP * c2)
        for first in STEERED:
            for more in CHANGES:
                last = first + more
                slope = (c3[-1] * last - c2[-1] * more) / (c1[-1] * c3[-1] - c2[-1] ** 2)
                bend = (last - c1[-1] * slope) / c2[-1]
                steering = slope * c0 + bend * c1
                positive = steering > 0
                means = [
                    np.clip(steering[part].sum() / (c0[part].sum() + 1e-6), -0.5, 0.5)
                    for part in (positive, ~positive)
                ]
                rate = np.where(positive, means[0], means[1]) * c0
                with np.errstate(divide="ignore"):
                    rate = np.clip(rate, -MAX_SIDE_ACCELERATION / c0, MAX_SIDE_ACCELERATION / c0)
                heading = direction + np.cumsum(ROW_STEP * rate)
                x = a + np.cumsum(ROW_STEP * pace * np.cos(heading))
                y = b + np.cumsum(ROW_STEP * pace * np.sin(heading))
                made.append(np.stack([x, y, heading - math.pi / 2, pace], axis=1)[:-1])
    return np.array(made)
