"""Transforms: a scene in, inputs and targets of a planner out."""

from beyonddrive.datasets.transforms import (
    agent_boxes,
    bev_map,
    camera,
    camera_rig,
    det3d,
    encoding,
    lidar,
    negative_controls,
    negatives,
    packing,
    photometric,
    points,
    status,
    targets,
    view,
    vocabulary,
)

__all__ = [
    "agent_boxes",
    "bev_map",
    "camera",
    "camera_rig",
    "det3d",
    "encoding",
    "lidar",
    "negative_controls",
    "negatives",
    "packing",
    "photometric",
    "points",
    "status",
    "targets",
    "view",
    "vocabulary",
]
