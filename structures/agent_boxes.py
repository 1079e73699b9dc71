"""Boxes of the agents around the ego in three dimensions, and how they differ from mmdet3d's.

A row of ``boxes`` (N, 9) is x, y, z of the centre [m], length, width, height [m], heading [rad] and
velocity vx, vy over the ground [m/s], all along the axes of the ego frame now: origin at the rear axle, x
forward, y left, z up. It is also the frame of the LiDAR points, which NAVSIM has already moved there, so
mmdet3d's "LiDAR coordinates" are this frame: its axes are the same, its yaw is the heading, also
counter-clockwise from x. Only the origin of a box differs: mmdet3d's lies in the middle of the bottom.
"""

from __future__ import annotations

BOX_DIM = 9
AGENT_CLASSES = ("vehicle", "pedestrian", "bicycle")
"""Classes of agents by label: 0, 1, 2."""
