"""Hooks of the runner; importing this package registers them."""

from beyonddrive.engine.hooks.checkpoint import CheckpointGuardHook, PlannerCheckpointHook
from beyonddrive.engine.hooks.seed import EpochSeedHook

__all__ = [
    "CheckpointGuardHook",
    "EpochSeedHook",
    "PlannerCheckpointHook",
]
