"""Scenes that the recipe wins and loses: ``python results/effect/won_and_lost.py WORLD POOL ...``.

``--without`` and ``--with`` are what ``beyonddrive test --plans`` and ``--out`` wrote for the test split of
``WORLD``; ``POOL`` holds the split's scored proposals. Scenes are sorted by the difference of their PDMS,
then by token. ``docs/pictures/won_and_lost.jpg`` shows the first scenes of either end from above: the human's
plan (green), the planner's (blue), what it fails, and the nearest failure of the pool, as a fine line in the
colour of what it fails. The scores are kept in ``won_and_lost/``; ``won_and_lost.csv`` gets the numbers of
scenes that differ by half of the score or more, and the tokens of those that are shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.environment import MADE_WITH
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.text_tables import csv_text
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.evaluation.plan_files import PlanFile
from beyonddrive.evaluation.score_results import read_results
from beyonddrive.evaluation.statistics.score_table import RunKey, read_table, table_of, write_table
from beyonddrive.results.effect.pool_failures import pool_failures
from beyonddrive.results.pictures import PICTURES, write_picture
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.failures import judge
from beyonddrive.visualization.layers import PlanLayer, View
from beyonddrive.visualization.tables import summarise

KEPT = Path(__file__).with_suffix("")
"""Where the scores are."""
TABLE = KEPT.with_suffix(".csv")
PICTURE = PICTURES / "won_and_lost.jpg"
ROWS = ("LTF", "LTF, published")
"""Rows of the scores: without and with the recipe."""
NAMES = ("without negatives", "published recipe")
"""The same, as the picture has them."""
SHOWN = 3
"""Scenes of either end."""
SIZE = 480
"""Width and height of a view [pixel]."""
HALF = 50.0
"""Difference of PDMS from which a scene counts as won or lost [points]."""


Scores = Mapping[str, tuple[float, float]]
"""PDMS [%] of a scene without and with the recipe, by token."""


def keep(*files: Path) -> None:
    """Keep the PDMS of the scenes, which ``beyonddrive test --out`` has written for each of :data:`ROWS`.

    What it was made with, which stands beside such a file, is kept, too.

    Raises:
        ResultsError: If a file is damaged, or they do not compare.
        StatisticsError: If they are of other scenes.
    """
    read = [read_results(row, path) for row, path in zip(ROWS, files, strict=True)]
    summarise(read, common_scenes=True)  # (refuses another score or basis; the same scenes are asked below)
    scores = {
        RunKey(results.label, 0): {token: values[-1:] for token, values in results.values.items()}
        for results in read
    }
    write_table(KEPT, "test", table_of(scores, read[0].kind.columns[-1:], read[0].scored))
    made = {
        row: json.loads(Path(f"{path}{MADE_WITH}").read_text()) for row, path in zip(ROWS, files, strict=True)
    }
    write_atomically(KEPT / "made_with.json", (json.dumps(made, indent=1) + "\n").encode())


def kept() -> Scores:
    """The scores that are kept."""
    found = read_table(KEPT, "test")
    without, with_ = (found.of(row, found.columns[-1])[0].tolist() for row in ROWS)
    return dict(zip(found.tokens, zip(without, with_, strict=True), strict=True))


def by_difference(scores: Scores) -> dict[str, list[str]]:
    """Tokens of the scenes that are won and lost by :data:`HALF` or more, those that differ most first.

    >>> by_difference({"a": (0.0, 60.0), "b": (90.0, 0.0), "c": (0.0, 49.0), "d": (0.0, 100.0)})
    {'won': ['d', 'a'], 'lost': ['b']}
    """
    change = {token: round(with_ - without, 3) for token, (without, with_) in scores.items()}
    order = sorted(change, key=lambda token: (change[token], token))
    return {
        "won": [token for token in reversed(order) if change[token] >= HALF],
        "lost": [token for token in order if change[token] <= -HALF],
    }


def table() -> str:
    """What ``won_and_lost.csv`` has to hold: numbers of scenes, and tokens of those that are shown."""
    scores = kept()
    lines = [{"row": "all", "scenes": f"{len(scores):,}", "shown": ""}]
    for row, tokens in by_difference(scores).items():
        lines.append({"row": row, "scenes": f"{len(tokens):,}", "shown": " ".join(tokens[:SHOWN])})
    return csv_text(lines)


def current() -> dict[str, dict[str, tuple[float, float]]]:
    """What the picture has to show: the scores of the first scenes of either end, by token."""
    scores = kept()
    return {
        row: {token: scores[token] for token in tokens[:SHOWN]}
        for row, tokens in by_difference(scores).items()
    }


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
    """Keep the scores, choose and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world", type=Path, metavar="WORLD")
    parser.add_argument("pool", type=Path, metavar="POOL")
    for name in ("without", "with"):
        parser.add_argument(f"--{name}", nargs=2, type=Path, required=True, metavar=("PLANS", "CSV"))
    args = vars(parser.parse_args())
    keep(args["without"][1], args["with"][1])
    write_atomically(TABLE, table().encode())
    print(TABLE.read_text())

    plans = dict(zip(NAMES, (PlanFile(args[key][0]) for key in ("without", "with")), strict=True))
    pool = pool_failures(args["pool"])
    place = {token: index for index, token in enumerate(pool.tokens)}
    shown = current()
    tokens = [token for scores in shown.values() for token in scores]
    root = NavsimRoot(args["world"])
    scenes = {scene.token: scene for scene in root.scenes("test", SceneFilter(tokens=tokens))}
    figure = Figure(figsize=(2.6 * len(tokens), 5.7), layout="constrained")
    columns = [(end, token, pair) for end, scores in shown.items() for token, pair in scores.items()]
    for column, (end, token, pair) in enumerate(columns):
        failure = pool.failures[place[token]].astype(np.float64)
        pictures = views(scenes[token], root, {name: plans[name][token] for name in NAMES}, failure)
        for row, (name, picture) in enumerate(zip(NAMES, pictures, strict=True)):
            axes = figure.add_subplot(len(NAMES), len(tokens), row * len(tokens) + column + 1)
            axes.imshow(picture)
            axes.set_axis_off()
            axes.set_title(f"{'' if row else f'{end}, '}{name}: {pair[row]:.0f}", fontsize=8)
    write_picture(PICTURE, figure, shown)


if __name__ == "__main__":
    main()
