"""nuPlan maps: layers of a GeoPackage as arrays, in the metres of the map's own projection."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError

if TYPE_CHECKING:
    import pyproj

# pyogrio and pyproj, which bring GDAL and PROJ (130 MB), are imported where a file is opened: trainings on
# caches open none.
VERSIONS_FILE = "nuplan-maps-v1.0.json"
"""File in the maps root that names the version of each location."""
NO_ID = int(np.iinfo(np.int64).min)
"""Stands for null in a column of ids; no object has it."""


class MapError(BeyondDriveError, ValueError):
    """A map is missing, damaged or incomplete; the message names file, layer and remedy."""


@dataclass(frozen=True, eq=False)
class MapLayer:
    """One layer, rows in ascending fid (NAVSIM_FORMAT, section 3).

    Attributes:
        name: Name of the layer.
        ids: (N,) int64 fids, ascending: the ids of the objects.
        geometries: (N,) shapely geometries in the metres of the map's projection.
        columns: Everything else by name. Columns of ids (``*_fid``) are int64 with :data:`NO_ID` for null,
            other numbers are float64 with NaN for null if there is any, text is object with None for null.
        source: File and layer, for messages.
    """

    name: str
    ids: NDArray[np.int64]
    geometries: NDArray[np.object_]
    columns: dict[str, NDArray[Any]]
    source: str = ""
    _rows: dict[int, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Spatial index over ``geometries``, built at first use; shared by all who hold the layer."""
        return shapely.STRtree(self.geometries)

    def row_of(self, id: int) -> int:
        """Row of an object.

        Raises:
            MapError: If the layer has no such object.
        """
        try:
            return self._rows[int(id)]
        except KeyError:
            raise MapError(
                f"{self.source}: there is no object {id}; log and map do not belong together"
            ) from None

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    def column(self, name: str) -> NDArray[Any]:
        """A column by name.

        Raises:
            MapError: If the layer has no such column.
        """
        try:
            return self.columns[name]
        except KeyError:
            raise MapError(
                f"{self.source}: there is no column {name!r} (it has {sorted(self.columns)}); "
                f"get the map again"
            ) from None


class NuPlanMap:
    """Vector layers of one location, each read at first use.

    Use :func:`open_map`. Pickling one keeps only where it is, so it is cheap to send to another process.

    Attributes:
        location: For example ``us-ma-boston``.
        path: The GeoPackage.
    """

    def __init__(self, location: str, path: Path) -> None:
        self.location = location
        self.path = Path(path)
        self._layers: dict[str, MapLayer] = {}

    def __repr__(self) -> str:
        return f"NuPlanMap({self.location!r}, {str(self.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_file, (self.location, self.path)

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        """Names of all layers of the file."""
        import pyogrio
        from pyogrio.errors import DataSourceError

        try:
            return tuple(str(name) for name in pyogrio.list_layers(self.path)[:, 0])
        except DataSourceError as error:
            raise MapError(f"{self.path}: not a GeoPackage ({error}); get the map again") from error

    @cached_property
    def crs(self) -> pyproj.CRS:
        """The projection that geometries are given in: ``projectedCoordSystem`` of the layer ``meta``."""
        import pyproj

        columns = self._read("meta", geometry=False)[3]
        try:
            values = dict(zip(columns["key"], columns["value"], strict=True))
            name = values["projectedCoordSystem"]
        except KeyError as error:
            raise MapError(f"{self.path}: layer meta: no {error} in it; get the map again") from None
        try:
            crs = pyproj.CRS.from_user_input(name)
        except pyproj.exceptions.CRSError as error:
            raise MapError(
                f"{self.path}: layer meta: projectedCoordSystem {name!r} is unknown ({error})"
            ) from None
        if not crs.is_projected:
            raise MapError(f"{self.path}: layer meta: projectedCoordSystem {name!r} is not in metres")
        return crs

    def layer(self, name: str) -> MapLayer:
        """A layer by name, projected to :attr:`crs`; read at the first call.

        Raises:
            MapError: If the file has no such layer, or a row of it cannot be used.
        """
        if name not in self._layers:
            self._layers[name] = self._load(name)
        return self._layers[name]

    def _load(self, name: str) -> MapLayer:
        source = f"{self.path}: layer {name}"
        meta, fids, blobs, raw = self._read(name)
        order = np.argsort(fids, kind="stable")
        ids = fids[order].astype(np.int64)
        try:
            geometries = shapely.from_wkb(blobs[order])
        except shapely.errors.GEOSException as error:
            raise MapError(f"{source}: a geometry is damaged ({error}); get the map again") from error
        empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
        if empty.any():
            raise MapError(f"{source}: object {ids[empty][0]} has no geometry; get the map again")
        columns = {key: _clean_column(source, key, values[order]) for key, values in raw.items()}
        rows = {int(id): row for row, id in enumerate(ids)}
        return MapLayer(name, ids, self._project(source, meta["crs"], geometries), columns, source, rows)

    def _project(self, source: str, crs: Any, geometries: NDArray[np.object_]) -> NDArray[np.object_]:
        import pyproj

        if crs is None:
            raise MapError(f"{source}: its coordinate system is not given; get the map again")
        layer_crs = pyproj.CRS.from_user_input(crs)
        if layer_crs == self.crs or not len(geometries):
            return geometries
        # always_xy: the file stores x = longitude, y = latitude, whatever order EPSG:4326 declares.
        transformer = pyproj.Transformer.from_crs(layer_crs, self.crs, always_xy=True)
        x, y = transformer.transform(*shapely.get_coordinates(geometries).T)
        xy = np.column_stack([x, y])
        if not np.isfinite(xy).all():
            raise MapError(f"{source}: coordinates outside of {self.crs.to_string()}; get the map again")
        return shapely.set_coordinates(shapely.force_2d(geometries), xy)

    def _read(
        self, name: str, geometry: bool = True
    ) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any], dict[str, NDArray[Any]]]:
        """Meta data, fids, WKB geometries and columns of a layer."""
        import pyogrio
        from pyogrio.errors import DataLayerError, DataSourceError

        if name not in self.layer_names:
            raise MapError(
                f"{self.path}: there is no layer {name!r} (it has {sorted(self.layer_names)}); "
                f"a map may be a stub: get the complete map of {self.location}"
            )
        try:
            meta, fids, blobs, values = pyogrio.raw.read(
                self.path, layer=name, return_fids=True, read_geometry=geometry, force_2d=True
            )
        except (DataSourceError, DataLayerError) as error:
            raise MapError(
                f"{self.path}: layer {name}: cannot be read ({error}); get the map again"
            ) from error
        if geometry and blobs is None:
            raise MapError(f"{self.path}: layer {name}: has no geometries; get the map again")
        return meta, fids, blobs, dict(zip((str(key) for key in meta["fields"]), values, strict=True))


def open_map(maps_root: Path, location: str) -> NuPlanMap:
    """The map of a location, in the version that the maps root names; opened once per process and file.

    Args:
        maps_root: Folder with ``nuplan-maps-v1.0.json`` and ``<location>/<version>/map.gpkg``.
        location: For example ``us-nv-las-vegas-strip``.

    Raises:
        MapError: If the version file, the location or the map is missing; the message names it.
    """
    versions_path = Path(maps_root) / VERSIONS_FILE
    try:
        versions = json.loads(versions_path.read_text())
        version = versions[location]["version"]
    except FileNotFoundError:
        raise MapError(
            f"{versions_path}: there is no such file; give the folder that holds the maps"
        ) from None
    except (ValueError, OSError) as error:
        raise MapError(f"{versions_path}: cannot be read ({error}); get the maps again") from error
    except (KeyError, TypeError):
        known = sorted(versions) if isinstance(versions, dict) else "nothing"
        raise MapError(f"{versions_path}: no version of {location!r} in it (it has {known})") from None
    return _open_file(location, Path(maps_root) / location / str(version) / "map.gpkg")


def _open_file(location: str, path: Path) -> NuPlanMap:
    try:
        stat = path.stat()
    except OSError:
        raise MapError(f"{path}: there is no such map; get the map of {location} in this version") from None
    return _open_once(location, path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _open_once(location: str, path: Path, mtime_ns: int, size: int) -> NuPlanMap:
    """Time and size are part of the key, so that a map that was written anew is read anew."""
    return NuPlanMap(location, path)


def _clean_column(source: str, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Make nulls explicit; columns of ids become int64 whatever the file's type for them is."""
    if not name.endswith("_fid"):
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    null = np.array([value is None or value != value or value == "" for value in values], dtype=bool)
    ids = np.full(len(values), NO_ID, dtype=np.int64)
    try:
        numbers = np.array([float(value) for value in values[~null]], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapError(
            f"{source}: column {name}: an id is not a number ({error}); get the map again"
        ) from None
    if (numbers != np.trunc(numbers)).any():
        raise MapError(f"{source}: column {name}: an id is not a whole number; get the map again")
    ids[~null] = numbers.astype(np.int64)
    return ids
