"""Hooks of the runner; importing this package registers them."""

from beyonddrive.engine.hooks.checkpoint import PlannerCheckpointHook
from beyonddrive.engine.hooks.checkpoint_guard import CheckpointGuardHook
from beyonddrive.engine.hooks.closing import ClosingHook
from beyonddrive.engine.hooks.early_stopping import PlannerEarlyStoppingHook
from beyonddrive.engine.hooks.finite_losses import FiniteLossesHook
from beyonddrive.engine.hooks.logger import PlannerLoggerHook
from beyonddrive.engine.hooks.rank_agreement import RankAgreementHook
from beyonddrive.engine.hooks.run_record import RunRecordHook
from beyonddrive.engine.hooks.scene_random import SceneRandomHook
from beyonddrive.engine.hooks.seed import EpochSeedHook

__all__ = [
    "CheckpointGuardHook",
    "ClosingHook",
    "EpochSeedHook",
    "FiniteLossesHook",
    "PlannerCheckpointHook",
    "PlannerEarlyStoppingHook",
    "PlannerLoggerHook",
    "RankAgreementHook",
    "RunRecordHook",
    "SceneRandomHook",
]
