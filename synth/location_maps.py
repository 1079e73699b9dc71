"""The maps of the four locations, put together from towns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import shapely
from shapely.geometry import LineString

from beyonddrive.engine.files import write_atomically
from beyonddrive.synth.geopackage import LayerTable, write_map
from beyonddrive.synth.town_map import GEOMETRY_TYPES, TownMap

ORIGINS: dict[str, tuple[int, float, float]] = {
    "us-nv-las-vegas-strip": (32611, 664_000.0, 3_997_000.0),
    "us-ma-boston": (32619, 329_000.0, 4_689_000.0),
    "us-pa-pittsburgh-hazelwood": (32617, 587_000.0, 4_473_000.0),
    "sg-one-north": (32648, 365_000.0, 143_000.0),
}
"""EPSG code of each location's projected system and where its first town lies [m]."""
TOWN_DISTANCE = 2_000.0
"""Distance between towns of one location [m]."""
MAP_VERSIONS = {
    "us-nv-las-vegas-strip": "9.15.1915",
    "us-ma-boston": "9.12.1817",
    "us-pa-pittsburgh-hazelwood": "9.17.1937",
    "sg-one-north": "9.17.1964",
}
"""Version folder of each location's map, as users of the real data have it."""

PlacedTown = tuple[tuple[float, float], TownMap]
"""A town's map, and where its origin lies [m]."""


def location_layers(towns: Sequence[PlacedTown]) -> dict[str, LayerTable]:
    """Layers of a location: those of its towns, each moved to its place."""
    layers = {name: LayerTable(kind) for name, kind in GEOMETRY_TYPES.items()}
    for offset, town in towns:
        for name, table in town.layers.items():
            layer = layers[name]
            layer.ids += table.ids
            layer.geometries += list(shapely.transform(table.geometries, lambda xy, o=offset: xy + o))
            for key, values in table.columns.items():
                layer.columns.setdefault(key, []).extend(values)
    return layers


def _stub_layers(location: str) -> dict[str, LayerTable]:
    """What a location without towns gets: the official loader opens all four maps and touches this layer."""
    _, x, y = ORIGINS[location]
    layer = LayerTable("LineString")
    layer.add(
        1,
        LineString([(x, y), (x + 1.0, y)]),
        exit_lane_fid=-1,
        entry_lane_fid=-1,
        lane_group_connector_fid=-1,
        intersection_fid=-1,
        speed_limit_mps=10.0,
    )
    return {"lane_connectors": layer}


def write_location_map(maps_root: Path, location: str, towns: Sequence[PlacedTown]) -> None:
    """Write the map of a location; without towns it can be opened and is empty.

    Args:
        maps_root: Folder ``maps`` of the data root.
        location: The location.
        towns: Its towns.
    """
    layers = location_layers(towns) if towns else _stub_layers(location)
    path = maps_root / location / MAP_VERSIONS[location] / "map.gpkg"
    write_map(path, layers, ORIGINS[location][0])


def write_versions(maps_root: Path) -> None:
    """Write the file that names the version of every location's map."""
    versions = {location: {"version": version} for location, version in MAP_VERSIONS.items()}
    write_atomically(maps_root / "nuplan-maps-v1.0.json", json.dumps(versions, indent=1).encode())
