"""The drivable map: polygons around the ego, in the order the score knows them (PDMS_V1, section 12.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex, Rows
from beyonddrive.evaluation.pdm.kernels.arrays import Ints
from beyonddrive.evaluation.pdm.kernels.constants import (
    CARPARK_AREA,
    INTERSECTION,
    LANE,
    LANE_CONNECTOR,
    MAP_RADIUS,
    ROADBLOCK,
)
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings


@dataclass(frozen=True, eq=False)
class DrivableMap:
    """Polygons near the ego; whole, not clipped.

    Attributes:
        polygons: P polygons.
        ids: (P,) int64.
        types: (P,) int8 classes.
        rows: (P,) int64 rows in :attr:`beyonddrive.evaluation.pdm.inputs.map_index.MapIndex.polygons`.
    """

    polygons: PolygonRings
    ids: Ints
    types: NDArray[np.int8]
    rows: Ints


def drivable_map(index: MapIndex, x: float, y: float) -> DrivableMap:
    """Polygons that intersect the square around (x, y), and all lanes of the blocks among them."""
    square = shapely.box(x - MAP_RADIUS, y - MAP_RADIUS, x + MAP_RADIUS, y + MAP_RADIUS)
    shapely.prepare(square)
    blocks, connectors, intersections, carparks = (
        np.sort(layer.tree.query(square, predicate="intersects")).astype(np.int64)
        for layer in (index.roadblocks, index.block_connectors, index.intersections, index.carparks)
    )
    lanes = _lanes(index, blocks)
    lane_connectors = _lanes(index, connectors + index.num_roadblocks)
    offsets = index.polygon_offsets
    rows = [
        offsets[ROADBLOCK] + blocks,
        index.lane_polygon_rows(lanes),
        index.lane_polygon_rows(lane_connectors),
        offsets[INTERSECTION] + intersections,
        offsets[CARPARK_AREA] + carparks,
    ]
    ids = [
        index.roadblocks.ids[blocks],
        index.lane_ids[lanes],
        index.lane_ids[lane_connectors],
        index.intersections.ids[intersections],
        index.carparks.ids[carparks],
    ]
    kinds = np.array([ROADBLOCK, LANE, LANE_CONNECTOR, INTERSECTION, CARPARK_AREA], dtype=np.int8)
    all_rows = np.concatenate(rows)
    return DrivableMap(
        index.polygons.take(all_rows),
        np.concatenate(ids),
        np.repeat(kinds, [len(part) for part in rows]),
        all_rows,
    )


def _lanes(index: MapIndex, blocks: Rows) -> Rows:
    parts = [index.lanes_of(int(block)) for block in blocks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
