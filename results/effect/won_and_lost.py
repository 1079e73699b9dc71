"""Scenes that the recipe wins and loses: ``python results/effect/won_and_lost.py WORLD POOL ...``.

``--without`` and ``--with`` are what ``beyonddrive test --plans`` and ``--out`` wrote for the test split of
``WORLD``; ``POOL`` holds the split's scored proposals. Scenes are sorted by the difference of their PDMS,
then by token. ``docs/pictures/won_and_lost.jpg`` shows the first scenes of either end from above: the human's
plan (green), the planner's (blue), what it fails, and the nearest failure of the pool, as a fine line in the
colour of what it fails. The numbers of scenes that differ by a half or more are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.files import write_atomically
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.results.effect.pool_failures import pool_failures
from beyonddrive.results.pictures import PICTURES
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.failures import judge
from beyonddrive.visualization.layers import PlanLayer, View
from beyonddrive.visualization.scene_choice import read_plans
from beyonddrive.visualization.tables import read_results

PICTURE = PICTURES / "won_and_lost.jpg"
SHOWN = 3
"""Scenes of either end."""
SIZE = 480
"""Width and height of a view [pixel]."""
HALF = 0.5
"""Difference of PDMS from which a scene counts as won or lost."""


def by_difference(without: Mapping[str, float], with_: Mapping[str, float]) -> list[str]:
    """Tokens, those that lose most first.

    >>> by_difference({"a": 0.5, "b": 1.0, "c": 0.0}, {"a": 0.5, "b": 0.0, "c": 1.0})
    ['b', 'a', 'c']
    """
    return sorted(without, key=lambda token: (with_[token] - without[token], token))


def views(
    scene: Scene, root: NavsimRoot, plans: Mapping[str, NDArray[np.float64]], failure: NDArray[np.float64]
) -> list[NDArray[np.uint8]]:
    """The scene from above with each plan (1, 8, 3), all through the same window."""
    nuplan_map = root.map(scene.map_location)
    cache = build_metric_cache(scene, nuplan_map)

    def layer(name: str, some: NDArray[np.float64], role: str) -> PlanLayer:
        return PlanLayer(name, some, role, verdicts=judge(score(cache, some), cache))  # type: ignore[arg-type]

    human = layer("human", scene.expert_plan[None], "expert")
    near = layer("nearest failure", failure[None], "proposals")
    chosen = [layer(name, plan, "plan") for name, plan in plans.items()]
    view = View.fit([one.plans for one in (human, near, *chosen)], SIZE, SIZE)
    return [
        draw_bev(scene, nuplan_map, [near, human, one], view, cache.centerline, legend=False)
        for one in chosen
    ]


def main() -> None:
    """Choose, draw and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world", type=Path, metavar="WORLD")
    parser.add_argument("pool", type=Path, metavar="POOL")
    for name in ("without", "with"):
        parser.add_argument(f"--{name}", nargs=2, type=Path, required=True, metavar=("PLANS", "CSV"))
    args = vars(parser.parse_args())
    names = {"without": "without negatives", "with": "published recipe"}
    scores = {
        key: {token: float(row[-1]) for token, row in read_results(key, args[key][1]).values.items()}
        for key in names
    }
    plans = {key: read_plans(args[key][0]) for key in names}
    order = by_difference(scores["without"], scores["with"])
    change = np.array([scores["with"][token] - scores["without"][token] for token in order])
    print(f"{(change >= HALF).sum()} of {len(order)} scenes won, {(change <= -HALF).sum()} lost")

    pool = pool_failures(args["pool"])
    place = {token: index for index, token in enumerate(pool.tokens)}
    shown = [*order[: -SHOWN - 1 : -1], *order[:SHOWN]]
    root = NavsimRoot(args["world"])
    scenes = {scene.token: scene for scene in root.scenes("test", SceneFilter(tokens=shown))}
    figure = Figure(figsize=(2.6 * len(shown), 5.7), layout="constrained")
    for column, token in enumerate(shown):
        failure = pool.failures[place[token]].astype(np.float64)
        pictures = views(scenes[token], root, {names[key]: plans[key][token] for key in names}, failure)
        for row, (key, picture) in enumerate(zip(names, pictures, strict=True)):
            axes = figure.add_subplot(2, len(shown), row * len(shown) + column + 1)
            axes.imshow(picture)
            axes.set_axis_off()
            end = f"{'won' if column < SHOWN else 'lost'}, " if row == 0 else ""
            axes.set_title(f"{end}{names[key]}: {100 * scores[key][token]:.0f}", fontsize=8)
    file = BytesIO()
    figure.savefig(file, format="jpg", dpi=130, pil_kwargs={"quality": 80, "optimize": True})
    write_atomically(PICTURE, file.getvalue())


if __name__ == "__main__":
    main()
