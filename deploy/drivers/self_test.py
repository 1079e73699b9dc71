"""Before the first frame: does a plan mean in the simulator what it means here, and does the planner plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from beyonddrive.datasets.transforms.strip_rig import CAMERAS, SIZE, StripRig
from beyonddrive.deploy.drivers.core import PlannerDriver
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.fallbacks import TIMES
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.frame import CameraView, Command, Floats, Frame
from beyonddrive.structures.plan import check_plans

_SCALE = 4
"""Of the images of the made-up frame against those of the rig."""


class Motion(NamedTuple):
    """What a simulator makes of an answer: any numbers that grow as it turns left, and as it is faster."""

    left: float
    ahead: float


def arc(speed: float, yaw_rate: float) -> Floats:
    """A plan (8, 3) along a circle at a constant speed [m/s], to the left for a positive rate [rad/s].

    >>> arc(4.0, 0.1)[-1].round(2).tolist()
    [15.58, 3.16, 0.4]
    """
    heading = yaw_rate * TIMES
    if yaw_rate == 0.0:
        return np.column_stack([speed * TIMES, 0.0 * TIMES, heading])
    radius = speed / yaw_rate
    return np.column_stack([radius * np.sin(heading), radius * (1.0 - np.cos(heading)), heading])


def check_convention(answer_of: Callable[[Floats], Any], motion_of: Callable[[Any], Motion]) -> None:
    """Refuse a transport in whose simulator a left turn is none, or a faster plan is not longer.

    Args:
        answer_of: How the transport turns a plan (8, 3) into its answer.
        motion_of: What the simulator, by its own rules, makes of an answer; not derived from ``answer_of``.

    Raises:
        DriverError: With what is wrong.
    """
    left, straight, right = (motion_of(answer_of(arc(5.0, rate))) for rate in (0.2, 0.0, -0.2))
    slow, fast = (motion_of(answer_of(arc(speed, 0.0))) for speed in (3.0, 8.0))
    if not left.left > straight.left > right.left:
        raise DriverError(
            f"self-test: plans to the left, ahead and to the right come out as {left.left:.3g}, "
            f"{straight.left:.3g} and {right.left:.3g} to the left in the simulator: its frame is another"
        )
    if not fast.ahead > slow.ahead:
        raise DriverError(
            f"self-test: plans at 3 and 8 m/s come out as {slow.ahead:.3g} and {fast.ahead:.3g} ahead in the "
            f"simulator: its frame or its time is another"
        )


def made_up_frame(rig: StripRig, session: str = "self-test") -> Frame:
    """A frame of noise from a rig's own cameras, with an empty sweep."""
    width, height = SIZE[0] // _SCALE, SIZE[1] // _SCALE
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    lens = rig.lens.scaled(1 / _SCALE, 1 / _SCALE)
    views = {
        name: CameraView(image, lens, rotation, np.array([1.6, 0.0, 1.5]))
        for name, rotation in zip(CAMERAS, rig.rotations, strict=True)
    }
    still = np.zeros(2)
    return Frame(session, 0.0, views, np.array([5.0, 0.0]), still, Command.STRAIGHT, np.zeros(3))


def warm_up(driver: PlannerDriver) -> float:
    """Plan once for a frame of noise, so that what cannot plan is known before a simulator waits for it.

    Returns:
        Seconds of a second plan.

    Raises:
        DriverError: If the planner raises, or gives no plan.
    """
    frame = made_up_frame(driver.inputs.rig)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        try:
            poses = driver.engine(driver.inputs(frame, "self-test"))
            check_plans(np.asarray(poses)[None], driver.engine.name)
        except Exception as error:
            raise DriverError(
                f"self-test: {driver.engine.name} does not plan: {describe_error(error)}"
            ) from error
        seconds = time.perf_counter() - started
    return seconds
