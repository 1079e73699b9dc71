"""An anti-aliased painter: shapes in pixels of the finished picture, drawn larger and scaled down.

OpenCV fills and strokes on a raster ``supersample`` times as large, with sub-pixel coordinates; text is set
with Pillow after the reduction, so that it stays crisp. The fonts are those that ship with matplotlib: the
same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from beyonddrive.visualization.palette import INK, Color

Picture = NDArray[np.uint8]
"""RGB bytes (H, W, 3)."""

_SHIFT = 4
"""Fractional bits of OpenCV coordinates."""
_MARGIN = 64.0
"""Shapes are clipped this many pixels outside the picture, so that caps and outlines stay hidden."""


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of ``size`` pixels, as shipped with matplotlib."""
    name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_width(text: str, size: int, bold: bool = False) -> float:
    """Width of one line of text [px]."""
    return float(font(size, bold).getlength(text))


class Canvas:
    """A picture that is being painted; coordinates are (column, row) in pixels of the finished picture.

    Args:
        width: Width of the finished picture [px].
        height: Height of the finished picture [px].
        background: A colour, or a picture (height, width, 3) to paint on.
        supersample: Raster points per pixel and axis.

    >>> canvas = Canvas(4, 2, (255, 255, 255))
    >>> canvas.fill([[(0, 0), (2, 0), (2, 2), (0, 2)]], (255, 0, 0))
    >>> canvas.finish()[0, :, 1].tolist()[::3]
    [0, 255]
    """

    def __init__(self, width: int, height: int, background: Color | Picture, supersample: int = 2) -> None:
        self.width, self.height, self.supersample = width, height, supersample
        shape = (height * supersample, width * supersample, 3)
        if isinstance(background, tuple):
            self._raster = np.empty(shape, dtype=np.uint8)
            # (a row as a whole is copied many times faster than three numbers at a time)
            self._raster[0] = background
            self._raster[1:] = self._raster[0]
        else:
            if background.shape != (height, width, 3):
                raise ValueError(
                    f"background must have shape {(height, width, 3)}, got {background.shape}; resize it"
                )
            self._raster = np.ascontiguousarray(
                cv2.resize(background, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
            )
        self._texts: list[tuple[float, float, str, int, bool, Color, str]] = []
        self._window = (-_MARGIN, -_MARGIN, width + _MARGIN, height + _MARGIN)

    def fill(self, shapes: Iterable[ArrayLike | shapely.Polygon], color: Color, alpha: float = 1.0) -> None:
        """Fill rings (n, 2) and polygons with their holes; where shapes of one call overlap, they add up."""
        pieces = [
            [self._fixed(ring) for ring in rings] for shape in shapes for rings in self._clip_shape(shape)
        ]
        if not pieces:
            return
        if alpha >= 1.0:
            for rings in pieces:
                cv2.fillPoly(self._raster, rings, color, cv2.LINE_AA, _SHIFT)
            return
        window, mask, origin = self._mask([rings[0] for rings in pieces], 0)
        if mask.size == 0:  # all in the margin
            return
        for rings in pieces:
            cv2.fillPoly(mask, [ring - origin for ring in rings], 255, cv2.LINE_AA, _SHIFT)
        _blend(window, mask, color, alpha)

    def stroke(
        self,
        lines: Iterable[ArrayLike],
        color: Color,
        width: float = 1.0,
        alpha: float = 1.0,
        closed: bool = False,
        dash: tuple[float, float] | None = None,
    ) -> None:
        """Stroke polylines, each (n, 2), ``width`` pixels wide; ``dash`` gives mark and gap lengths [px].

        Many of one length are quickest as one array (N, n, 2).
        """
        pieces = []
        if isinstance(lines, np.ndarray) and not closed and dash is None:
            whole, lines = self._part_by_window(np.asarray(lines, dtype=np.float64))
            pieces += list(self._fixed(whole))
        for line in lines:
            points = np.asarray(line, dtype=np.float64)
            if closed:
                points = np.concatenate([points, points[:1]])
            parts = dashes(points, *dash) if dash is not None else [points]
            for part in parts:
                pieces += [self._fixed(piece) for piece in self._clip_line(part)]
        if not pieces:
            return
        thickness = max(1, round(width * self.supersample))
        if alpha >= 1.0:
            cv2.polylines(self._raster, pieces, False, color, thickness, cv2.LINE_AA, _SHIFT)
            return
        window, mask, origin = self._mask(pieces, thickness)
        if mask.size == 0:
            return
        cv2.polylines(mask, [piece - origin for piece in pieces], False, 255, thickness, cv2.LINE_AA, _SHIFT)
        _blend(window, mask, color, alpha)

    def disc(self, center: ArrayLike, radius: float, color: Color, alpha: float = 1.0) -> None:
        """Fill a circle of ``radius`` pixels."""
        turn = np.linspace(0.0, 2.0 * np.pi, 33)[:-1]
        self.fill(
            [np.asarray(center, dtype=np.float64) + radius * np.stack([np.cos(turn), np.sin(turn)], -1)],
            color,
            alpha,
        )

    def rectangle(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        color: Color,
        alpha: float = 1.0,
        radius: float = 0.0,
    ) -> None:
        """Fill an upright rectangle with rounded corners."""
        self.fill([rounded_rectangle(left, top, width, height, radius)], color, alpha)

    def text(
        self,
        left: float,
        top: float,
        text: str,
        size: int = 14,
        color: Color = INK,
        bold: bool = False,
        anchor: str = "la",
    ) -> None:
        """Set one line of text; ``anchor`` as in Pillow (``la``: left, top of the line; ``mm``: middle)."""
        self._texts.append((left, top, text, size, bold, color, anchor))

    def stamp(
        self, column: float, row: float, text: str, size: int, color: Color, alpha: float = 1.0
    ) -> None:
        """Paint bold text around a point, below whatever is painted later; :meth:`text` stays on top."""
        scaled = font(size * self.supersample, bold=True)
        left, top, right, bottom = scaled.getbbox(text, anchor="mm")
        image = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2))
        ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=255, font=scaled, anchor="mm")
        mask = np.array(image, dtype=np.uint8)
        x = round(column * self.supersample + left)
        y = round(row * self.supersample + top)
        rows, columns = self._raster.shape[:2]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + mask.shape[1], columns), min(y + mask.shape[0], rows)
        if x0 < x1 and y0 < y1:
            inside = np.ascontiguousarray(mask[y0 - y : y1 - y, x0 - x : x1 - x])
            _blend(self._raster[y0:y1, x0:x1], inside, color, alpha)

    def finish(self) -> Picture:
        """The finished picture, RGB (height, width, 3)."""
        reduced = cv2.resize(self._raster, (self.width, self.height), interpolation=cv2.INTER_AREA)
        if not self._texts:
            return np.asarray(reduced, dtype=np.uint8)
        image = Image.fromarray(np.asarray(reduced, dtype=np.uint8))
        pen = ImageDraw.Draw(image)
        for left, top, text, size, bold, color, anchor in self._texts:
            pen.text((left, top), text, fill=color, font=font(size, bold), anchor=anchor)
        return np.array(image, dtype=np.uint8)

    def _fixed(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        # OpenCV puts integer coordinates at the middle of a raster point, we at its corner.
        return np.rint((points * self.supersample - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _clip_shape(self, shape: ArrayLike | shapely.Polygon) -> list[list[NDArray[np.float64]]]:
        """The parts of a shape near the picture, each a list of rings, the outer one first."""
        if isinstance(shape, shapely.Polygon):
            rings = [np.asarray(ring.coords)[:-1, :2] for ring in (shape.exterior, *shape.interiors)]
        else:
            rings = [np.asarray(shape, dtype=np.float64)]
        left, top, right, bottom = self._window
        low, high = rings[0].min(axis=0), rings[0].max(axis=0)
        if low[0] > right or low[1] > bottom or high[0] < left or high[1] < top:
            return []
        if low[0] >= left and low[1] >= top and high[0] <= right and high[1] <= bottom:
            return [rings]
        polygon = shapely.Polygon(rings[0], rings[1:])
        if not polygon.is_valid:
            polygon = polygon.buffer(0.0)
        clipped = shapely.intersection(polygon, shapely.box(*self._window))
        return [
            [np.asarray(ring.coords)[:-1] for ring in (part.exterior, *part.interiors)]
            for part in parts_of(clipped, "Polygon")
        ]

    def _clip_line(self, line: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        left, top, right, bottom = self._window
        low, high = line.min(axis=0), line.max(axis=0)
        if low[0] > right or low[1] > bottom or high[0] < left or high[1] < top or len(line) < 2:
            return []
        if low[0] >= left and low[1] >= top and high[0] <= right and high[1] <= bottom:
            return [line]
        clipped = shapely.clip_by_rect(shapely.linestrings(line), *self._window)
        return [np.asarray(part.coords) for part in parts_of(clipped, "LineString")]

    def _part_by_window(self, lines: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Those of lines (N, n, 2) that lie in the window, and those that cross its edge."""
        left, top, right, bottom = self._window
        low, high = lines.min(axis=1), lines.max(axis=1)
        inside = ((low >= (left, top)) & (high <= (right, bottom))).all(axis=1)
        near = ((low <= (right, bottom)) & (high >= (left, top))).all(axis=1)
        return lines[inside], lines[near & ~inside]

    def _mask(
        self, pieces: Sequence[NDArray[np.int32]], thickness: int
    ) -> tuple[Picture, Picture, NDArray[np.int32]]:
        pad = thickness + 2
        rows, columns = self._raster.shape[:2]
        low = np.min([piece.min(axis=0) for piece in pieces], axis=0) // (1 << _SHIFT) - pad
        high = np.max([piece.max(axis=0) for piece in pieces], axis=0) // (1 << _SHIFT) + pad + 1
        low = np.clip(low, 0, (columns, rows))
        high = np.clip(high, low, (columns, rows))
        window = self._raster[low[1] : high[1], low[0] : high[0]]
        return window, np.zeros(window.shape[:2], dtype=np.uint8), (low << _SHIFT).astype(np.int32)


def parts_of(geometry: shapely.Geometry, kind: str) -> list[shapely.Geometry]:
    """Parts of one kind (``Polygon``, ``LineString``) that a geometry consists of, empty ones left out."""
    parts = shapely.get_parts(np.atleast_1d(np.asarray(geometry, dtype=object)))
    flat = [inner for part in parts for inner in shapely.get_parts(part)]
    return [part for part in flat if part.geom_type == kind and not part.is_empty]


def dashes(line: NDArray[np.float64], mark: float, gap: float) -> list[NDArray[np.float64]]:
    """Cut a polyline (n, 2) into marks of length ``mark``, ``gap`` apart.

    >>> [part[:, 0].tolist() for part in dashes(np.array([[0.0, 0.0], [10.0, 0.0]]), 4.0, 2.0)]
    [[0.0, 4.0], [6.0, 10.0]]
    """
    steps = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    keep = np.concatenate([[True], steps > 0.0])
    line, along = line[keep], along[keep]
    parts = []
    for start in np.arange(0.0, along[-1], mark + gap):
        stop = min(start + mark, along[-1])
        at = np.concatenate([[start], along[(along > start) & (along < stop)], [stop]])
        parts.append(np.stack([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])], axis=-1))
    return parts


def rounded_rectangle(
    left: float, top: float, width: float, height: float, radius: float
) -> NDArray[np.float64]:
    """Ring (n, 2) of an upright rectangle with rounded corners."""
    if radius <= 0.0:
        return np.array(
            [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]
        )
    quarter = np.linspace(0.0, 0.5 * np.pi, 9)
    corners = []
    for turn, (column, row) in enumerate(
        [
            (left + width - radius, top + height - radius),
            (left + radius, top + height - radius),
            (left + radius, top + radius),
            (left + width - radius, top + radius),
        ]
    ):
        angle = quarter + 0.5 * np.pi * turn
        corners.append(np.stack([column + radius * np.cos(angle), row + radius * np.sin(angle)], axis=-1))
    return np.concatenate(corners)


def _blend(window: Picture, mask: Picture, color: Color, alpha: float) -> None:
    """Mix ``color`` into ``window`` in place where ``mask`` is set."""
    share = mask.astype(np.float32) * np.float32(alpha / 255.0)
    paint = np.empty_like(window)
    paint[:] = color
    window[:] = cv2.blendLinear(paint, np.ascontiguousarray(window), share, 1.0 - share)
