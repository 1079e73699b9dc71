"""TransFuser, LTF and LTF*: one network, three settings (MODELS, sections 3 and 4)."""

from __future__ import annotations

from beyonddrive.plugins.base.head_planner import SensorPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class TransFuserPlanner(SensorPlanner):
    """One regressed plan from camera, LiDAR (or a learned latent) and ego status.

    Which published planner it is depends on the settings:

    - TransFuser: ``backbone.latent=False``, :class:`AbsoluteTrajectoryHead`;
    - LTF: ``backbone.latent=True``, :class:`AbsoluteTrajectoryHead`;
    - LTF*: ``backbone.latent=True``, :class:`DeltaTrajectoryHead`, agent weights 0;
    - LTFv7 (BeyondDrive): LTF* with its trajectory head wrapped in :class:`RepulsiveHead`.

    Args:
        backbone: Settings of the :class:`TransFuserBackbone`.
        decoder: Settings of the :class:`QueryDecoder`.
        kwargs: As for :class:`HeadPlanner`.
    """
