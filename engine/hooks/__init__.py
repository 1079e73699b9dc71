"""Hooks of the runner; importing this package registers them."""

from beyonddrive.engine.checkpoint_guard import CheckpointGuardHook
from beyonddrive.engine.hooks.checkpoint import PlannerCheckpointHook
from beyonddrive.engine.hooks.seed import EpochSeedHook

__all__ = [
    "CheckpointGuardHook",
    "EpochSeedHook",
    "PlannerCheckpointHook",
]
