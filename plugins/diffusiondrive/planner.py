"""DiffusionDrive: truncated diffusion from anchors (MODELS, section 6)."""

from __future__ import annotations

from beyonddrive.plugins.base.sampling import SamplingPlanner
from beyonddrive.plugins.diffusiondrive.head import TruncatedDiffusionHead
from beyonddrive.registry import MODELS


@MODELS.register_module()
class DiffusionDrivePlanner(SamplingPlanner):
    """Camera, LiDAR and ego status -> one plan per anchor, and the best of them.

    Args:
        kwargs: As for :class:`SensorPlanner`; ``trajectory_head`` is a :class:`TruncatedDiffusionHead`, bare
            or wrapped.
    """

    head_type = TruncatedDiffusionHead
