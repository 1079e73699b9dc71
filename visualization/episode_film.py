"""A closed-loop episode as an animation: the front camera beside the bird's-eye view, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.engine.files import atomic_file
from beyonddrive.structures.frame import PLANNER, CameraView
from beyonddrive.structures.plan import check_plans
from beyonddrive.visualization import palette
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.canvas import Canvas, Picture
from beyonddrive.visualization.layers import PlanLayer, View

if TYPE_CHECKING:
    from beyonddrive.datasets.maps.nuplan_map import NuPlanMap

HEIGHT = 360
"""Of the film [px]."""
BEV = View(360, 360, 42.0, 14.0)
CAPTION = 46
"""Height of the lines below the pictures [px]."""
STEP_MS = 250
"""Each step is shown as long as it took."""
_WIDTH = 1.2
"""Of the plan on the road, in the camera's picture [m]."""
_NEAR = 3.5
"""The bonnet hides what is nearer than this to the rear axle [m]."""


def draw_step(row: Mapping[str, Any], nuplan_map: NuPlanMap, lines: Sequence[str]) -> Picture:
    """One picture of a film.

    Args:
        row: ``frame`` as a log has it, ``view`` of the front camera, ``plan`` (8, 3) or None for none,
            ``source`` of the plan.
        nuplan_map: The map.
        lines: Up to two lines below the pictures.
    """
    scene = Scene(row["frame"]["log_name"], "closed-loop", [row["frame"]] * HISTORY)
    color = palette.PREDICTION if row["source"] == PLANNER else palette.EXPERT
    plan, layers = None, []
    if row["plan"] is not None:
        (plan,) = plans = check_plans(np.asarray(row["plan"], dtype=np.float64)[None], "plan")
        layers = [PlanLayer("plan", plans, "plan", color)]
    above = draw_bev(scene, nuplan_map, layers, BEV, legend=False)
    ahead = _draw_ahead(row["view"], plan, color)
    width = BEV.width + ahead.shape[1]
    canvas = Canvas(width, HEIGHT + CAPTION, (255, 255, 255))
    for i, line in enumerate(lines[:2]):
        canvas.text(10.0, HEIGHT + 8.0 + 18.0 * i, line, 13)
    picture = canvas.finish()
    picture[:HEIGHT, : ahead.shape[1]] = ahead
    picture[:HEIGHT, ahead.shape[1] :] = above
    return picture


def _draw_ahead(view: CameraView, plan: NDArray[np.float64] | None, color: palette.Color) -> Picture:
    """The camera's picture with the plan, if there is one, as a strip on the road."""
    height, width = view.image.shape[:2]
    scale = HEIGHT / height
    image = np.asarray(Image.fromarray(view.image).resize((round(width * scale), HEIGHT)))
    if plan is None:
        return image
    canvas = Canvas(image.shape[1], HEIGHT, image)
    way = np.vstack([[0.0, 0.0, 0.0], plan])
    dense = np.linspace(0.0, len(way) - 1.0, 65)
    x, y = (np.interp(dense, np.arange(len(way)), way[:, axis]) for axis in (0, 1))
    yaw = np.arctan2(np.gradient(y), np.maximum(np.gradient(x), 1e-3))
    edges = []
    for side in (0.5 * _WIDTH, -0.5 * _WIDTH):
        points = np.column_stack([x - side * np.sin(yaw), y + side * np.cos(yaw), np.zeros(len(x))])
        points = points[points[:, 0] > _NEAR]
        pixels = view.lens.project((points - view.translation) @ view.rotation)
        edges.append(scale * pixels[np.isfinite(pixels).all(axis=1)])
    outline = np.concatenate([edges[0], edges[1][::-1]])
    if len(outline) > 3:
        canvas.fill([outline], color, alpha=0.45)
    return canvas.finish()


def write_film(path: Path, pictures: Sequence[Picture]) -> None:
    """Write pictures as an animated WebP, which appears only when it is complete."""
    images = [Image.fromarray(picture) for picture in pictures]
    with atomic_file(path, sync=False) as file:
        images[0].save(
            file,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=STEP_MS,
            quality=60,
            method=2,
            loop=0,
        )
