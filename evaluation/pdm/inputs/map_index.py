"""A nuPlan map as the metric cache walks it: blocks, lanes and their graph, as flat arrays.

Lanes and lane connectors are numbered together, connectors after lanes; so are roadblocks and roadblock
connectors. Such a number is called a lane or a block below, whichever layer it is of.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import MapError, MapLayer, NuPlanMap
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import (
    CARPARK_AREA,
    INTERSECTION,
    LANE,
    LANE_CONNECTOR,
    ROADBLOCK,
)
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonError, PolygonRings, concatenate

Rows = Ints
_NONE: Rows = np.zeros(0, dtype=np.int64)
NO_ROW, SEVERAL_ROWS = -1, -2
_LINE = shapely.GeometryType.LINESTRING
_REMEDY = "log and map do not belong together, or the map is damaged: get it again"


class MapIndex:
    """Layers of a map, indexed for the metric cache; built once per map (NAVSIM_FORMAT, section 3).

    Raises:
        MapError: If a layer or column is missing, or an object cannot be used.
    """

    def __init__(self, nuplan_map: NuPlanMap) -> None:
        layer = nuplan_map.layer
        self.path = nuplan_map.path
        self.roadblocks, self.block_connectors = layer("lane_groups_polygons"), layer("lane_group_connectors")
        self.lanes, self.connectors = layer("lanes_polygons"), layer("lane_connectors")
        self.intersections, self.carparks = layer("intersections"), layer("carpark_areas")
        self._baselines = layer("baseline_paths")
        self._connector_shapes = layer("gen_lane_connectors_scaled_width_polygons")
        self.num_roadblocks, self.num_lanes = len(self.roadblocks), len(self.lanes)
        self.block_ids = np.concatenate([self.roadblocks.ids, self.block_connectors.ids])
        self.lane_ids = np.concatenate([self.lanes.ids, self.connectors.ids])

    # ------------------------------------------------------------------ blocks
    def block(self, id: int) -> int | None:
        """The block with an id, roadblocks first; None if there is none."""
        if id in self.roadblocks:
            return self.roadblocks.row_of(id)
        if id in self.block_connectors:
            return self.num_roadblocks + self.block_connectors.row_of(id)
        return None

    def is_block_connector(self, block: int) -> bool:
        """Whether a block is a roadblock connector."""
        return block >= self.num_roadblocks

    def block_polygon(self, block: int) -> shapely.Geometry:
        """Polygon of a block."""
        if block < self.num_roadblocks:
            return self.roadblocks.geometries[block]
        return self.block_connectors.geometries[block - self.num_roadblocks]

    def block_successors(self, block: int) -> list[int]:
        """Blocks that follow a block."""
        return self._block_edges(block, "from_lane_group_fid", "to_lane_group_fid")

    def block_predecessors(self, block: int) -> list[int]:
        """Blocks that lead into a block."""
        return self._block_edges(block, "to_lane_group_fid", "from_lane_group_fid")

    def _block_edges(self, block: int, own: str, other: str) -> list[int]:
        if block < self.num_roadblocks:
            rows = self._block_groups[own].get(int(self.roadblocks.ids[block]), _NONE)
            return [self.num_roadblocks + int(row) for row in rows]
        id = int(self.block_connectors.column(other)[block - self.num_roadblocks])
        return [self.roadblocks.row_of(id)] if id in self.roadblocks else []

    @cached_property
    def _block_groups(self) -> dict[str, dict[int, Rows]]:
        return {
            key: _group(self.block_connectors.column(key))
            for key in ("from_lane_group_fid", "to_lane_group_fid")
        }

    # ------------------------------------------------------------------ lanes
    def lanes_of(self, block: int) -> Rows:
        """Lanes of a roadblock, or connectors of a roadblock connector, in the order of their ids."""
        if block < self.num_roadblocks:
            return self._lanes_by_group.get(int(self.block_ids[block]), _NONE)
        return self.num_lanes + self._connectors_by_group.get(int(self.block_ids[block]), _NONE)

    def block_id_of(self, lane: int) -> int:
        """Id of the block that a lane is of."""
        if lane < self.num_lanes:
            return int(self.lanes.column("lane_group_fid")[lane])
        return int(self.connectors.column("lane_group_connector_fid")[lane - self.num_lanes])

    def lane_successors(self, lane: int) -> list[int]:
        """Lanes that follow a lane."""
        if lane < self.num_lanes:
            # Named by the side of the junction: the lane a connector leaves is where one exits.
            rows = self._connectors_by_exit.get(int(self.lane_ids[lane]), _NONE)
            return [self.num_lanes + int(row) for row in rows]
        id = int(self.connectors.column("entry_lane_fid")[lane - self.num_lanes])
        return [self.lanes.row_of(id)] if id in self.lanes else []

    def speed_limit(self, lane: int) -> float:
        """Speed limit [m/s], NaN if there is none."""
        layer, row = (self.lanes, lane) if lane < self.num_lanes else (self.connectors, lane - self.num_lanes)
        value = layer.column("speed_limit_mps")[row]
        return np.nan if value is None else float(value)

    def lane_polygon(self, lane: int) -> shapely.Geometry:
        """Polygon of a lane or connector."""
        if lane < self.num_lanes:
            return self.lanes.geometries[lane]
        return self._connector_shapes.geometries[self._connector_shape_rows[lane - self.num_lanes]]

    @cached_property
    def _lanes_by_group(self) -> dict[int, Rows]:
        return _group(self.lanes.column("lane_group_fid"))

    @cached_property
    def _connectors_by_group(self) -> dict[int, Rows]:
        return _group(self.connectors.column("lane_group_connector_fid"))

    @cached_property
    def _connectors_by_exit(self) -> dict[int, Rows]:
        return _group(self.connectors.column("exit_lane_fid"))

    @cached_property
    def _connector_shape_rows(self) -> Rows:
        return _match(self.connectors, self._connector_shapes, "lane_connector_fid")

    # ------------------------------------------------------------------ baselines
    @cached_property
    def _baseline_rows(self) -> Rows:
        return np.concatenate(
            [
                _match(self.lanes, self._baselines, "lane_fid"),
                _match(self.connectors, self._baselines, "lane_connector_fid"),
            ]
        )

    @cached_property
    def _baseline_vertices(self) -> tuple[Floats, Rows, Floats]:
        """All vertices x, y, heading; the first of each baseline; lengths, NaN for what is no baseline."""
        geometries = self._baselines.geometries
        xy, owner = shapely.get_coordinates(geometries, return_index=True)
        starts = np.searchsorted(owner, np.arange(len(geometries) + 1)).astype(np.int64)
        heading = np.zeros(len(xy))
        if len(xy):
            step = np.diff(xy, axis=0)
            heading[:-1] = np.arctan2(step[:, 1], step[:, 0])
        last = starts[1:][np.diff(starts) >= 2] - 1
        heading[last] = heading[last - 1]
        length = np.asarray(shapely.length(geometries), dtype=np.float64)
        is_line = (shapely.get_type_id(geometries) == _LINE) & (length > 0.0) & np.isfinite(length)
        return np.column_stack([xy, heading]), starts, np.where(is_line, length, np.nan)

    def baseline(self, lane: int) -> Floats:
        """Vertices (V, 3) x, y, heading of a lane's centre line; a view.

        The heading of a vertex is the direction to the next one; the last repeats the one before it.

        Raises:
            MapError: If the lane has no centre line, several, or one without length (NAVSIM_FORMAT, section
                3).
        """
        vertices, starts, _ = self._baseline_vertices
        row = self._baseline_row(lane)
        return vertices[starts[row] : starts[row + 1]]

    def baseline_length(self, lane: int) -> float:
        """Length of a lane's centre line [m]."""
        return float(self._baseline_vertices[2][self._baseline_row(lane)])

    def _baseline_row(self, lane: int) -> int:
        """Row of a lane's baseline; one that cannot be used costs the scenes that need it, not the map."""
        row = int(self._baseline_rows[lane])
        layer = self._baselines
        if row < 0:
            kind = "lane" if lane < self.num_lanes else "lane connector"
            count = "none" if row == NO_ROW else "more than one"
            raise MapError(f"{layer.source}: {count} for {kind} {self.lane_ids[lane]}; {_REMEDY}")
        if np.isnan(self._baseline_vertices[2][row]):
            raise MapError(f"{layer.source}: object {layer.ids[row]} is not a line of some length; {_REMEDY}")
        return row

    # ------------------------------------------------------------------ polygons
    @cached_property
    def _polygon_layers(self) -> tuple[tuple[int, MapLayer], ...]:
        return (
            (ROADBLOCK, self.roadblocks),
            (LANE, self.lanes),
            (LANE_CONNECTOR, self._connector_shapes),
            (INTERSECTION, self.intersections),
            (CARPARK_AREA, self.carparks),
        )

    @cached_property
    def polygons(self) -> PolygonRings:
        """Polygons of roadblocks, lanes, lane connectors, intersections and car parks, in that order."""
        parts = []
        for _, layer in self._polygon_layers:
            try:
                parts.append(PolygonRings.from_geometries(layer.geometries))
            except PolygonError as error:
                id = layer.ids[error.row]
                raise MapError(f"{layer.source}: object {id}: {error}; get the map again") from None
        return concatenate(parts)

    @cached_property
    def polygon_offsets(self) -> dict[int, int]:
        """Per class, the row of its first polygon in :attr:`polygons`."""
        counts = [len(layer) for _, layer in self._polygon_layers]
        first = np.concatenate([[0], np.cumsum(counts)])
        return {kind: int(row) for (kind, _), row in zip(self._polygon_layers, first, strict=False)}

    @cached_property
    def polygon_geometries(self) -> NDArray[np.object_]:
        """The shapely geometries of :attr:`polygons`."""
        return np.concatenate([layer.geometries for _, layer in self._polygon_layers])

    def has_lane_polygon(self, lanes: Rows) -> Bools:
        """Whether lanes and connectors have one polygon each: (n,) for numbers (n,)."""
        return (lanes < self.num_lanes) | (self._shape_rows_of(lanes) >= 0)

    def lane_polygon_rows(self, lanes: Rows) -> Rows:
        """Rows of lanes and connectors in :attr:`polygons`.

        Raises:
            MapError: If a connector has no polygon, or several.
        """
        is_lane, shape_rows = lanes < self.num_lanes, self._shape_rows_of(lanes)
        missing = ~self.has_lane_polygon(lanes)
        if missing.any():
            id = self.lane_ids[lanes[missing][0]]
            count = "none" if shape_rows[missing][0] == NO_ROW else "more than one"
            raise MapError(f"{self._connector_shapes.source}: {count} for lane connector {id}; {_REMEDY}")
        return np.where(
            is_lane,
            self.polygon_offsets[LANE] + lanes,
            self.polygon_offsets[LANE_CONNECTOR] + shape_rows,
        )

    def _shape_rows_of(self, lanes: Rows) -> Rows:
        """Rows of connectors among the polygons of connectors; those of lanes are arbitrary."""
        if not len(self._connector_shape_rows):
            return np.zeros(len(lanes), dtype=np.int64)
        rows: Rows = self._connector_shape_rows[np.maximum(lanes - self.num_lanes, 0)]
        return rows


_INDICES: WeakKeyDictionary[NuPlanMap, MapIndex] = WeakKeyDictionary()


def map_index(nuplan_map: NuPlanMap) -> MapIndex:
    """The index of a map, built at the first call and kept as long as the map."""
    index = _INDICES.get(nuplan_map)
    if index is None:
        index = _INDICES[nuplan_map] = MapIndex(nuplan_map)
    return index


def _group(keys: NDArray[Any]) -> dict[int, Rows]:
    """Rows by key, in ascending order."""
    if len(keys) == 0:
        return {}
    order = np.argsort(keys, kind="stable")
    values, first = np.unique(keys[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order.astype(np.int64), first[1:]), strict=True))


def _match(layer: MapLayer, other: MapLayer, column: str) -> Rows:
    """Per object of ``layer``, the row of ``other`` whose ``column`` names it, or that none or several do."""
    rows = np.full(len(layer), NO_ROW, dtype=np.int64)
    keys = other.column(column)
    if len(layer) == 0 or len(keys) == 0:
        return rows
    found = np.minimum(np.searchsorted(layer.ids, keys), len(layer) - 1)
    hit = layer.ids[found] == keys
    rows[found[hit]] = np.flatnonzero(hit)
    rows[np.bincount(found[hit], minlength=len(layer)) > 1] = SEVERAL_ROWS
    return rows
