"""A plan and why it fails, from above, drawn from nothing but the metric cache: no log, no map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.evaluation.pdm.kernels.constants import (
    CARPARK_AREA,
    INTERSECTION,
    LANE,
    LANE_CONNECTOR,
    ROADBLOCK,
    STEP,
)
from beyonddrive.structures.boxes import OBJECT_TYPES, box_corners, ego_corners
from beyonddrive.structures.se2 import to_local
from beyonddrive.visualization import palette
from beyonddrive.visualization.bev import draw_cross
from beyonddrive.visualization.canvas import Canvas, Picture, text_width
from beyonddrive.visualization.palette import Color

if TYPE_CHECKING:
    from beyonddrive.evaluation.pdm import Explanation, Failure, MetricCache

CAPTION = 30.0
"""Height of the line of words below a picture [px]."""
EGO_EVERY = 10
"""Samples between two outlines of the ego."""


@dataclass(frozen=True)
class SideView:
    """A window in the ego frame, ego heading to the right.

    Attributes:
        width: Width of the picture [px].
        ahead: Metres shown in front of the rear axle.
        behind: Metres shown behind it.
        left: Metres shown to its left.
        right: Metres shown to its right.

    >>> view = SideView(100, ahead=40.0, behind=10.0, left=6.0, right=4.0)
    >>> view.to_pixels([[0.0, 0.0], [10.0, 5.0]]).tolist()
    [[20.0, 12.0], [40.0, 2.0]]
    """

    width: int = 720
    ahead: float = 50.0
    behind: float = 8.0
    left: float = 9.0
    right: float = 6.0

    @property
    def scale(self) -> float:
        """Pixels per metre."""
        return self.width / (self.ahead + self.behind)

    @property
    def height(self) -> int:
        """Height of the picture [px]."""
        return round((self.left + self.right) * self.scale)

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 2+) in the ego frame [m] -> (..., 2) column and row [px]."""
        points = np.asarray(points, dtype=np.float64)
        return np.stack(
            [(points[..., 0] + self.behind) * self.scale, (self.left - points[..., 1]) * self.scale], axis=-1
        )


def draw_explained(
    cache: MetricCache, explanation: Explanation, column: str | None = None, view: SideView | None = None
) -> Picture:
    """Draw a plan as it was simulated, and one of its failures.

    Args:
        cache: The scene.
        explanation: Of the plan.
        column: Which failed sub-score to show; None for the gravest. A plan that fails nothing is only drawn.
        view: The window.

    Returns:
        uint8 RGB (view.height + 30, view.width, 3) with the failure in words at the bottom.

    Raises:
        KeyError: If the plan does not fail ``column``.
    """
    view = view or SideView()
    failure = _failure(explanation, column)
    canvas = Canvas(view.width, view.height + round(CAPTION), palette.GROUND)
    origin = cache.ego_state[:3]
    color = palette.PREDICTION if failure is None else palette.EXTENDED_FAILURES[failure.column]
    _draw_map(canvas, view, cache)
    moment = failure.time + _look_ahead(failure) if failure is not None else 0.0
    _draw_objects(canvas, view, cache, moment, failure, color)
    states = to_local(explanation.states[:, :3], origin)
    for pose in states[::EGO_EVERY]:
        canvas.stroke([view.to_pixels(ego_corners(pose))], palette.PREDICTION, 1.2, alpha=0.6, closed=True)
    canvas.stroke([view.to_pixels(states)], palette.PREDICTION, 3.0)
    canvas.fill([view.to_pixels(ego_corners(states[0]))], palette.EGO)
    words = "loses nothing"
    if failure is not None:
        words = f"{failure.column}: {failure.words}"
        _draw_moment(canvas, view, explanation, failure, states, color)
        if failure.column == "EP":
            _draw_reference(canvas, view, cache, explanation, color)
        draw_cross(canvas, view.to_pixels(to_local(failure.position, origin)), 8.0, color)
    canvas.rectangle(0.0, view.height, view.width, CAPTION, palette.PAPER)
    size = next((s for s in (14, 13, 12, 11) if text_width(words, s, bold=True) <= view.width - 20.0), 10)
    canvas.text(10.0, view.height + 0.5 * CAPTION, words, size, color, bold=True, anchor="lm")
    return canvas.finish()


def _failure(explanation: Explanation, column: str | None) -> Failure | None:
    if column is None:
        return next(iter(explanation.failures), None)
    if not explanation.of(column):
        raise KeyError(
            f"the plan does not fail {column!r}; it fails {', '.join(explanation.failed) or 'nothing'}"
        )
    return explanation.of(column)[0]


def _look_ahead(failure: Failure | None) -> float:
    """Seconds after the ego's moment at which the object is touched."""
    return failure.value or 0.0 if failure is not None and failure.column == "TTC" else 0.0


def _draw_map(canvas: Canvas, view: SideView, cache: MetricCache) -> None:
    shapes, origin = cache.polygons.geometries(), cache.ego_state[:3]

    def rings(*kinds: int) -> list[NDArray[np.float64]]:
        chosen = shapes[np.isin(cache.polygon_types, kinds)]
        parts = [part for shape in chosen for part in getattr(shape, "geoms", [shape])]
        return [view.to_pixels(to_local(np.asarray(part.exterior.coords), origin)) for part in parts]

    for kind, fill in (
        (ROADBLOCK, palette.ROAD),
        (CARPARK_AREA, palette.CAR_PARK),
        (INTERSECTION, palette.INTERSECTION),
    ):
        canvas.fill(rings(kind), fill)
    on_route = np.isin(cache.polygon_ids, cache.route_ids)
    for row in np.flatnonzero(on_route & np.isin(cache.polygon_types, (LANE, LANE_CONNECTOR))):
        for part in getattr(shapes[row], "geoms", [shapes[row]]):
            canvas.fill([view.to_pixels(to_local(np.asarray(part.exterior.coords), origin))], palette.ROUTE)
    canvas.stroke(rings(LANE, LANE_CONNECTOR), palette.LANE_EDGE, 2.0, closed=True)
    canvas.stroke(rings(INTERSECTION), palette.ROAD_EDGE, 1.5, closed=True, dash=(6.0, 5.0))
    if cache.extended is not None:
        for light in cache.extended.lights.geometries():
            for part in getattr(light, "geoms", [light]):
                ring = view.to_pixels(to_local(np.asarray(part.exterior.coords), origin))
                canvas.fill([ring], palette.RED_LIGHT, alpha=0.3)
    line = view.to_pixels(to_local(cache.centerline[:, :2], origin))
    canvas.stroke([line], palette.CENTERLINE, 1.5, dash=(9.0, 7.0))


def _draw_objects(
    canvas: Canvas, view: SideView, cache: MetricCache, moment: float, failure: Failure | None, color: Color
) -> None:
    """Boxes now, where they go, and where they are at the moment of the failure."""
    boxes = cache.tracks.boxes()
    guilty = None if failure is None else failure.object_token
    for m, (token, kind) in enumerate(zip(cache.tracks.tokens, cache.tracks.types, strict=True)):
        fill = palette.AGENTS[OBJECT_TYPES[kind]]
        rows = np.flatnonzero(np.isfinite(boxes[:, m, 0]))
        path = to_local(boxes[rows, m, :2], cache.ego_state[:3])
        if len(rows) > 1 and np.ptp(path, axis=0).max() > 0.5:
            canvas.stroke([view.to_pixels(path[rows <= 40])], fill, 2.0, alpha=0.6)
        then = round(moment / STEP)
        for t, alpha in ((0, 1.0), (then, 0.35)):
            if t not in rows:
                continue
            x, y, cos, sin = boxes[t, m]
            corners = box_corners([x, y], np.arctan2(sin, cos), *np.maximum(cache.tracks.size[m], 0.6))
            outline = view.to_pixels(to_local(corners, cache.ego_state[:3]))
            canvas.fill([outline], fill, alpha=alpha)
            if token == guilty and t == then:
                canvas.stroke([outline], color, 2.0, closed=True)


def _draw_reference(
    canvas: Canvas, view: SideView, cache: MetricCache, explanation: Explanation, color: Color
) -> None:
    """Where the reference planner is at the end."""
    chosen = cache.proposal
    if cache.extended is not None and "HC" in explanation.columns:
        chosen = cache.extended.proposal
    end = ego_corners(to_local(chosen[len(explanation.states) - 1], cache.ego_state[:3]))
    canvas.stroke([view.to_pixels(end)], color, 2.0, closed=True, dash=(6.0, 4.0))


def _draw_moment(
    canvas: Canvas,
    view: SideView,
    explanation: Explanation,
    failure: Failure,
    states: NDArray[np.float64],
    color: Color,
) -> None:
    """The ego box when the failure happens and, for a time to collision, where it would be at the contact."""
    sample = min(max(round(failure.time / STEP), 0), len(states) - 1)
    box = ego_corners(states[sample])
    canvas.fill([view.to_pixels(box)], color, alpha=0.25)
    canvas.stroke([view.to_pixels(box)], color, 2.0, closed=True)
    way = _look_ahead(failure) * float(np.hypot(*explanation.states[sample, 3:5]))
    if way:
        heading = states[sample, 2]
        moved = box + way * np.array([np.cos(heading), np.sin(heading)])
        canvas.stroke([view.to_pixels(moved)], color, 2.0, closed=True, dash=(6.0, 4.0))
