"""HUGSIM's tracker: an iterative LQR from a reference to acceleration and steering rate (section 5.3).

It stops by iterations only, never by a clock, so that a loaded machine gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

Floats = NDArray[np.float64]

WHEELBASE = 2.7
"""Distance between the axles [m]."""
MAX_ACCELERATION, MAX_STEERING_RATE = 3.0, 0.4
"""Inputs are clipped to this [m/s2, rad/s]."""
MAX_STEERING = np.pi / 3
"""The steering angle is clipped to this [rad]."""
MIN_SPEED = 0.01
"""Speed that the linear model takes instead of a smaller one [m/s]."""
MAX_ITERATIONS = 100
TOLERANCE = 1e-6
"""The inputs have converged when their change has a smaller norm than this."""
STATE_COSTS = np.diag([1.0, 1.0, 10.0, 0.0, 0.0])
INPUT_COSTS = np.diag([1.0, 10.0])
JERK_PENALTY = 1e-4
CURVATURE_PENALTY, CURVATURE_RATE_PENALTY = 1e-10, 1e-2
SPEED_GAIN, STEERING_GAIN = 0.5, 0.05
"""How much of the differences in speed and steering the first input of the warm start takes back."""


@dataclass(frozen=True, eq=False)
class Tracking:
    """Answer of the tracker for a reference of N + 1 rows.

    Attributes:
        inputs: (N, 2) acceleration [m/s2] and steering rate [rad/s]; the first row is the command.
        states: (N + 1, 5) x ahead, y right [m], heading [rad], speed [m/s], steering [rad].
        warm: (N, 2) inputs that it started from.
        first: (N, 2) inputs after one iteration.
        costs: Tracking cost at the warm start and at the end.
        iterations: How many it took.
    """

    inputs: Floats
    states: Floats
    warm: Floats
    first: Floats
    costs: tuple[float, float]
    iterations: int


def track(reference: Floats, speed: float, steering: float, dt: float = 0.5) -> Tracking:
    """Follow a reference.

    Args:
        reference: (N + 1, 5) rows ahead, right, heading, 0, 0; the first is the ego now: zeros.
        speed: Speed now [m/s].
        steering: Steering angle now [rad].
        dt: Seconds between rows.

    Raises:
        HugsimError: If the reference is too short, or something is not finite.
    """
    if len(reference) < 3 or not np.isfinite(reference).all() or not np.isfinite([speed, steering]).all():
        raise HugsimError(
            f"plan: the tracker needs two or more finite points and a finite state, got {len(reference) - 1} "
            f"points, speed {speed}, steering {steering}"
        )
    if abs(steering) >= np.pi / 2:
        raise HugsimError(
            f"ego_steer: {steering} rad is a quarter turn or more; the tracker cannot start there"
        )
    start = np.array([0.0, 0.0, 0.0, speed, steering])
    warm = warm_start(reference, speed, steering, dt)
    states, inputs = _roll_out(start, warm, dt)
    warm = inputs.copy()
    costs = [_cost(states, inputs, reference)]
    first, iterations = inputs, 0
    for iterations in range(1, MAX_ITERATIONS + 1):
        new = _improve(states, inputs, reference, dt)
        states, new = _roll_out(start, new, dt)
        change = float(np.linalg.norm(new - inputs))
        inputs = new
        if iterations == 1:
            first = inputs.copy()
        if change < TOLERANCE:
            break
    costs.append(_cost(states, inputs, reference))
    return Tracking(inputs, states, warm, first, (costs[0], costs[1]), iterations)


def warm_start(reference: Floats, speed: float, steering: float, dt: float) -> Floats:
    """Inputs (N, 2) that fit speed and curvature to the reference by least squares."""
    poses = reference[:, :3]
    count = len(poses) - 1
    shift = np.diff(poses[:, :2], axis=0)
    turn = wrap(np.diff(poses[:, 2]))
    cos, sin = np.cos(poses[:-1, 2]), np.sin(poses[:-1, 2])
    # Unknowns: initial speed, then accelerations; displacement k has the speed after k of them.
    matrix = np.zeros((2 * count, count))
    matrix[0::2, 0], matrix[1::2, 0] = cos * dt, sin * dt
    for k in range(count):
        matrix[2 * k, 1 : k + 1] = cos[k] * dt**2
        matrix[2 * k + 1, 1 : k + 1] = sin[k] * dt**2
    smooth = np.zeros((max(count - 2, 0), count))
    for j in range(len(smooth)):
        smooth[j, j + 1 : j + 3] = -1.0, 1.0
    normal = matrix.T @ matrix + JERK_PENALTY * smooth.T @ smooth
    solved = np.linalg.pinv(normal) @ (matrix.T @ shift.reshape(-1))
    first_speed, acceleration = solved[0], solved[1:]
    speeds = first_speed + np.concatenate([[0.0], np.cumsum(acceleration * dt)])
    # The same for the curvature: initial one, then its rates.
    matrix = np.tril(np.ones((count, count))) * dt
    matrix[:, 0] = 1.0
    matrix = speeds[:, None] * dt * matrix
    penalty = np.diag([CURVATURE_PENALTY] + [CURVATURE_RATE_PENALTY] * (count - 1))
    solved = np.linalg.pinv(matrix.T @ matrix + penalty) @ (matrix.T @ turn)
    curvature = solved[0] + np.concatenate([[0.0], np.cumsum(solved[1:] * dt)])
    angles = np.arctan(WHEELBASE * curvature)
    inputs = np.stack([acceleration, np.diff(angles) / dt], axis=1)
    inputs = np.vstack([inputs, inputs[-1:]])
    inputs[0] += -SPEED_GAIN * (speed - first_speed), -STEERING_GAIN * (steering - angles[0])
    return inputs


def wrap(angle: Floats) -> Floats:
    """Angles in [-pi, pi)."""
    wrapped: Floats = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped


@kernel
def _wrapped(angle: float) -> float:
    return (angle + np.pi) % (2 * np.pi) - np.pi


@kernel
def _step(state: Floats, given: Floats, dt: float, out: Floats, applied: Floats) -> None:
    """One step of the kinematic model: the next state, and the input as it was applied."""
    acceleration = min(max(given[0], -MAX_ACCELERATION), MAX_ACCELERATION)
    rate = min(max(given[1], -MAX_STEERING_RATE), MAX_STEERING_RATE)
    x, y, heading, speed, steering = state
    out[0] = x + speed * np.cos(heading) * dt
    out[1] = y + speed * np.sin(heading) * dt
    out[2] = _wrapped(heading + speed * np.tan(steering) / WHEELBASE * dt)
    out[3] = speed + acceleration * dt
    out[4] = min(max(steering + rate * dt, -MAX_STEERING), MAX_STEERING)
    applied[0] = acceleration
    applied[1] = (out[4] - steering) / dt


@kernel
def _roll_out(start: Floats, inputs: Floats, dt: float) -> tuple[Floats, Floats]:
    """States (N + 1, 5) and applied inputs (N, 2)."""
    states, applied = np.empty((len(inputs) + 1, 5)), np.empty((len(inputs), 2))
    states[0] = start
    for k in range(len(inputs)):
        _step(states[k], inputs[k], dt, states[k + 1], applied[k])
    return states, applied


@kernel
def _linearise(state: Floats, dt: float, a: Floats, b: Floats) -> None:
    """Jacobians of a step at a state, in place."""
    _, _, heading, speed, steering = state
    if abs(speed) <= MIN_SPEED:
        speed = MIN_SPEED if speed >= 0.0 else -MIN_SPEED
    a[:] = np.eye(5)
    a[0, 2], a[0, 3] = -speed * np.sin(heading) * dt, np.cos(heading) * dt
    a[1, 2], a[1, 3] = speed * np.cos(heading) * dt, np.sin(heading) * dt
    a[2, 3] = np.tan(steering) / WHEELBASE * dt
    a[2, 4] = speed * dt / (WHEELBASE * np.cos(steering) ** 2)
    b[:] = 0.0
    b[3, 0] = b[4, 1] = dt


@kernel
def _error(state: Floats, reference: Floats) -> Floats:
    error = state - reference
    error[2] = _wrapped(error[2])
    return error


@kernel
def _improve(states: Floats, inputs: Floats, reference: Floats, dt: float) -> Floats:
    """One iteration: backward pass, then new inputs (N, 2) by the linear policy."""
    count = len(inputs)
    q_cost, r_cost, s_cost, t_cost = STATE_COSTS, INPUT_COSTS, np.eye(5), np.eye(2)
    gains, offsets = np.empty((count, 2, 5)), np.empty((count, 2))
    a, b = np.empty((5, 5)), np.empty((5, 2))
    p = q_cost + s_cost
    q = q_cost @ _error(states[count], reference[count])
    for k in range(count - 1, -1, -1):
        _linearise(states[k], dt, a, b)
        g = np.linalg.inv(r_cost + t_cost + b.T @ p @ b)
        gain = -g @ b.T @ p @ a
        offset = -g @ (r_cost @ inputs[k] + b.T @ q)
        closed = a + b @ gain
        error = _error(states[k], reference[k])
        q = (
            q_cost @ error
            + gain.T @ r_cost @ (offset + inputs[k])
            + gain.T @ t_cost @ offset
            + closed.T @ p @ b @ offset
            + closed.T @ q
        )
        p = q_cost + s_cost + gain.T @ r_cost @ gain + gain.T @ t_cost @ gain + closed.T @ p @ closed
        gains[k], offsets[k] = gain, offset
    new = np.empty((count, 2))
    change, moved, result = np.zeros(5), np.empty(5), np.empty(5)
    for k in range(count):
        given = inputs[k] + gains[k] @ change + offsets[k]
        moved[:] = states[k] + change
        moved[2] = _wrapped(moved[2])
        _step(moved, given, dt, result, new[k])
        change = result - states[k + 1]
        change[2] = _wrapped(change[2])
    return new


@kernel
def _cost(states: Floats, inputs: Floats, reference: Floats) -> float:
    total = 0.0
    for k in range(len(states)):
        error = _error(states[k], reference[k])
        total += np.dot(error, STATE_COSTS @ error)
    for k in range(len(inputs)):
        total += np.dot(inputs[k], INPUT_COSTS @ inputs[k])
    return total
