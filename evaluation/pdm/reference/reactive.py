"""Traffic that reacts to the ego: vehicles on their lanes by IDM (EPDMS_TWO_STAGE, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import Traffic, box_bounds
from beyonddrive.evaluation.pdm.kernels.constants import NUM_STATES
from beyonddrive.evaluation.pdm.reference.reactive_scene import ReactiveScene, ReactiveTrafficError
from beyonddrive.evaluation.pdm.reference.reactive_steps import REMOVED, drive


@dataclass(eq=False)
class ReactiveMaps:
    """Traffic of one plan.

    Attributes:
        boxes: (41, M, 4) x, y, cosine and sine of the heading of every track every 0.1 s; NaN where absent.
        speed: (41, M) of simulated vehicles; as observed for others.
        trace: (40, A, 5) per step and simulated vehicle: progress, speed, gap, lead speed, rear length; NaN
            once it has been removed.
        lead: (40, A) index of the lead among the simulated vehicles, -1 the ego, -2 none, -3 removed.
    """

    boxes: Floats
    speed: Floats
    trace: Floats
    lead: Ints
    scene: ReactiveScene = field(repr=False)

    def traffic(self) -> Traffic:
        """The boxes as collision kernels take them; nobody is ignored from the start."""
        still = self.scene.unmoved
        return still._replace(boxes=self.boxes, bounds=box_bounds(self.boxes, still.half))


def react(scene: ReactiveScene, states: Floats) -> ReactiveMaps:
    """Drive the traffic of a scene against the simulated states (41, 11) of the ego.

    Raises:
        ReactiveTrafficError: If a vehicle lies beyond the end of its rail, which the official code cannot
            simulate.
    """
    boxes, count = scene.unmoved.boxes.copy(), len(scene.vehicles)
    speed = np.full(boxes.shape[:2], np.nan)
    speed[0] = np.hypot(scene.tracks.velocity[:, 0], scene.tracks.velocity[:, 1])
    trace = np.full((NUM_STATES - 1, count, 5), np.nan)
    lead = np.full((NUM_STATES - 1, count), REMOVED, dtype=np.int64)
    lost = drive(scene.fleet, states, boxes, speed, trace, lead)
    if lost >= 0:
        raise ReactiveTrafficError(
            f"vehicle {scene.tracks.tokens[scene.vehicles[lost].row]}: it lies beyond the end of its lane's "
            f"baseline, where its traffic cannot be simulated"
        )
    return ReactiveMaps(boxes, speed, trace, lead, scene)
