"""Losses: thin modules and functions of tensors. Importing this package registers them."""

from beyonddrive.losses import (
    agents,
    imitation,
    repulsive,
    semantic,
    semantic_focal,
    vocabulary,
    world_model,
)

__all__ = ["agents", "imitation", "repulsive", "semantic", "semantic_focal", "vocabulary", "world_model"]
