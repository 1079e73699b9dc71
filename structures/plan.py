"""The plan: eight poses, half a second apart, in the ego frame at t = 0 (METHOD, "Conventions")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError

NUM_POSES = 8
"""Poses in a plan."""
POSE_INTERVAL = 0.5
"""Seconds between two poses; the first one is at this time."""

SCORE_COLUMNS = ("NC", "DAC", "EP", "TTC", "C", "DDC", "PDMS")
"""Order of the sub-scores wherever a score is an array (METHOD, "Conventions")."""

SCORER_VERSION = 1
"""Raised whenever some scene and plan get another score than before, by more than the rounding in which
processors differ, too, so that stored scores are refused."""


class PlanError(BeyondDriveError, ValueError):
    """A plan has the wrong shape or holds a value that is not finite."""


def check_plans(plans: Any, name: str = "plans") -> NDArray[np.float64]:
    """Return ``plans`` as float64 (N, 8, 3) or say what is wrong with them.

    Args:
        plans: (N, 8, 3) poses: x [m], y [m], heading [rad], rear axle, ego frame at t = 0.
        name: What to call them in an error, usually a scene token.

    Raises:
        PlanError: If the shape is not (N, 8, 3) or a value is NaN or infinite.

    >>> check_plans(np.zeros((2, 8, 3))).shape
    (2, 8, 3)
    """
    try:
        array = np.asarray(plans)
    except ValueError as error:  # lists of different lengths
        raise PlanError(f"{name}: plans must be one array ({error})") from None
    if array.dtype.kind not in "fiu":
        raise PlanError(f"{name}: plans must be numbers, got dtype {array.dtype}")
    if array.ndim != 3 or array.shape[1:] != (NUM_POSES, 3):
        raise PlanError(
            f"{name}: plans must have shape (N, {NUM_POSES}, 3) = (plan, pose every {POSE_INTERVAL} s, "
            f"x y heading), got {array.shape}"
        )
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2)))
        raise PlanError(f"{name}: {len(bad)} plan(s) hold NaN or infinity, the first is plan {bad[0]}")
    return array
