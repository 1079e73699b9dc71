"""Transforms: a scene in, inputs and targets of a planner out."""

from beyonddrive.datasets.transforms import (
    bev_map,
    camera,
    encoding,
    lidar,
    negative_controls,
    negatives,
    packing,
    points,
    targets,
    vocabulary,
)

__all__ = [
    "bev_map",
    "camera",
    "encoding",
    "lidar",
    "negative_controls",
    "negatives",
    "packing",
    "points",
    "targets",
    "vocabulary",
]
