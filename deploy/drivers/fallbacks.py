"""What is driven while the planner gives no plan: its last one, or straight on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import STEP
from beyonddrive.structures.frame import Floats
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL
from beyonddrive.structures.se2 import to_global, to_local

TIMES = POSE_INTERVAL * np.arange(1, NUM_POSES + 1)
"""When the poses of a plan are reached [s]."""
USUAL_STEP = STEP
"""A moment of unknown time comes so long after the one before it: HUGSIM's step [s]."""
FASTEST = 70.0
"""What is faster than this is no car [m/s]."""
_STRAYED = 5.0
"""A car that is farther than this from where its plan has it does not follow that plan [m]."""


class Whereabouts(NamedTuple):
    """What is known of the ego at a moment; None for what is not.

    Attributes:
        time: When it is [s].
        pose: (3,) x, y [m], heading [rad], as in a frame.
        speed: Ahead [m/s].
    """

    time: float | None = None
    pose: Floats | None = None
    speed: float | None = None

    @classmethod
    def of(cls, time: Any, pose: Any, speed: Any) -> Whereabouts:
        """Of values that may be of any type; those that cannot be are left out.

        >>> Whereabouts.of(float("nan"), [1.0, 2.0, 0.0], 1e300)
        Whereabouts(time=None, pose=array([1., 2., 0.]), speed=None)
        """
        when, ahead = _finite(time, ()), _finite(speed, ())
        if ahead is not None and abs(ahead) > FASTEST:
            ahead = None
        return cls(
            None if when is None else float(when),
            _finite(pose, (3,)),
            None if ahead is None else float(ahead),
        )


class LastPlan(NamedTuple):
    """A plan of the planner's, and when and where it was made."""

    poses: Floats
    time: float
    pose: Floats


def moved_plan(last: LastPlan, time: float, pose: Floats | None, max_age: float) -> Floats | None:
    """The plan as it lies ahead of a later moment: (8, 3) in the ego frame of then.

    Beyond its end it goes on as it ended.

    Args:
        last: The plan.
        time: The later moment [s].
        pose: (3,) of the ego then; None takes it to be where the plan has it.
        max_age: An older plan does not reach far enough [s].

    Returns:
        None if the plan is too old, lies in the future, or the ego is somewhere else.
    """
    age = time - last.time
    if not 0 <= age <= max_age:
        return None
    known = np.vstack([np.zeros(3), last.poses])
    stamps = np.concatenate([[0.0], TIMES])
    step = (known[-1] - known[-2]) / POSE_INTERVAL
    heading = np.unwrap(known[:, 2])

    def at(moments: NDArray[np.floating]) -> Floats:
        late = np.maximum(moments - stamps[-1], 0.0)[:, None]
        xy = np.stack([np.interp(moments, stamps, known[:, axis]) for axis in (0, 1)], axis=1)
        return np.column_stack([xy + late * step[:2], np.interp(moments, stamps, heading)])

    now = to_global(at(np.array([age]))[0], last.pose)
    if pose is None:
        pose = now
    elif np.hypot(*(now[:2] - pose[:2])) > _STRAYED:
        return None
    return to_local(to_global(at(age + TIMES), last.pose), pose)


def straight_on(speed: float) -> Floats:
    """Ahead at a constant speed [m/s], never backwards: (8, 3).

    >>> straight_on(2.0)[-1].tolist()
    [8.0, 0.0, 0.0]
    """
    poses = np.zeros((NUM_POSES, 3))
    poses[:, 0] = max(speed, 0.0) * TIMES
    return poses


def _finite(value: Any, shape: tuple[int, ...]) -> Floats | None:
    try:
        array = np.asarray(value, np.float64)
    except Exception:  # (a simulator may send anything)
        return None
    return array if array.shape == shape and np.isfinite(array).all() else None
