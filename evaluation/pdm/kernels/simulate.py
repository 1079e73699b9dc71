"""The ego in closed loop: a regulator tracks 41 reference poses with a bicycle (PDMS_V1, sections 2, 3)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    ACCELERATION_LAG,
    CURVATURE_RATE_PENALTY,
    HEADING_ERROR_WEIGHT,
    HORIZON,
    INITIAL_CURVATURE_PENALTY,
    JERK_PENALTY,
    LATERAL_ERROR_WEIGHT,
    MAX_STEERING,
    MOTION_STEP,
    NUM_STATES,
    NUM_STEPS,
    SPEED_GAIN,
    STEERING_LAG,
    STEERING_RATE_WEIGHT,
    STEP,
    STOP_GAIN,
    STOP_SPEED,
    WHEELBASE,
)
from beyonddrive.evaluation.pdm.kernels.plan_states import principal, wrap

STATE_SIZE = 11
"""x, y, heading, vx, vy, ax, ay, steering, steering rate, yaw rate, yaw acceleration."""


def _speed_matrix() -> Floats:
    """Matrix (40, 40) from distances along the reference headings to reference speeds (section 2)."""
    lower = np.tril(np.full((NUM_STEPS, NUM_STEPS), STEP * STEP))
    lower[:, 0] = STEP
    # Published as a difference of accelerations, but only the last row is one: the others are a ridge.
    penalty = np.zeros((NUM_STEPS - 2, NUM_STEPS))
    penalty[:, 1:-1] = -np.eye(NUM_STEPS - 2)
    penalty[-1, -1] = 1.0
    fit = np.linalg.solve(lower.T @ lower + JERK_PENALTY * penalty.T @ penalty, lower.T)
    accumulate = np.tril(np.full((NUM_STEPS, NUM_STEPS), STEP))
    accumulate[:, 0] = 1.0
    return np.ascontiguousarray(accumulate @ fit)


SPEED_MATRIX = _speed_matrix()
SPEED_COLUMNS = np.ascontiguousarray(SPEED_MATRIX.T)
CURVATURE_RATIO = CURVATURE_RATE_PENALTY / (STEP * STEP)


@kernel
def speed_profile(reference: Floats, cosine: Floats, sine: Floats, speed: Floats) -> None:
    """Speeds (40,) of a reference (41, 3), and cosines and sines (40,) of its headings."""
    for i in range(NUM_STEPS):
        cosine[i], sine[i] = math.cos(reference[i, 2]), math.sin(reference[i, 2])
    # Column by column, so that the additions do not wait for one another.
    for i in range(NUM_STEPS):
        speed[i] = 0.0
    for j in range(NUM_STEPS):
        value = cosine[j] * (reference[j + 1, 0] - reference[j, 0]) + sine[j] * (
            reference[j + 1, 1] - reference[j, 1]
        )
        for i in range(NUM_STEPS):
            speed[i] += SPEED_COLUMNS[j, i] * value


@kernel
def curvature_profile(reference: Floats, speed: Floats, excess: Floats, curvature: Floats) -> None:
    """Curvatures (40,) of a reference with the given speeds; ``excess`` (40,) is scratch.

    The ridge problem of section 2, written in the curvatures themselves, is a tridiagonal system. It is
    eliminated from the end; ``excess`` is what each pivot has above 1, so nothing is ever subtracted and a
    standing ego is no worse conditioned than a driving one.
    """
    above, carried = 0.0, 0.0
    for i in range(NUM_STEPS - 1, -1, -1):
        turn = wrap(reference[i + 1, 2] - reference[i, 2])
        weight = speed[i] * STEP
        above = weight * weight / CURVATURE_RATIO + above / (1.0 + above)
        if i < NUM_STEPS - 1:
            carried = carried / (1.0 + excess[i + 1])
        carried += weight * turn / CURVATURE_RATIO
        excess[i] = above
        curvature[i] = carried
    curvature[0] /= excess[0] + INITIAL_CURVATURE_PENALTY / CURVATURE_RATIO
    for i in range(1, NUM_STEPS):
        curvature[i] = (curvature[i] + curvature[i - 1]) / (1.0 + excess[i])


@kernel
def steering_command(
    lateral: float,
    heading: float,
    steering: float,
    speed: float,
    acceleration: float,
    curvature: Floats,
    step: int,
) -> float:
    """Steering rate [rad/s] that the lateral regulator asks for at ``step``.

    Args: errors across and of the heading, steering angle, speed, commanded acceleration, curvatures (40,).
    """
    b0, b1, b2 = 0.0, 0.0, 0.0
    for m in range(HORIZON):
        u = (speed + STEP * acceleration * m) * STEP
        lateral += u * heading
        heading += u / WHEELBASE * steering - u * curvature[min(step + m, NUM_STEPS - 1)]
        b0 += u * b1
        b1 += u / WHEELBASE * b2
        b2 += STEP
    heading = wrap(heading)
    gradient = LATERAL_ERROR_WEIGHT * b0 * lateral + HEADING_ERROR_WEIGHT * b1 * heading
    return -gradient / (
        LATERAL_ERROR_WEIGHT * b0 * b0 + HEADING_ERROR_WEIGHT * b1 * b1 + STEERING_RATE_WEIGHT
    )


@kernel
def track(reference: Floats, ego: Floats, scratch: Floats, out: Floats, motion: Floats) -> None:
    """Simulate one reference (41, 3) from the ego state (11,) into out (41, 11).

    A regulator for speed and one for steering, and a kinematic bicycle with lags on both commands.

    Args:
        reference: Poses to follow.
        ego: State now.
        scratch: (5, 40)
        out: Simulated states.
        motion: (41, 3) cosine and sine of their headings, and their speeds.
    """
    speeds, curvature, cosine, sine = scratch[0], scratch[1], scratch[2], scratch[3]
    speed_profile(reference, cosine, sine, speeds)
    curvature_profile(reference, speeds, scratch[4], curvature)
    dt = MOTION_STEP
    for c in range(STATE_SIZE):
        out[0, c] = ego[c]
    x, y, heading, speed = ego[0], ego[1], ego[2], ego[3]
    old_acceleration, steering, yaw_rate = ego[5], ego[7], ego[9]
    tan = math.tan(steering)
    motion[0, 0], motion[0, 1], motion[0, 2] = math.cos(heading), math.sin(heading), math.hypot(speed, ego[4])
    for i in range(NUM_STEPS):
        target = speeds[min(i + HORIZON, NUM_STEPS - 1)]
        error = speed - target
        if target <= STOP_SPEED and speed <= STOP_SPEED:
            acceleration, steering_rate = -STOP_GAIN * error, 0.0
        else:
            acceleration = -SPEED_GAIN * error
            dx, dy, turn = x - reference[i, 0], y - reference[i, 1], wrap(heading - reference[i, 2])
            lateral = -dx * sine[i] + dy * cosine[i]
            steering_rate = steering_command(lateral, turn, steering, speed, acceleration, curvature, i)
        acceleration = dt / (dt + ACCELERATION_LAG) * (acceleration - old_acceleration) + old_acceleration
        new_steering = dt / (dt + STEERING_LAG) * (dt * steering_rate) + steering
        rate = (new_steering - steering) / dt
        x += speed * motion[i, 0] * dt
        y += speed * motion[i, 1] * dt
        heading = principal(heading + speed * tan / WHEELBASE * dt)
        speed += acceleration * dt
        steering = min(max(steering + rate * dt, -MAX_STEERING), MAX_STEERING)
        tan = math.tan(steering)
        old_rate, yaw_rate = yaw_rate, speed * tan / WHEELBASE
        old_acceleration = acceleration
        out[i + 1, 0], out[i + 1, 1], out[i + 1, 2], out[i + 1, 3] = x, y, heading, speed
        out[i + 1, 4], out[i + 1, 5], out[i + 1, 6] = 0.0, acceleration, 0.0
        out[i + 1, 7], out[i + 1, 8], out[i + 1, 9] = steering, rate, yaw_rate
        out[i + 1, 10] = (yaw_rate - old_rate) / dt
        motion[i + 1, 0], motion[i + 1, 1], motion[i + 1, 2] = (
            math.cos(heading),
            math.sin(heading),
            abs(speed),
        )


@kernel
def simulate(references: Floats, ego: Floats) -> Floats:
    """Simulated states (N, 41, 11) of references (N, 41, 3) from the ego state (11,) now."""
    out = np.empty((len(references), NUM_STATES, STATE_SIZE))
    scratch, motion = np.empty((5, NUM_STEPS)), np.empty((NUM_STATES, 3))
    for n in range(len(references)):
        track(references[n], ego, scratch, out[n], motion)
    return out
