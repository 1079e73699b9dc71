"""Transforms: a scene in, inputs and targets of a planner out."""

from beyonddrive.datasets.transforms import (
    bev_map,
    camera,
    camera_rig,
    encoding,
    lidar,
    negative_controls,
    negatives,
    packing,
    photometric,
    points,
    targets,
    view,
    vocabulary,
)

__all__ = [
    "bev_map",
    "camera",
    "camera_rig",
    "encoding",
    "lidar",
    "negative_controls",
    "negatives",
    "packing",
    "photometric",
    "points",
    "targets",
    "view",
    "vocabulary",
]
