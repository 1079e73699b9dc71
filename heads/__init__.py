"""Heads: tokens in, plans and auxiliary outputs out. Importing this package registers them."""

from beyonddrive.heads import (
    agents,
    bev_semantic,
    diffusion,
    flow,
    mean_flow,
    repulsive,
    trajectory,
    vocabulary,
    world_model_head,
)

__all__ = [
    "agents",
    "bev_semantic",
    "diffusion",
    "flow",
    "mean_flow",
    "repulsive",
    "trajectory",
    "vocabulary",
    "world_model_head",
]
