"""A sample as a planner gets it: its inputs and targets after the pipeline, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray

from beyonddrive.structures.boxes import box_corners
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.visualization import palette
from beyonddrive.visualization.bev import draw_ego, draw_legend, draw_plan, draw_proposals
from beyonddrive.visualization.canvas import Canvas, Picture
from beyonddrive.visualization.layers import PlanLayer, View
from beyonddrive.visualization.palette import AGENTS, FAILURE_LABELS, FAILURES, Color

WIDTH, MARGIN, HEADER, BEV_HEIGHT = 1200, 16, 40, 600
BEHIND = 8.0
"""Metres that are shown behind the rear axle."""
CLASS_COLORS = np.array(
    [
        *(palette.GROUND, palette.ROAD, palette.WALKWAY, palette.CENTERLINE),
        *(AGENTS["barrier"], AGENTS["vehicle"], AGENTS["pedestrian"]),
    ],
    np.uint8,
)
"""Colours of the classes of a bird's-eye-view map (MODELS, section 1)."""
COMMANDS = ("left", "straight", "right", "unknown")
"""Driving commands in the order of their one-hot code (NAVSIM_FORMAT, section 2)."""


def draw_sample(
    inputs: Mapping[str, Any], sample: PlanSample, cell: float = 0.25, extent: float = 32.0
) -> Picture:
    """Draw what there is of a sample: camera, LiDAR, map target, agents, expert plan, negatives.

    Args:
        inputs: Tensors by name, of one scene: ``camera`` (3, H, W) uint8 or in [0, 1]; ``lidar`` (C, h, w) in
            [0, 1] or ``points`` (N, 4); ``status`` (8,).
        sample: The sample, with ``gt`` and maybe ``negatives``.
        cell: Side of a cell of ``gt.bev_semantic_map`` [m].
        extent: Half side of the square that the LiDAR raster covers, or in which points are shown [m].

    Returns:
        uint8 RGB, 1200 pixels wide.
    """
    lidar = _lidar_picture(inputs, extent)
    bev_width = WIDTH - (3 * MARGIN + BEV_HEIGHT if lidar is not None else 2 * MARGIN)
    rows = [[_bev(sample, cell, bev_width), *([lidar] if lidar is not None else [])]]
    if "camera" in inputs:
        rows.insert(0, [_camera_picture(_array(inputs["camera"]))])
    height = HEADER + sum(row[0].shape[0] + MARGIN for row in rows)
    canvas = Canvas(WIDTH, height, palette.PAPER)
    token = sample.metainfo.get("token", "?")
    canvas.text(
        MARGIN, HEADER / 2, f"{token}   {sample.metainfo.get('log_name', '')}", 15, bold=True, anchor="lm"
    )
    canvas.text(WIDTH - MARGIN, HEADER / 2, describe_status(inputs), 14, palette.MUTED_INK, anchor="rm")
    page = canvas.finish()
    top = HEADER
    for row in rows:
        left = MARGIN
        for picture in row:
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += picture.shape[1] + MARGIN
        top += row[0].shape[0] + MARGIN
    return page


def describe_status(inputs: Mapping[str, Any]) -> str:
    """Driving command, speed and acceleration of a sample; empty without an ego status.

    >>> describe_status({"status": np.array([0, 1, 0, 0, 3.0, 4.0, -1.0, 0.0])})
    'straight, 5.0 m/s, -1.0 m/s2 along, +0.0 m/s2 across'
    """
    if "status" not in inputs:
        return ""
    status = _array(inputs["status"])
    # (a planner need not be told it: ``HideStatus``)
    command = COMMANDS[int(status[:4].argmax())] if status[:4].any() else "no command"
    speed = float(np.hypot(*status[4:6]))
    return f"{command}, {speed:.1f} m/s, {status[6]:+.1f} m/s2 along, {status[7]:+.1f} m/s2 across"


def _array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _camera_picture(image: NDArray[Any]) -> Picture:
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    rows, columns = image.shape[1:]
    width = WIDTH - 2 * MARGIN
    size = (width, round(rows * width / columns))
    resized = cv2.resize(np.ascontiguousarray(np.moveaxis(image, 0, -1)), size, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def _lidar_picture(inputs: Mapping[str, Any], extent: float) -> Picture | None:
    """The sweep from above, ahead is up; darker where there are more points."""
    if "lidar" in inputs:
        share = _array(inputs["lidar"]).max(axis=0)
    elif "points" in inputs:
        points = _array(inputs["points"])
        edges = np.linspace(-extent, extent, 257)
        share = np.minimum(np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))[0] / 5.0, 1.0)
    else:
        return None
    # Rows run ahead and columns from right to left.
    gray = np.rint(255.0 * (1.0 - np.clip(share[::-1, ::-1], 0.0, 1.0))).astype(np.uint8)
    large = cv2.resize(gray, (BEV_HEIGHT, BEV_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.repeat(large[..., None], 3, axis=-1)


def _layers(sample: PlanSample) -> list[PlanLayer]:
    layers = []
    negatives = getattr(sample, "negatives", BaseDataElement())
    if "plans" in negatives:
        valid = _array(negatives.valid).astype(bool)
        plans = _array(negatives.plans)[valid]
        columns = _array(negatives.columns)[valid] if "columns" in negatives else np.full(len(plans), 6)
        for index in np.unique(columns):
            name = SCORE_COLUMNS[index]
            label, color = FAILURE_LABELS.get(name, name), FAILURES.get(name, FAILURES["NC"])
            layers.append(PlanLayer(f"negatives: {label}", plans[columns == index], "proposals", color))
    gt = getattr(sample, "gt", BaseDataElement())
    if "trajectory" in gt:
        layers.append(PlanLayer("expert", _array(gt.trajectory)[None], "expert"))
    return layers


def _bev(sample: PlanSample, cell: float, width: int) -> Picture:
    layers = _layers(sample)
    reach = max((float(layer.plans[..., 0].max()) for layer in layers), default=0.0)
    view = View(width, BEV_HEIGHT, ahead=max(32.0, reach) + 4.0, behind=BEHIND)
    gt = getattr(sample, "gt", BaseDataElement())
    background: Color | Picture = palette.GROUND
    if "bev_semantic_map" in gt:
        background = _map_picture(_array(gt.bev_semantic_map), cell, view)
    canvas = Canvas(view.width, view.height, background)
    if "agent_states" in gt:
        agents = _array(gt.agent_states)[_array(gt.agent_labels).astype(bool)].astype(np.float64)
        corners = box_corners(agents[:, :2], agents[:, 2], agents[:, 3], agents[:, 4])
        for box in view.to_pixels(corners):
            canvas.stroke([box], palette.INK, 1.5, closed=True)
    for layer in layers:
        if layer.role == "proposals":
            draw_proposals(canvas, view, layer)
        else:
            draw_plan(canvas, view, layer)
    draw_ego(canvas, view)
    draw_legend(canvas, [entry for layer in layers for entry in layer.legend()], 14.0, view.height - 14.0)
    return canvas.finish()


def _map_picture(classes: NDArray[Any], cell: float, view: View) -> Picture:
    """Cells of a map in the window; white where the map does not reach or nobody knows."""
    colors = CLASS_COLORS[np.maximum(classes, 0)]
    colors[classes < 0] = palette.PAPER
    columns, step = classes.shape[1], cell * view.scale
    # From the middle of a cell to the middle of a pixel; the ego is below row 0, between the middle columns.
    to_window = np.array(
        [
            [-step, 0.0, view.width / 2.0 + (columns / 2.0 - 0.5) * step - 0.5],
            [0.0, -step, view.ahead * view.scale - 0.5 * step - 0.5],
        ]
    )
    picture = cv2.warpAffine(
        colors, to_window, (view.width, view.height),
        flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=palette.PAPER,
    )  # fmt: skip
    return np.asarray(picture, dtype=np.uint8)
