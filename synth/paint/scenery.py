"""Everything about a place that does not move, put together for the frames of a log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.synth.paint.district import connectors_of_lanes, districts_of, map_origin
from beyonddrive.synth.paint.markings import lane_paths
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, SoupBuilder, merge
from beyonddrive.synth.paint.shadows import scenery_shadows
from beyonddrive.synth.paint.signals import RoadIndex, Signals, build_signals
from beyonddrive.synth.paint.stops import StopKind, add_stop_lines, stop_at

REACH = 130.0
"""Scenery is prepared this far around the path of a log [m]."""


@dataclass(frozen=True)
class Scenery:
    """The still parts of a place, in the painter's frame: global axes around ``origin``, ground at z = 0.

    Attributes:
        origin: (2,) global coordinates of the painter's origin [m].
        ground: Surfaces, paint and shadows on them, in painting order; it has no solids.
        ground_circles: (P, 3) x, y, radius [m] around each polygon of ``ground``.
        solids: Houses, trees, signs and posts.
        solid_middles: (S, 2) middles of the solids' feet [m].
        boxes: (M, 7) x y z l w h heading of what a LiDAR hits.
        signals: Traffic lights.
    """

    origin: NDArray[np.float64]
    ground: PolygonSoup
    ground_circles: NDArray[np.float64]
    solids: PolygonSoup
    solid_middles: NDArray[np.float64]
    boxes: NDArray[np.float64]
    signals: Signals


def prepare_scenery(
    nuplan_map: NuPlanMap, path: ArrayLike, lit_connectors: set[int], sun: NDArray[np.float64]
) -> Scenery:
    """Prepare what may be seen from a path.

    Args:
        nuplan_map: The map; every layer but ``lanes_polygons`` may be missing.
        path: (N, 2) global positions the ego takes [m].
        lit_connectors: Ids of the lane connectors that have a traffic light in some frame.
        sun: (3,) vector towards the sun, its length the strength of its light.

    Raises:
        MapError: If there are no lanes, or a layer is damaged.
    """
    path = np.asarray(path, dtype=np.float64).reshape(-1, 2)
    origin = map_origin(nuplan_map)
    region = shapely.box(*(path.min(axis=0) - REACH), *(path.max(axis=0) + REACH))
    districts = list(districts_of(nuplan_map, region))
    lanes, connectors = lane_paths(nuplan_map, region)
    signals = build_signals(connectors, lit_connectors, RoadIndex(nuplan_map), origin)

    # A map without stop polygons still has lights, and lights have stop lines.
    known = frozenset().union(*(district.stopping_lanes for district in districts))
    stops = [
        stop_at(nuplan_map, lanes[lane], StopKind.LIGHT)
        for lane, leaving in connectors_of_lanes(nuplan_map, lanes, connectors).items()
        if lane not in known and any(path.id in lit_connectors for path in leaving)
    ]
    more = SoupBuilder()
    add_stop_lines(more, stops, origin)

    standing = np.concatenate([*(district.boxes for district in districts), signals.boxes])
    crowns = np.concatenate([district.crowns for district in districts])
    ground = merge(
        [
            *(district.surfaces for district in districts),
            *(district.markings for district in districts),
            more.build(),
            scenery_shadows(standing, crowns, sun),
        ]
    )
    solids = merge([*(district.solids for district in districts), *signals.posts])
    return Scenery(
        origin,
        ground,
        _circles(ground),
        solids,
        solids.feet.mean(axis=1),
        np.concatenate([standing, *(district.tree_boxes for district in districts)]),
        signals,
    )


def _circles(soup: PolygonSoup) -> NDArray[np.float64]:
    """A circle (x, y, radius) around each polygon of a soup of flat polygons."""
    starts = soup.contours[soup.polygons[:-1]]
    if len(starts) == 0:
        return np.zeros((0, 3))
    xy = soup.points[:, :2]
    low = np.minimum.reduceat(xy, starts)
    high = np.maximum.reduceat(xy, starts)
    return np.column_stack([(low + high) / 2, np.linalg.norm(high - low, axis=1) / 2])
