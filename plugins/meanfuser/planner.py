"""MeanFuser: mean flow from a Gaussian mixture and adaptive reconstruction (MODELS, section 7)."""

from __future__ import annotations

from beyonddrive.plugins.base.sampling import SamplingPlanner
from beyonddrive.plugins.meanfuser.head import MeanFlowHead
from beyonddrive.registry import MODELS


@MODELS.register_module()
class MeanFuserPlanner(SamplingPlanner):
    """Camera and ego status -> a proposal per component of a mixture, and one plan made of all of them.

    Args:
        kwargs: As for :class:`SensorPlanner`; ``trajectory_head`` is a :class:`MeanFlowHead`, bare or
            wrapped.
    """

    head_type = MeanFlowHead
