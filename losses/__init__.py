"""Losses: thin modules and functions of tensors. Importing this package registers them."""

from beyonddrive.losses import agents, imitation, repulsive, semantic, semantic_focal

__all__ = ["agents", "imitation", "repulsive", "semantic", "semantic_focal"]
