"""PDM-Closed: the score's reference planner on the true state of the world, a row to compare with."""

from __future__ import annotations

from beyonddrive.plugins.base.replay import ReplayPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class PdmClosed(ReplayPlanner):
    """Returns the plan of PDM-Closed: ORACLE, it knows where everybody is, and looks at no sensor.

    The transform ``ReferencePlan`` makes the plan from annotations and map and puts it in the place of the
    expert's; in the live world (``beyonddrive closed-loop``) it is made anew in every step.
    """
