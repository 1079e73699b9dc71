"""Hooks of the runner; importing this package registers them."""

from beyonddrive.engine.checkpoint_guard import CheckpointGuardHook
from beyonddrive.engine.hooks.checkpoint import PlannerCheckpointHook
from beyonddrive.engine.hooks.seed import EpochSeedHook
from beyonddrive.engine.ranks import RankAgreementHook
from beyonddrive.engine.scene_random import SceneRandomHook

__all__ = [
    "CheckpointGuardHook",
    "EpochSeedHook",
    "PlannerCheckpointHook",
    "RankAgreementHook",
    "SceneRandomHook",
]
