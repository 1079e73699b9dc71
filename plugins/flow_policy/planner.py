"""FlowPolicy: the flow-matching planner that also generates the negatives (METHOD, sections 1 and 2)."""

from __future__ import annotations

from beyonddrive.plugins.base.sampling import SamplingPlanner
from beyonddrive.plugins.flow_policy.head import FlowHead
from beyonddrive.registry import MODELS


@MODELS.register_module()
class FlowPolicy(SamplingPlanner):
    """Samples plans by flow matching; as a planner, and as a generator by :meth:`propose`.

    Args:
        kwargs: As for :class:`SensorPlanner`; ``trajectory_head`` is a :class:`FlowHead`, bare or wrapped.
    """

    head_type = FlowHead
