"""Draw the pictures of docs/pdm_score.md: ``python docs/pictures/draw_pdm_score.py [FOLDER]``.

Every scene is made of a few arrays, every plan loses points in one way. The same bytes on every run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.evaluation.pdm import Explanation, MetricCache, explain, metric_cache_from_arrays
from beyonddrive.evaluation.pdm.explain.contact import COMFORT_LIMITS
from beyonddrive.evaluation.pdm.kernels.comfort import COMFORT_BOUNDS, comfort_signals
from beyonddrive.visualization import palette
from beyonddrive.visualization.canvas import Canvas, Picture
from beyonddrive.visualization.explained import CAPTION, draw_explained
from beyonddrive.visualization.panel import save_png

TIMES = 0.5 * np.arange(1, 9)
RIGHT = [(-30, -2), (130, -2), (130, 2), (-30, 2)]
LEFT = [(-30, 2), (130, 2), (130, 6), (-30, 6)]
JUNCTION = [(18, -2), (36, -2), (36, 6), (18, 6)]


Agent = tuple[str, float, float, float, float]


def scene(speed: float, agents: Sequence[Agent] = (), **more: Any) -> MetricCache:
    """A straight road with the route in its right lane; agents are class, x, y, heading, speed."""
    start = np.array([agent[1:4] for agent in agents], dtype=np.float64).reshape(-1, 3)
    pace = np.array([agent[4] for agent in agents])
    direction = np.stack([np.cos(start[:, 2]), np.sin(start[:, 2])], axis=-1)
    poses = np.repeat(start[None], 11, axis=0)
    poses[..., :2] += 0.5 * np.arange(11)[:, None, None] * pace[:, None] * direction
    sizes = {"vehicle": (4.6, 1.9), "pedestrian": (0.7, 0.7), "traffic_cone": (0.5, 0.5)}
    arguments: dict[str, Any] = {
        "ego": [0, 0, 0, speed, 0, 0, 0],
        "centerline": [(-30, 0), (130, 0)],
        "lanes": [RIGHT, LEFT],
        "on_route": [True, False],
        "agent_poses": poses,
        "agent_sizes": np.array([sizes[agent[0]] for agent in agents]).reshape(-1, 2),
        "agent_types": [agent[0] for agent in agents],
        "history": [[-speed * t, 0, 0, speed, 0, 0, 0] for t in (1.5, 1.0, 0.5)],
        "human": plan(speed, pull=-speed / 3)[0],
    }
    return metric_cache_from_arrays(**(arguments | more))


def plan(speed: float, side: float = 0.0, pull: float = 0.0, start: float = 0.0) -> np.ndarray:
    """Along the road at a speed that ``pull`` changes, ``side`` metres to the left from ``start`` on."""
    x = np.maximum.accumulate(speed * TIMES + 0.5 * pull * TIMES**2)
    share = np.clip((TIMES - start) / 2.0, 0.0, 1.0)
    y = side * share**2 * (3 - 2 * share)
    heading = np.arctan2(np.gradient(y, TIMES), np.maximum(np.gradient(x, TIMES), 0.5))
    return np.stack([x, y, heading], axis=-1)[None]


def why(cache: MetricCache, plans: np.ndarray, version: str = "v1") -> Explanation:
    """The explanation of one plan."""
    return explain(cache, plans, version=version)[0]  # type: ignore[arg-type]


def picture(cache: MetricCache, plans: np.ndarray, column: str, version: str = "v1") -> Picture:
    """A plan from above with one of its failures."""
    return draw_explained(cache, why(cache, plans, version), column)


def comfort_chart(cache: MetricCache, plans: np.ndarray) -> Picture:
    """The six signals of comfort over time, each between its limits."""
    explanation = why(cache, plans)
    signals = np.empty((8, 41))
    comfort_signals(np.ascontiguousarray(explanation.states), signals)
    width, row = 720, 52.0
    canvas = Canvas(width, round(6 * row + CAPTION), palette.PAPER)
    for k, (name, (low, high)) in enumerate(zip(COMFORT_BOUNDS, COMFORT_LIMITS, strict=True)):
        top, left, right = k * row, 215.0, width - 20.0
        broken = any(failure.bound == name for failure in explanation.of("C"))
        color = palette.FAILURES["C"] if broken else palette.PASS
        reach = 1.25 * max(high, -low, np.abs(signals[k]).max())
        rows = [top + row * (0.5 - 0.46 * value / reach) for value in (high, low, 0.0)]
        canvas.rectangle(left, rows[0], right - left, rows[1] - rows[0], palette.SHADE)
        for y in rows[:2]:
            canvas.stroke([[(left, y), (right, y)]], palette.ROAD_EDGE, 1.0, dash=(5.0, 4.0))
        xs = np.linspace(left, right, 41)
        ys = top + row * (0.5 - 0.46 * signals[k] / reach)
        canvas.stroke([np.column_stack([xs, ys])], color, 2.5)
        canvas.text(12.0, top + 0.5 * row, name, 14, color, bold=broken, anchor="lm")
    words = f"C: {explanation.of('C')[0].words}"
    canvas.text(10.0, 6 * row + 0.5 * CAPTION, words, 14, palette.FAILURES["C"], bold=True, anchor="lm")
    return canvas.finish()


def pictures() -> dict[str, Picture]:
    """All pictures by the name of their file."""
    standing = [("vehicle", 32.0, 0.3, 0.0, 0.0), ("vehicle", 25.0, 4.0, np.pi, 6.0)]
    slow = [("vehicle", 10.5, 0.0, 0.0, 6.5), ("pedestrian", 30.0, -4.0, np.pi / 2, 0.0)]
    junction: dict[str, Any] = {"intersections": [JUNCTION], "red_lights": [JUNCTION]}
    return {
        "nc": picture(scene(9.0, standing), plan(9.0), "NC"),
        "dac": picture(scene(8.0), plan(8.0, side=-2.6, start=0.5), "DAC"),
        "ttc": picture(scene(9.0, slow), plan(9.0, pull=-0.85), "TTC"),
        "c": comfort_chart(scene(12.0), plan(12.0, pull=-5.0)),
        "ep": picture(scene(9.0), plan(9.0, pull=-2.1), "EP"),
        "ddc": picture(scene(9.0), plan(9.0, side=4.0), "DDC"),
        "tlc": picture(scene(6.0, **junction), plan(6.0), "TLC", "v2"),
        "lk": picture(scene(9.0), plan(9.0, side=1.0), "LK", "v2"),
    }


def main(folder: Path) -> None:
    """Write all pictures."""
    for name, image in pictures().items():
        save_png(folder / f"pdm_score_{name}.png", image)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
