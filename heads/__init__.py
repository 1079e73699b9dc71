"""Heads that any planner can name: tokens in, plans and auxiliary outputs out. Importing registers them."""

from beyonddrive.heads import agents, bev_semantic, center_point, repulsive, trajectory

__all__ = ["agents", "bev_semantic", "center_point", "repulsive", "trajectory"]
