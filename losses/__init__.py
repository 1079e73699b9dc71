"""Losses: thin modules and functions of tensors. Importing this package registers them."""

from beyonddrive.losses import agents, imitation, repulsive, semantic

__all__ = ["agents", "imitation", "repulsive", "semantic"]
