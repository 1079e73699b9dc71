"""Polygons as flat arrays: rings of any polygon or multi-polygon, and the edges that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.structures.errors import BeyondDriveError


class PolygonError(BeyondDriveError, ValueError):
    """A geometry is not a polygon, is empty, or has coordinates that are not finite.

    Attributes:
        row: Which of the geometries.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row} {reason}")
        self.row = row


@dataclass(frozen=True, eq=False)
class PolygonRings:
    """Rings of many polygons, one after the other; holes and further parts are rings like the outer one.

    A point is inside a polygon if a ray from it crosses an odd number of its edges, of whatever ring: holes
    are outside, every part of a multi-polygon counts.

    Attributes:
        vertices: (V, 2) float64, every ring closed (its last vertex repeats the first).
        ring_starts: (R + 1,) int64 first vertex of each ring, and V.
        polygon_starts: (P + 1,) int64 first ring of each polygon, and R.
    """

    vertices: Floats
    ring_starts: Ints
    polygon_starts: Ints

    def __len__(self) -> int:
        return len(self.polygon_starts) - 1

    @classmethod
    def from_geometries(cls, geometries: Sequence[shapely.Geometry] | NDArray[np.object_]) -> PolygonRings:
        """Flatten polygons and multi-polygons.

        Raises:
            PolygonError: If a geometry is of another kind, empty, or has a coordinate that is not finite; the
                message gives its row.

        >>> rings = PolygonRings.from_geometries([shapely.box(0, 0, 2, 1)])
        >>> rings.vertices.shape, rings.ring_starts.tolist(), rings.polygon_starts.tolist()
        ((5, 2), [0, 5], [0, 1])
        """
        geometries = np.asarray(geometries, dtype=object).reshape(-1)
        kinds = shapely.get_type_id(geometries)
        bad = ~np.isin(kinds, (3, 6)) | shapely.is_empty(geometries)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise PolygonError(row, f"is {_describe(geometries[row])}, not a polygon with an area")
        parts, part_owner = shapely.get_parts(geometries, return_index=True)
        rings, ring_part = shapely.get_rings(parts, return_index=True)
        vertices, vertex_ring = shapely.get_coordinates(rings, return_index=True)
        finite = np.isfinite(vertices).all(axis=1)
        if not finite.all():
            row = int(part_owner[ring_part[vertex_ring[~finite][0]]])
            raise PolygonError(row, "has a coordinate that is not finite")
        return cls(
            np.ascontiguousarray(vertices),
            _starts(vertex_ring, len(rings)),
            _starts(part_owner[ring_part], len(geometries)),
        )

    def take(self, rows: Ints) -> PolygonRings:
        """The polygons at ``rows``, in that order."""
        ring_rows, polygon_starts = gather_ranges(self.polygon_starts, rows)
        vertex_rows, ring_starts = gather_ranges(self.ring_starts, ring_rows)
        return PolygonRings(self.vertices[vertex_rows], ring_starts, polygon_starts)

    def edges(self) -> tuple[Floats, Ints]:
        """Edges (E, 4) x0, y0, x1, y1 and, per polygon, the first of them: (P + 1,)."""
        # One vertex per ring starts no edge.
        starts = self.ring_starts[self.polygon_starts] - self.polygon_starts
        return _edges(self.vertices, self.ring_starts), starts

    def geometries(self) -> NDArray[np.object_]:
        """Shapely polygons, rebuilt: for pictures and for tests."""
        out = np.empty(len(self), dtype=object)
        for row in range(len(self)):
            rings = [
                self.vertices[self.ring_starts[r] : self.ring_starts[r + 1]]
                for r in range(self.polygon_starts[row], self.polygon_starts[row + 1])
            ]
            shape = shapely.Polygon(rings[0])
            for ring in rings[1:]:
                shape = shapely.symmetric_difference(shape, shapely.Polygon(ring))
            out[row] = shape
        return out


@kernel
def _edges(vertices: Floats, ring_starts: Ints) -> Floats:
    out = np.empty((len(vertices) - len(ring_starts) + 1, 4))
    e = 0
    for r in range(len(ring_starts) - 1):
        for v in range(ring_starts[r], ring_starts[r + 1] - 1):
            out[e, 0], out[e, 1] = vertices[v, 0], vertices[v, 1]
            out[e, 2], out[e, 3] = vertices[v + 1, 0], vertices[v + 1, 1]
            e += 1
    return out


def concatenate(parts: Sequence[PolygonRings]) -> PolygonRings:
    """The polygons of several sets, one set after the other."""
    vertices = np.concatenate([part.vertices for part in parts])
    rings = _join([part.ring_starts for part in parts])
    return PolygonRings(vertices, rings, _join([part.polygon_starts for part in parts]))


def gather_ranges(starts: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Items of ranges ``starts[row] .. starts[row + 1]``, one range after the other, and their new starts.

    >>> gather_ranges(np.array([0, 2, 3, 6]), np.array([2, 0]))[0].tolist()
    [3, 4, 5, 0, 1]
    """
    counts = starts[rows + 1] - starts[rows]
    new_starts = np.concatenate([[0], np.cumsum(counts)])
    items = np.arange(new_starts[-1]) + np.repeat(starts[rows] - new_starts[:-1], counts)
    return items, new_starts


def _starts(owner: NDArray[np.intp], count: int) -> Ints:
    return np.searchsorted(owner, np.arange(count + 1)).astype(np.int64)


def _join(starts: Sequence[Ints]) -> Ints:
    offsets = np.concatenate([[0], np.cumsum([part[-1] for part in starts])])
    shifted = [part[:-1] + offset for part, offset in zip(starts, offsets[:-1], strict=True)]
    return np.concatenate([*shifted, offsets[-1:]])


def _describe(geometry: shapely.Geometry | None) -> str:
    if geometry is None:
        return "missing"
    return f"{'an empty' if geometry.is_empty else 'a'} {geometry.geom_type}"
