"""Polygon soups: flat arrays of coloured polygons that one compiled loop can paint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLAT = 0
"""On the ground: seen from both sides, neither shaded nor hazed here (the ground pass does it)."""
SOLID = 1
"""A face of a body: culled from behind, shaded by the sun, hazed."""
GLOW = 2
"""A lamp on a face: culled from behind, not shaded, hardly hazed."""
SHEET = 3
"""A thin thing: seen and shaded from both sides, hazed."""


@dataclass(frozen=True)
class PolygonSoup:
    """N points of C contours of P polygons of S solids, in metres.

    Polygon p has the contours ``polygons[p]:polygons[p + 1]``; contour c has the points
    ``contours[c]:contours[c + 1]``; holes run against their outer contour. A polygon with one point and a
    positive ``radius`` is a disc that faces the camera. Solid s has the polygons ``solids[s]:solids[s + 1]``,
    painted in this order, and stands on the convex counter-clockwise quad ``feet[s]``.
    """

    points: NDArray[np.float64]
    contours: NDArray[np.int64]
    polygons: NDArray[np.int64]
    colors: NDArray[np.float64]
    kinds: NDArray[np.int64]
    alphas: NDArray[np.float64]
    radii: NDArray[np.float64]
    solids: NDArray[np.int64]
    feet: NDArray[np.float64]

    def moved(self, x: float, y: float, z: float, heading: float) -> PolygonSoup:
        """The soup turned by ``heading`` [rad] about z and then shifted [m]."""
        cos, sin = np.cos(heading), np.sin(heading)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        return PolygonSoup(
            self.points @ turn + (x, y, z),
            self.contours,
            self.polygons,
            self.colors,
            self.kinds,
            self.alphas,
            self.radii,
            self.solids,
            self.feet @ turn[:2, :2] + (x, y),
        )

    def take_solids(self, chosen: NDArray[np.int64]) -> PolygonSoup:
        """Only the solids with the indices ``chosen``, in that order."""
        polygon_of, solids = _ragged(self.solids, chosen)
        contour_of, polygons = _ragged(self.polygons, polygon_of)
        point_of, contours = _ragged(self.contours, contour_of)
        return PolygonSoup(
            self.points[point_of],
            contours,
            polygons,
            self.colors[polygon_of],
            self.kinds[polygon_of],
            self.alphas[polygon_of],
            self.radii[polygon_of],
            solids,
            self.feet[chosen],
        )


def _ragged(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Members of the chosen rows of a ragged array, and the offsets of the chosen rows."""
    starts = offsets[rows]
    counts = offsets[rows + 1] - starts
    taken = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=taken[1:])
    members = np.arange(taken[-1], dtype=np.int64) + np.repeat(starts - taken[:-1], counts)
    return members, taken


def merge(soups: Sequence[PolygonSoup]) -> PolygonSoup:
    """One soup of several, in their order.

    >>> one = SoupBuilder()
    >>> one.polygon([(0, 0, 0), (1, 0, 0), (1, 1, 0)], (9, 9, 9))
    >>> one.close_solid()
    >>> len(merge([one.build(), one.build()]).points)
    6
    """
    if not soups:
        return SoupBuilder().build()

    def joined(name: str, counts: list[int]) -> NDArray[np.int64]:
        base = np.cumsum([0, *counts])
        parts = [getattr(soup, name)[1:] + base[i] for i, soup in enumerate(soups)]
        return np.concatenate([np.zeros(1, dtype=np.int64), *parts])

    return PolygonSoup(
        np.concatenate([soup.points for soup in soups]),
        joined("contours", [len(soup.points) for soup in soups]),
        joined("polygons", [len(soup.contours) - 1 for soup in soups]),
        np.concatenate([soup.colors for soup in soups]),
        np.concatenate([soup.kinds for soup in soups]),
        np.concatenate([soup.alphas for soup in soups]),
        np.concatenate([soup.radii for soup in soups]),
        joined("solids", [len(soup.polygons) - 1 for soup in soups]),
        np.concatenate([soup.feet for soup in soups]),
    )


def flat_polygons(
    corners: NDArray[np.float64], color: tuple[float, float, float], alphas: NDArray[np.float64]
) -> PolygonSoup:
    """Polygons (P, K, 2) on the ground, without solids."""
    count, sides = corners.shape[:2]
    points = np.zeros((count * sides, 3))
    points[:, :2] = corners.reshape(-1, 2)
    return PolygonSoup(
        points,
        np.arange(count + 1, dtype=np.int64) * sides,
        np.arange(count + 1, dtype=np.int64),
        np.tile(np.array(color, dtype=np.float64), (count, 1)),
        np.full(count, FLAT, dtype=np.int64),
        alphas,
        np.zeros(count),
        np.zeros(1, dtype=np.int64),
        np.zeros((0, 4, 2)),
    )


@dataclass
class SoupBuilder:
    """Collects polygons one by one; ``close_solid`` ends a solid, ``build`` makes the arrays."""

    _points: list[NDArray[np.float64]] = field(default_factory=list)
    _contours: list[int] = field(default_factory=lambda: [0])
    _polygons: list[int] = field(default_factory=lambda: [0])
    _colors: list[tuple[float, float, float]] = field(default_factory=list)
    _kinds: list[int] = field(default_factory=list)
    _alphas: list[float] = field(default_factory=list)
    _radii: list[float] = field(default_factory=list)
    _solids: list[int] = field(default_factory=lambda: [0])
    _feet: list[NDArray[np.float64]] = field(default_factory=list)

    def polygon(
        self,
        points: ArrayLike,
        color: tuple[float, float, float],
        kind: int = SOLID,
        alpha: float = 1.0,
        holes: Iterable[ArrayLike] = (),
    ) -> None:
        """Add a polygon (K, 3) [m]; a SOLID or GLOW one is seen from where it runs counter-clockwise."""
        for ring in (points, *holes):
            self._contour(np.asarray(ring, dtype=np.float64))
        self._finish(color, kind, alpha, 0.0)

    def quads(
        self, points: NDArray[np.float64], color: tuple[float, float, float], kind: int = SOLID
    ) -> None:
        """Add polygons (N, K, 3) of one colour [m]."""
        count, corners = points.shape[:2]
        if count == 0:
            return
        self._points.append(points.reshape(-1, 3))
        start, contours = self._contours[-1], len(self._contours) - 1
        self._contours += [start + corners * (i + 1) for i in range(count)]
        self._polygons += [contours + i + 1 for i in range(count)]
        self._colors += [color] * count
        self._kinds += [kind] * count
        self._alphas += [1.0] * count
        self._radii += [0.0] * count

    def disc(
        self,
        center: ArrayLike,
        radius: float,
        color: tuple[float, float, float],
        kind: int = SHEET,
        alpha: float = 1.0,
    ) -> None:
        """Add a disc with ``radius`` [m] around ``center`` (3,) that always faces the camera."""
        self._contour(np.asarray(center, dtype=np.float64).reshape(1, 3))
        self._finish(color, kind, alpha, radius)

    def close_solid(self, foot: ArrayLike | None = None) -> None:
        """End the solid begun after the last one.

        Args:
            foot: (4, 2) convex counter-clockwise quad it stands on [m]; the box around its points if None.
        """
        if foot is None:
            first = self._contours[self._polygons[self._solids[-1]]]
            points = np.concatenate(self._points)[first:]
            (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
            foot = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        self._solids.append(len(self._colors))
        self._feet.append(np.asarray(foot, dtype=np.float64))

    def build(self) -> PolygonSoup:
        """The collected polygons as arrays."""
        return PolygonSoup(
            np.concatenate(self._points) if self._points else np.zeros((0, 3)),
            np.array(self._contours, dtype=np.int64),
            np.array(self._polygons, dtype=np.int64),
            np.array(self._colors, dtype=np.float64).reshape(-1, 3),
            np.array(self._kinds, dtype=np.int64),
            np.array(self._alphas, dtype=np.float64),
            np.array(self._radii, dtype=np.float64),
            np.array(self._solids, dtype=np.int64),
            np.array(self._feet, dtype=np.float64).reshape(-1, 4, 2),
        )

    def _contour(self, ring: NDArray[np.float64]) -> None:
        self._points.append(ring)
        self._contours.append(self._contours[-1] + len(ring))

    def _finish(self, color: tuple[float, float, float], kind: int, alpha: float, radius: float) -> None:
        self._polygons.append(len(self._contours) - 1)
        self._colors.append(color)
        self._kinds.append(kind)
        self._alphas.append(alpha)
        self._radii.append(radius)
