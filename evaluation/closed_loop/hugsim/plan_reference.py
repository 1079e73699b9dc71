"""From a plan to the reference of the tracker, in each version of HUGSIM (section 5.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.evaluation.closed_loop.hugsim.settings import Controller, HugsimError
from beyonddrive.evaluation.closed_loop.hugsim.tracker import Tracking, track

PLAN_STEP = 0.5
"""Seconds between the points of a plan."""
FINE_STEP = 0.25
"""Seconds between the points of a resampled reference."""
HALF_PI = np.pi / 2
FARTHEST = 1e6
"""No plan leads farther [m]; the tracker's squares would leave the range of numbers."""
SHORT_STEP = 0.02
"""A step shorter than this has no direction of its own [m]."""
MOST_POINTS = 200
"""No plan has more, 100 s; time and memory of the tracker grow with their square."""


def check_plan(plan: ArrayLike) -> NDArray[np.floating]:
    """A plan (N, 2) right, ahead [m] as float32 or float64, as it was given.

    Raises:
        HugsimError: If it has fewer than two points or more than :data:`MOST_POINTS`, another shape, or holds
            NaN, infinity or more than :data:`FARTHEST`.
    """
    array = np.asarray(plan)
    if array.dtype != np.float32:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise HugsimError(f"plan: holds no numbers ({error})") from None
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 2:
        raise HugsimError(f"plan: must be (N, 2) points right and ahead, N at least 2, got {array.shape}")
    if len(array) > MOST_POINTS:
        raise HugsimError(f"plan: has {len(array)} points, {MOST_POINTS} are allowed")
    if not np.isfinite(array).all():
        raise HugsimError("plan: holds NaN or infinity; send zeros to brake")
    if np.abs(array).max() > FARTHEST:
        raise HugsimError(f"plan: holds a point more than {FARTHEST:g} m away")
    return array


def directions(plan: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where each step of a plan goes, for those who have to know it of every one.

    HUGSIM's controllers do not go by this: of the shortest step they take whatever direction it has.

    Args:
        plan: (N, 2) right, ahead [m] of the ego.

    Returns:
        (N,) counter-clockwise from ahead [rad]. A step shorter than :data:`SHORT_STEP` goes on in the
        direction of the step before, the first one ahead.

    >>> directions(np.array([[0.001, 0.0], [-1.0, 1.0], [-1.0, 1.0]])).round(3).tolist()
    [0.0, 0.786, 0.786]
    """
    steps = np.diff(plan.astype(np.float64), axis=0, prepend=np.zeros((1, 2)))
    moves = np.hypot(*steps.T) >= SHORT_STEP
    last = np.maximum.accumulate(np.where(moves, np.arange(1, len(steps) + 1), 0))
    found: NDArray[np.float64] = np.concatenate([[0.0], np.arctan2(-steps[:, 0], steps[:, 1])])[last]
    return found


def command_of(plan: ArrayLike, speed: float, steering: float, controller: Controller = "pr57") -> Tracking:
    """The tracker's answer to a plan; its first input is the command.

    Args:
        plan: (N, 2) right, ahead [m] of the ego, every 0.5 s; its type, float32 or float64, matters for
            ``main`` and ``pr57``.
        speed: Speed of the ego [m/s].
        steering: Its steering angle [rad].
        controller: Version of the code.

    Raises:
        HugsimError: If the plan or the state cannot be used.

    >>> answer = command_of([[0.0, 2.0], [0.0, 4.0], [0.0, 6.0]], speed=4.0, steering=0.0)
    >>> abs(answer.inputs[0]).max() < 1e-6
    np.True_
    """
    step = FINE_STEP if controller == "resampled" else PLAN_STEP
    return track(plan_reference(check_plan(plan), controller), float(speed), float(steering), step)


def plan_reference(plan: NDArray[np.floating], controller: Controller) -> NDArray[np.float64]:
    """Reference (N + 1, 5), or (2 N + 1, 5) if it is resampled: ahead, right, heading, 0, 0."""
    if controller == "resampled":
        coarse = np.vstack([np.zeros((1, 2)), plan.astype(np.float64)])
        half = np.arange(2 * len(plan) + 1) / 2
        plan = np.stack([np.interp(half, np.arange(len(coarse)), column) for column in coarse.T], axis=1)[1:]
    reference = np.zeros((len(plan) + 1, 5))
    reference[1:, 0], reference[1:, 1] = plan[:, 1], plan[:, 0]
    if controller == "first_release":
        reference[1:, 2] = _chord_headings(plan)
    else:
        reference[1:, 2] = _step_headings(plan, transposed=controller == "main")
    if not np.isfinite(reference).all():
        raise HugsimError(
            "plan: a point at the ego has no heading in controller 'first_release'; move it ahead"
        )
    return reference


def _chord_headings(plan: NDArray[np.floating]) -> NDArray[np.float64]:
    """Direction from the origin to each point, of the first release."""
    with np.errstate(divide="ignore", invalid="ignore"):
        headings: NDArray[np.float64] = np.arctan(
            plan[:, 1].astype(np.float64) / plan[:, 0].astype(np.float64)
        )
    return headings


def _step_headings(plan: NDArray[np.floating], transposed: bool) -> NDArray[np.float64]:
    """Direction from point to point, folded into a half turn.

    The first difference is taken in float64, the others in the type of the plan, as published results were.
    """
    headings = np.empty(len(plan))
    right, ahead = float(plan[0, 0]), float(plan[0, 1])
    headings[0] = np.arctan2(ahead, right) if transposed else np.arctan2(right, ahead)
    steps = np.diff(plan, axis=0)
    angles = np.arctan2(steps[:, 1], steps[:, 0]) if transposed else np.arctan2(steps[:, 0], steps[:, 1])
    headings[1:] = angles.astype(np.float64)
    headings = np.where(headings > HALF_PI, headings - np.pi, headings)
    return np.where(headings < -HALF_PI, headings + np.pi, headings)
