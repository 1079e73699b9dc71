"""Writes nuPlan map files (GeoPackage), the same bytes for the same content."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.raw import write as write_layer
from pyproj import Transformer

STAMP = "2021-01-01T00:00:00.000Z"
"""Date of every generated map: a file that told the time could not be made twice."""


@dataclass
class LayerTable:
    """Rows of one layer: ids, geometries in projected metres and further columns."""

    geometry_type: str
    ids: list[int] = field(default_factory=list)
    geometries: list[shapely.Geometry] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, fid: int, geometry: shapely.Geometry, **values: Any) -> None:
        """Append a row; every row names the same columns."""
        self.ids.append(fid)
        self.geometries.append(geometry)
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)


def _column(values: list[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a column and which of its entries are null."""
    null = np.array([value is None for value in values], dtype=bool)
    given = [value for value in values if value is not None]
    if all(isinstance(value, int) for value in given):
        return np.array([0 if value is None else value for value in values], dtype=np.int64), null
    if all(isinstance(value, int | float) for value in given):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64), null
    return np.array(values, dtype=object), null


def write_map(path: Path, layers: Mapping[str, LayerTable], epsg: int) -> None:
    """Write ``map.gpkg`` with its layers in EPSG:4326, as real maps are stored (NAVSIM_FORMAT, section 3).

    Args:
        path: File to write; replaced at the end, so it is never half-written.
        layers: Layers by name, geometries in the projected system ``epsg`` [m].
        epsg: Projected system that the layer ``meta`` names and readers project to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.gpkg")
    partial.unlink(missing_ok=True)
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": STAMP})
    try:
        for name, table in layers.items():
            order = np.argsort(np.array(table.ids, dtype=np.int64))
            geometries = np.array(table.geometries, dtype=object)[order]
            geometries = shapely.transform(
                geometries, lambda xy: np.stack(to_degrees.transform(*xy.T), axis=-1)
            )
            columns = {"fid": _column(list(table.ids))}
            columns |= {key: _column(values) for key, values in table.columns.items()}
            write_layer(
                partial,
                shapely.to_wkb(geometries),
                [values[order] for values, _ in columns.values()],
                list(columns),
                field_mask=[null[order] if null.any() else None for _, null in columns.values()],
                layer=name,
                driver="GPKG",
                geometry_type=table.geometry_type,
                crs="EPSG:4326",
                append=partial.exists(),
                layer_options={"FID": "fid", "GEOMETRY_NAME": "geom", "SPATIAL_INDEX": "NO"},
            )
        _write_meta(partial, {"projectedCoordSystem": f"EPSG:{epsg}", "map_version": "generated"})
        partial.replace(path)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        partial.unlink(missing_ok=True)


def _write_meta(path: Path, entries: Mapping[str, str]) -> None:
    """Add the table ``meta`` without geometry: one row per key."""
    write_layer(
        path,
        None,
        [np.array(list(entries), dtype=object), np.array(list(entries.values()), dtype=object)],
        ["key", "value"],
        layer="meta",
        driver="GPKG",
        geometry_type=None,
        append=True,
        layer_options={"FID": "fid"},
    )
    connection = sqlite3.connect(path)
    try:
        connection.execute("VACUUM")
    finally:
        connection.close()
