"""The nuPlan map of a town: which road, lane, connection and corner becomes a row of which layer.

Roads become roadblocks, their car lanes lanes; connections through a junction become lane connectors, and all
connectors between the same two roads one roadblock connector; junctions become intersections, parking strips
and lots car parks, sidewalks and corners walkways (NAVSIM_FORMAT, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiPolygon, Polygon

from beyonddrive.synth.curves import offset
from beyonddrive.synth.geopackage import LayerTable
from beyonddrive.synth.network import Connection, Lane, Network, Road

GEOMETRY_TYPES = {
    "lane_groups_polygons": "Polygon",
    "lanes_polygons": "Polygon",
    "lane_group_connectors": "Polygon",
    "lane_connectors": "LineString",
    "gen_lane_connectors_scaled_width_polygons": "Polygon",
    "baseline_paths": "LineString",
    "boundaries": "LineString",
    "intersections": "Polygon",
    "stop_polygons": "Polygon",
    "crosswalks": "Polygon",
    "walkways": "Polygon",
    "carpark_areas": "Polygon",
}
"""Layers of a generated map and their geometry types."""
BOUNDARY_DASHED, BOUNDARY_SOLID, BOUNDARY_KERB = 0, 2, 3
"""``boundary_type_fid``: between lanes of one direction, between directions, at the side of the road."""
STOP_SIGN, STOP_LIGHT, STOP_YIELD = 1, 2, 4
"""``stop_polygon_type_fid`` of the area before a junction, by what makes drivers stop there."""
STOP_DEPTH = 1.2
"""Length of a stop polygon along the lane [m]."""
RIM = 0.2
"""Width of the rim by which a junction overlaps the streets that end at it [m]."""
SLIVER = 1.0
"""Parts of a junction that are thinner and carry no connection are no road [m]."""


@dataclass
class TownMap:
    """Layers of one town in projected metres, and the ids that its lanes, connections and roads received."""

    layers: dict[str, LayerTable] = field(
        default_factory=lambda: {name: LayerTable(kind) for name, kind in GEOMETRY_TYPES.items()}
    )
    roadblock: dict[str, int] = field(default_factory=dict)
    """Road -> roadblock."""
    lane: dict[str, int] = field(default_factory=dict)
    """SUMO lane -> lane."""
    connector: dict[str, int] = field(default_factory=dict)
    """First internal SUMO lane of a connection -> lane connector."""
    block_connector: dict[tuple[str, str], int] = field(default_factory=dict)
    """Pair of roads -> roadblock connector."""
    next_id: int = 1

    def new_id(self) -> int:
        """Return an id that no row of the town has."""
        self.next_id += 1
        return self.next_id - 1


def _single(geometry: shapely.Geometry) -> Polygon:
    """Return one polygon without holes that covers the geometry."""
    if isinstance(geometry, MultiPolygon):
        joined = geometry.buffer(0.3, join_style="mitre").buffer(-0.3, join_style="mitre")
        geometry = joined if isinstance(joined, Polygon) and not joined.is_empty else geometry.convex_hull
    return Polygon(geometry.exterior)


def _road_area(shape: Polygon, corners: list[Polygon], links: list[Polygon]) -> shapely.Geometry:
    """Road of a junction: its shape without the corners for pedestrians and what no connection uses.

    Corners are drawn a little smaller than the junction, which leaves strips of road on the pavement at the
    end of every street, and pieces of road behind it. In a bend a corner may lie across the road; it cuts
    nothing.
    """
    used = shapely.union_all(links)
    beside = [corner for corner in corners if corner.intersection(used).area < 0.1 * corner.area]
    joined = shapely.union_all([shape.difference(shapely.union_all(beside)), used])
    thick = joined.buffer(-SLIVER / 2, join_style="mitre").buffer(SLIVER / 2, join_style="mitre")
    parts = [part for part in shapely.get_parts(thick) if part.intersection(used).area > 0.1 * part.area]
    return shapely.union_all(parts or [thick])


def strip(right: NDArray[np.float64], left: NDArray[np.float64]) -> Polygon:
    """Polygon between two lines that run the same way."""
    polygon = Polygon(np.concatenate([right, left[::-1]]))
    return polygon if polygon.is_valid else _single(polygon.buffer(0.0))


def lane_polygon(lane: Lane) -> Polygon:
    """Polygon of a lane."""
    return strip(offset(lane.center, -lane.width / 2), offset(lane.center, lane.width / 2))


def _add_roads(town: TownMap, network: Network) -> None:
    layers = town.layers
    for road in network.roads.values():
        block = town.roadblock[road.id] = town.new_id()
        wide = [lane for lane in road.lanes if lane.kind in ("car", "bicycle")]
        layers["lane_groups_polygons"].add(
            block,
            strip(
                offset(wide[0].center, -wide[0].width / 2),
                offset(wide[-1].center, wide[-1].width / 2),
            ),
        )
        cars = road.cars()
        fids: list[int] = []
        for i in range(len(cars) + 1):
            line = offset(cars[i].center, -cars[i].width / 2) if i < len(cars) else None
            if line is None:
                line = offset(cars[-1].center, cars[-1].width / 2)
            kind = BOUNDARY_KERB if i == 0 else BOUNDARY_SOLID if i == len(cars) else BOUNDARY_DASHED
            fids.append(town.new_id())
            layers["boundaries"].add(fids[-1], LineString(line), boundary_type_fid=kind)
        for i, lane in enumerate(cars):
            fid = town.lane[lane.id] = town.new_id()
            layers["lanes_polygons"].add(
                fid,
                lane_polygon(lane),
                lane_fid=fid,
                lane_group_fid=block,
                lane_index=len(cars) - 1 - i,
                speed_limit_mps=lane.speed,
                left_boundary_fid=fids[i + 1],
                right_boundary_fid=fids[i],
            )
            layers["baseline_paths"].add(
                town.new_id(), LineString(lane.center), lane_fid=fid, lane_connector_fid=None
            )
        for lane in road.lanes:
            if lane.kind == "sidewalk":
                layers["walkways"].add(town.new_id(), lane_polygon(lane))
            elif lane.kind == "parking":
                layers["carpark_areas"].add(town.new_id(), lane_polygon(lane))


def _connector_polygon(connection: Connection, widths: tuple[float, float]) -> Polygon:
    half = np.linspace(widths[0], widths[1], len(connection.center)) / 2
    try:
        polygon = Polygon(
            np.concatenate([offset(connection.center, -half), offset(connection.center, half)[::-1]])
        )
    except ValueError:
        polygon = Polygon()
    if polygon.is_valid and not polygon.is_empty:
        return polygon
    # A turn tighter than half its width folds the inner side over.
    return _single(LineString(connection.center).buffer(float(half.mean()), cap_style="flat"))


def _add_connections(
    town: TownMap, network: Network, junction_fid: dict[str, int]
) -> dict[str, list[Polygon]]:
    layers = town.layers
    width = {lane.id: lane.width for road in network.roads.values() for lane in road.lanes}
    by_junction: dict[str, list[Polygon]] = {}
    for pair in sorted(network.links):
        block = town.block_connector[pair] = town.new_id()
        polygons = []
        for connection in network.links[pair]:
            fid = town.connector[connection.internal[0]] = town.new_id()
            ends = (width[connection.from_lane], width[connection.to_lane])
            polygon = _connector_polygon(connection, ends)
            polygons.append(polygon)
            half = np.linspace(*ends, len(connection.center)) / 2
            sides = town.new_id(), town.new_id()
            for side, sign in zip(sides, (1.0, -1.0), strict=True):
                line = LineString(offset(connection.center, sign * half))
                layers["boundaries"].add(side, line, boundary_type_fid=BOUNDARY_DASHED)
            layers["lane_connectors"].add(
                fid,
                LineString(connection.center),
                exit_lane_fid=town.lane[connection.from_lane],
                entry_lane_fid=town.lane[connection.to_lane],
                exit_lane_group_fid=town.roadblock[connection.from_road],
                entry_lane_group_fid=town.roadblock[connection.to_road],
                lane_group_connector_fid=block,
                intersection_fid=junction_fid[connection.junction],
                turn_type_fid={"s": 0, "l": 1, "L": 1, "r": 2, "R": 2}.get(connection.direction, 3),
                speed_limit_mps=connection.speed,
                traffic_light_stop_line_fids="",
            )
            layers["gen_lane_connectors_scaled_width_polygons"].add(
                town.new_id(),
                polygon,
                lane_connector_fid=fid,
                left_boundary_fid=sides[0],
                right_boundary_fid=sides[1],
            )
            layers["baseline_paths"].add(
                town.new_id(), LineString(connection.center), lane_fid=None, lane_connector_fid=fid
            )
        first = network.links[pair][0]
        joined = _single(shapely.union_all(polygons))
        layers["lane_group_connectors"].add(
            block,
            joined,
            from_lane_group_fid=town.roadblock[pair[0]],
            to_lane_group_fid=town.roadblock[pair[1]],
            intersection_fid=junction_fid[first.junction],
        )
        by_junction.setdefault(first.junction, []).append(joined)
    return by_junction


def _stop_kind(connections: list[Connection], kind: str, main: bool) -> int | None:
    if any(connection.signal is not None for connection in connections):
        return STOP_LIGHT
    if kind == "allway_stop":
        return STOP_SIGN
    return STOP_YIELD if kind == "priority" and not main else None


def _stop_area(road: Road) -> Polygon:
    cars = road.cars()
    lines = [offset(cars[0].center, -cars[0].width / 2), offset(cars[-1].center, cars[-1].width / 2)]
    corners = []
    for line in lines:
        back = LineString(line[::-1]).interpolate(STOP_DEPTH)
        corners += [line[-1], (back.x, back.y)]
    return Polygon([corners[0], corners[2], corners[3], corners[1]])


def build_town_map(network: Network, lots: list[Polygon], first_id: int) -> TownMap:
    """Build the map layers of a town.

    Args:
        network: Street network; its coordinates become those of the layers.
        lots: Outlines of car parks away from the road.
        first_id: Ids are counted from here, over all layers, so they are unique in the whole map.
    """
    town = TownMap(next_id=first_id)
    junction_fid = {name: town.new_id() for name in network.junctions}
    _add_roads(town, network)
    by_junction = _add_connections(town, network, junction_fid)
    corners = [Polygon(outline).buffer(0.0) for outline in network.walking_areas.values()]
    for name, junction in network.junctions.items():
        arms = [road for road in network.roads.values() if road.end == name]
        links = by_junction.get(name, [])
        road_area = _road_area(Polygon(junction.shape).buffer(0.0), corners, links)
        # The rim closes the gap that rounding leaves between a junction and the lanes that end at it.
        area = _single(shapely.union_all([road_area, *links]).buffer(RIM, join_style="mitre"))
        town.layers["intersections"].add(
            junction_fid[name], area, intersection_type_fid=1 if junction.kind == "traffic_light" else 0
        )
        fastest = max((road.cars()[0].speed for road in arms), default=0.0)
        for road in arms:
            leaving = [c for c in network.connections if c.from_road == road.id]
            kind = _stop_kind(leaving, junction.kind, road.cars()[0].speed >= fastest)
            if kind is not None and len(arms) > 2:
                town.layers["stop_polygons"].add(town.new_id(), _stop_area(road), stop_polygon_type_fid=kind)
    for outline in network.crossings.values():
        polygon = Polygon(outline).buffer(0.0)
        if not polygon.is_empty:
            # Readers want plain polygons; a crossing drawn around a bend may fold over itself.
            town.layers["crosswalks"].add(town.new_id(), Polygon(_single(polygon).exterior))
    for outline in network.walking_areas.values():
        polygon = Polygon(outline).buffer(0.0)
        if not polygon.is_empty:
            town.layers["walkways"].add(town.new_id(), _single(polygon))
    for lot in lots:
        town.layers["carpark_areas"].add(town.new_id(), lot)
    return town
