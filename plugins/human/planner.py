"""Human replay: the driver's own plan, read from the targets; a bound for planners."""

from __future__ import annotations

from beyonddrive.plugins.base.replay import ReplayPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class HumanReplay(ReplayPlanner):
    """Returns what the driver did: ORACLE, it sees the future, and is no planner.

    It exists for the row "human" of a table, and to check a data set: what the driver did should score near
    the top.
    """
