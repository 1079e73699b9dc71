"""How scores in open and in closed loop relate: ``python results/closed_loop/relate.py``.

Every training that is in both tables, ``effect/planners`` (PDMS on the test split) and
``closed_loop/planners`` (HD-Score of all scenarios), is a point of ``docs/pictures/open_closed.png``;
``relation.csv`` gets their rank correlation (Spearman) over trainings, and over the means of the rows, each
with a bootstrap interval as if its points were drawn independently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import bootstrap, spearmanr

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.text_tables import csv_text
from beyonddrive.results.pictures import PICTURES, write_picture
from beyonddrive.results.tables import KeptTable
from beyonddrive.visualization.sweep_tables import interval_text

TABLE = Path(__file__).with_name("relation.csv")
PICTURE = PICTURES / "open_closed.png"

RECIPE = ", published"
"""How the row of a planner with the recipe is called."""
FEWEST = 6
"""Points of which a bootstrap draws hardly ever one alone, which has no correlation."""
_RESAMPLES = 2000

Points = dict[str, list[tuple[float, float]]]
"""PDMS and HD-Score of the trainings of each row."""


def current() -> Points:
    """What the picture has to show."""
    opened = KeptTable("effect/planners").scores("test")
    closed = KeptTable("closed_loop/planners").scores("all")
    points: Points = {}
    for row in closed.rows:
        for seed in sorted(set(closed.seeds(row)) & set(opened.seeds(row) if row in opened.rows else ())):
            pair = (opened.of(row, "PDMS", [seed]).mean(), closed.of(row, "HD-Score", [seed]).mean())
            points.setdefault(row, []).append((float(pair[0]), float(pair[1])))
    return points


def relation(points: Points) -> str:
    """Rank correlations over trainings, and over the means of rows, as csv."""
    every = np.array([pair for pairs in points.values() for pair in pairs])
    means = np.array([np.mean(pairs, axis=0) for pairs in points.values()])
    return csv_text(
        [
            {
                "row": name,
                "points": len(v),
                "rank correlation": f"{spearmanr(*v.T).statistic:+.2f}",
                "95 %": _interval(v),
            }
            for name, v in (("trainings", every), ("rows", means))
        ]
    )


def table() -> str:
    """What ``relation.csv`` has to hold."""
    return relation(current())


def _interval(pairs: NDArray[np.float64]) -> str:
    """Of the rank correlation of points (N, 2); nothing of fewer than :data:`FEWEST`."""
    if len(pairs) < FEWEST:
        return ""
    found = bootstrap(
        tuple(pairs.T),
        lambda x, y: spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return interval_text((found.low, found.high))


def drawn(points: Points) -> Figure:
    """The picture: a colour per planner, an arrow-head where it has the recipe."""
    figure = Figure((6.6, 3.8), layout="constrained")
    axes = figure.subplots()
    planners = list(dict.fromkeys(row.removesuffix(RECIPE) for row in points))
    for row, pairs in points.items():
        colour = f"C{planners.index(row.removesuffix(RECIPE))}"
        marker = "^" if row.endswith(RECIPE) else "o"
        axes.plot(*np.transpose(pairs), marker, color=colour, label=row, alpha=0.8)
    axes.set(xlabel="PDMS, open loop", ylabel="HD-Score, closed loop")
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def main() -> None:
    """Relate."""
    points = current()
    write_picture(PICTURE, drawn(points), points)
    text = relation(points)
    write_atomically(TABLE, text.encode())
    print(text)


if __name__ == "__main__":
    main()
