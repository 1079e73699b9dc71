"""Bird's-eye view of a scene: map, agents, lights, ego, and plans coloured by what they fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.evaluation.pdm.kernels.constants import STEP
from beyonddrive.structures.boxes import AGENT_TYPES, EGO_LENGTH, EGO_WIDTH, box_corners, ego_corners
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL
from beyonddrive.structures.se2 import to_local
from beyonddrive.visualization import palette
from beyonddrive.visualization.canvas import Canvas, Picture, text_width
from beyonddrive.visualization.failures import Verdict
from beyonddrive.visualization.layers import PlanLayer, View
from beyonddrive.visualization.map_painter import MapPainter
from beyonddrive.visualization.motion import AgentTrack, agent_tracks
from beyonddrive.visualization.palette import Color

if TYPE_CHECKING:
    from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
    from beyonddrive.evaluation.pdm.explain.explanation import Failure

HORIZON = NUM_POSES * POSE_INTERVAL
"""Seconds of an agent's motion that are drawn: the length of a plan."""
GHOST_RADIUS = 9.0
"""Agents this near to the ego at the moment of failure are outlined there [m]."""


def draw_bev(
    scene: Scene,
    nuplan_map: NuPlanMap,
    layers: Sequence[PlanLayer] = (),
    view: View | None = None,
    centerline: NDArray[np.float64] | None = None,
    legend: bool = True,
    detections: NDArray[np.float64] | None = None,
) -> Picture:
    """Paint a scene from above, ego heading up.

    Args:
        scene: The scene; what is annotated now is drawn as boxes, how it moves in the next 4 s as trails.
        nuplan_map: Its map.
        layers: Plans, painted in this order except that bundles of proposals come first.
        view: The window; one that fits the plans if None.
        centerline: (V, 2+) global vertices of the centreline to mark; those of the route's lanes if None.
        legend: Whether to explain the colours.
        detections: (N, 7+) boxes that a planner found, as :mod:`beyonddrive.structures.agent_boxes` has them;
            outlined on top of what is annotated.

    Returns:
        uint8 RGB (view.height, view.width, 3), the same bytes for the same input.
    """
    view = view or View.fit([layer.plans for layer in layers])
    canvas = Canvas(view.width, view.height, palette.GROUND)
    MapPainter(canvas, view, scene, nuplan_map).paint(centerline)
    tracks = agent_tracks(scene)
    _draw_trails(canvas, view, tracks)
    bundles = [layer for layer in layers if layer.role == "proposals"]
    bold = [layer for layer in layers if layer.role != "proposals"]
    for layer in bundles:
        draw_proposals(canvas, view, layer)
    for layer in bold:
        if layer.role == "plan":
            _draw_swath(canvas, view, layer)
    _draw_agents(canvas, view, scene)
    entries = [entry for layer in layers for entry in layer.legend()]
    if detections is not None:
        _draw_detections(canvas, view, detections)
        entries.append(("detected", palette.DETECTION, "proposals"))
    for layer in bold:
        draw_plan(canvas, view, layer)
    draw_ego(canvas, view)
    for layer in layers:
        _draw_moments(canvas, view, scene, layer, tracks)
    _draw_scale_bar(canvas, view)
    if legend:
        draw_legend(canvas, entries, 14.0, view.height - 14.0)
    return canvas.finish()


def _draw_trails(canvas: Canvas, view: View, tracks: dict[str, AgentTrack]) -> None:
    for track in tracks.values():
        poses = track.poses[track.times <= HORIZON]
        if track.kind not in AGENT_TYPES or len(poses) < 2 or np.hypot(*(poses[-1, :2] - poses[0, :2])) < 0.5:
            continue
        color = palette.mix(palette.AGENTS[track.kind], palette.INK, 0.15)
        pixels = view.to_pixels(poses)
        canvas.stroke([pixels], color, 2.0, alpha=0.55)
        for point in pixels[1:]:
            canvas.disc(point, 2.2, color, alpha=0.55)


def _draw_agents(canvas: Canvas, view: View, scene: Scene) -> None:
    objects = scene.objects(HISTORY - 1)
    for kind, box in zip(objects.types, objects.boxes, strict=True):
        # Cones and pedestrians would vanish at this scale: never smaller than 0.8 m.
        length, width = max(float(box[3]), 0.8), max(float(box[4]), 0.8)
        fill = palette.AGENTS[kind]
        edge = palette.mix(fill, palette.INK, 0.5)
        if kind == "traffic_cone":
            canvas.disc(view.to_pixels(box[:2]), 0.5 * max(length, width) * view.scale + 1.0, palette.PAPER)
            canvas.disc(view.to_pixels(box[:2]), 0.5 * max(length, width) * view.scale, fill)
            continue
        corners = view.to_pixels(box_corners(box[:2], box[6], length, width))
        canvas.fill([corners], fill)
        if kind in ("vehicle", "ego"):
            _draw_windshield(
                canvas, view, box[:2], float(box[6]), length, width, palette.mix(fill, palette.PAPER, 0.6)
            )
        elif kind in AGENT_TYPES:
            nose = view.to_pixels(
                np.stack([box[:2], 0.5 * (box_corners(box[:2], box[6], length, width)[[0, 3]].sum(0))])
            )
            canvas.stroke([nose], palette.PAPER, 1.5)
        canvas.stroke([corners], edge, 1.5, closed=True)


def _draw_detections(canvas: Canvas, view: View, boxes: NDArray[np.float64]) -> None:
    """Outlines, with a line from the centre to the front."""
    for box in boxes:
        corners = box_corners(box[:2], box[6], box[3], box[4])
        canvas.stroke([view.to_pixels(corners)], palette.DETECTION, 2.0, closed=True)
        nose = np.stack([box[:2], 0.5 * corners[[0, 3]].sum(0)])
        canvas.stroke([view.to_pixels(nose)], palette.DETECTION, 2.0)


def _draw_windshield(
    canvas: Canvas,
    view: View,
    center: NDArray[np.float64],
    heading: float,
    length: float,
    width: float,
    color: Color,
) -> None:
    """A strip at the front: which way a vehicle points."""
    forward = np.array([np.cos(heading), np.sin(heading)])
    strip = box_corners(center + 0.22 * length * forward, heading, 0.13 * length, 0.74 * width)
    canvas.fill([view.to_pixels(strip)], color)


def draw_ego(canvas: Canvas, view: View) -> None:
    """The ego box now, with its windshield."""
    corners = ego_corners(np.zeros(3))
    pixels = view.to_pixels(corners)
    canvas.fill([pixels], palette.EGO)
    canvas.stroke([pixels], palette.PAPER, 1.5, closed=True)
    _draw_windshield(canvas, view, corners.mean(axis=0), 0.0, EGO_LENGTH, EGO_WIDTH, palette.PAPER)


def _with_origin(plan: NDArray[np.float64]) -> NDArray[np.float64]:
    """Plan (8, 3) preceded by the pose at t = 0: (9, 3)."""
    return np.concatenate([np.zeros((1, 3)), plan])


def draw_proposals(canvas: Canvas, view: View, layer: PlanLayer) -> None:
    """A bundle of fine lines."""
    crowd = len(layer.plans) > 12
    for plan, color, verdict in layer.painted():
        calm = verdict is not None and verdict.first is None
        alpha = (0.4 if calm else 0.75) if crowd else 0.9
        canvas.stroke([view.to_pixels(_with_origin(plan))], color, 1.5 if crowd else 2.5, alpha=alpha)


def _draw_swath(canvas: Canvas, view: View, layer: PlanLayer) -> None:
    """The ground that the ego box sweeps, as boxes close together."""
    times = np.arange(9.0)
    fine = np.linspace(0.0, 8.0, 81)
    for plan, color, _ in layer.painted():
        poses = _with_origin(plan)
        poses[:, 2] = np.unwrap(poses[:, 2])
        dense = np.stack([np.interp(fine, times, poses[:, axis]) for axis in range(3)], axis=-1)
        canvas.fill(list(view.to_pixels(ego_corners(dense))), color, alpha=0.16)


def draw_plan(canvas: Canvas, view: View, layer: PlanLayer) -> None:
    """A bold line with its poses."""
    # The expert is the broader line, so that a plan on top of it leaves its edges visible.
    width, halo = (7.0, 9.5) if layer.role == "expert" else (2.5, 4.5)
    for plan, color, _ in layer.painted():
        pixels = view.to_pixels(_with_origin(plan))
        canvas.stroke([pixels], palette.PAPER, halo, alpha=0.9)
        canvas.stroke([pixels], color, width)
        for point in pixels[1:]:
            canvas.disc(point, 0.5 * width + 3.2, palette.PAPER)
            canvas.disc(point, 0.5 * width + 2.2, color)


def _draw_moments(
    canvas: Canvas, view: View, scene: Scene, layer: PlanLayer, tracks: dict[str, AgentTrack]
) -> None:
    """Crosses where plans fail; for a planner's plan also the ego box then and who is near."""
    for _, _, verdict in layer.painted():
        mark = verdict.mark if verdict is not None else None
        if verdict is None or mark is None:
            continue
        if layer.role == "plan":
            _draw_ghosts(canvas, view, scene, verdict, mark, tracks)
        place = view.to_pixels(to_local(mark.position, scene.ego_pose))
        draw_cross(canvas, place, 3.2 if layer.role == "proposals" else 9.0, verdict.color)


def _draw_ghosts(
    canvas: Canvas,
    view: View,
    scene: Scene,
    verdict: Verdict,
    mark: Failure,
    tracks: dict[str, AgentTrack],
) -> None:
    """Outlines of the ego and of the agents around it when the plan fails, and of those about to touch."""
    pose = to_local(verdict.pose_at(mark.time), scene.ego_pose)
    ego = ego_corners(pose)
    ahead = mark.value or 0.0 if mark.column == "TTC" else 0.0
    for token, track in tracks.items():
        at = track.pose_at(mark.time + (ahead if token == mark.object_token else 0.0))
        if at is None:
            continue
        is_near = np.hypot(*(at[:2] - ego.mean(axis=0))) <= GHOST_RADIUS + 0.5 * track.size[0]
        if not is_near and token != mark.object_token:
            continue
        outline = view.to_pixels(box_corners(at[:2], at[2], *track.size))
        if token == mark.object_token:
            canvas.fill([outline], verdict.color, alpha=0.25)
            canvas.stroke([outline], verdict.color, 2.0, closed=True, dash=(5.0, 3.5))
        elif np.hypot(*(at[:2] - track.poses[0, :2])) > 0.5:  # else its box is there already
            canvas.fill([outline], palette.AGENTS[track.kind], alpha=0.3)
            color = palette.mix(palette.AGENTS[track.kind], palette.INK, 0.45)
            canvas.stroke([outline], color, 1.5, closed=True, dash=(5.0, 3.5))
    if ahead:
        speed = float(np.hypot(*verdict.explanation.states[round(mark.time / STEP), 3:5]))
        moved = ego + ahead * speed * np.array([np.cos(pose[2]), np.sin(pose[2])])
        canvas.stroke([view.to_pixels(moved)], verdict.color, 1.5, closed=True, dash=(5.0, 3.5))
    canvas.fill([view.to_pixels(ego)], verdict.color, alpha=0.25)
    canvas.stroke([view.to_pixels(ego)], verdict.color, 2.0, closed=True)


def draw_cross(canvas: Canvas, center: NDArray[np.float64], radius: float, color: Color) -> None:
    """A cross with a light edge, ``radius`` pixels from its middle to the tips."""
    arms = [
        np.stack([center + radius * np.array([-1.0, side]), center + radius * np.array([1.0, -side])])
        for side in (1.0, -1.0)
    ]
    canvas.stroke(arms, palette.PAPER, max(3.0, 0.75 * radius))
    canvas.stroke(arms, color, max(1.5, 0.38 * radius))


def _draw_scale_bar(canvas: Canvas, view: View) -> None:
    metres = 10.0 if view.scale * 10.0 < view.width / 4 else 5.0
    length = metres * view.scale
    right, row = view.width - 18.0, view.height - 18.0
    label = f"{metres:.0f} m"
    width = max(length, text_width(label, 13)) + 20.0
    canvas.rectangle(right - width + 8.0, row - 32.0, width, 42.0, palette.PAPER, alpha=0.86, radius=6.0)
    middle = right + 8.0 - width / 2.0
    left, right = middle - length / 2.0, middle + length / 2.0
    canvas.stroke([[(left, row - 4.0), (left, row), (right, row), (right, row - 4.0)]], palette.INK, 1.5)
    canvas.text(middle, row - 8.0, label, 13, anchor="ms")


def draw_legend(
    canvas: Canvas, entries: Sequence[tuple[str, Color, str]], left: float, bottom: float
) -> None:
    """A box that explains colours; entries are label, colour and role of a layer."""
    entries = list(dict.fromkeys(entries))
    if not entries:
        return
    line, size = 21.0, 13
    width = max(text_width(label, size) for label, _, _ in entries) + 58.0
    height = line * len(entries) + 14.0
    top = bottom - height
    canvas.rectangle(left, top, width, height, palette.PAPER, alpha=0.86, radius=6.0)
    for index, (label, color, role) in enumerate(entries):
        row = top + 7.0 + line * (index + 0.5)
        canvas.stroke(
            [[(left + 12.0, row), (left + 36.0, row)]],
            color,
            {"proposals": 2.0, "plan": 2.5, "expert": 5.0}[role],
        )
        if role != "proposals":
            canvas.disc((left + 24.0, row), 4.0 if role == "plan" else 5.0, color)
        canvas.text(left + 46.0, row, label, size, anchor="lm")
