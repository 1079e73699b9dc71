"""What is driven while the planner gives no plan: its last one, or straight on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.frame import Floats
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL
from beyonddrive.structures.se2 import to_global, to_local

TIMES = POSE_INTERVAL * np.arange(1, NUM_POSES + 1)
"""When the poses of a plan are reached [s]."""
_STRAYED = 5.0
"""A car that is farther than this from where its plan has it does not follow that plan [m]."""


class LastPlan(NamedTuple):
    """A plan of the planner's, and when and where it was made."""

    poses: Floats
    time: float
    pose: Floats


def moved_plan(last: LastPlan, time: float, pose: Floats, max_age: float) -> Floats | None:
    """The plan as it lies ahead of a later moment: (8, 3) in the ego frame of then.

    Beyond its end it goes on as it ended.

    Args:
        last: The plan.
        time: The later moment [s].
        pose: (3,) of the ego then.
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
    if np.hypot(*(now[:2] - pose[:2])) > _STRAYED:
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
