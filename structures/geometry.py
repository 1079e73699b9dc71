"""Lengths that transforms and parts of a planner must agree on, by name.

A transform that makes inputs or targets says in ``geometry`` what its lengths are, name by name. A part of a
planner, or a later transform, that takes lengths for granted says in ``geometry_taken`` between which values
each may be. :func:`beyonddrive.engine.geometry.check_geometry` compares them when a training starts.
"""

from __future__ import annotations

from collections.abc import Mapping

Limits = Mapping[str, tuple[float, float]]
"""Least and greatest value of lengths by name."""

MAP_CELL = "side of a cell of the semantic maps [m]"
AGENT_EXTENT = "distance up to which agents are targets [m]"
BOX_EXTENT = "distance up to which boxes are targets [m]"
LIDAR_EXTENT = "half side of the LiDAR raster [m]"


def exactly(value: float) -> tuple[float, float]:
    """Limits that only this value is within.

    >>> exactly(0.25)
    (0.25, 0.25)
    """
    return value, value
