"""How scores in open and in closed loop relate: ``python results/closed_loop/relate.py``.

Every training that is in both tables, ``effect/planners`` (PDMS on the test split) and
``closed_loop/planners`` (HD-Score of all scenarios), is a point of ``docs/pictures/open_closed.png``;
``relation.csv`` gets their rank correlation (Spearman) over trainings, and over the means of the rows.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from beyonddrive.engine.files import write_atomically
from beyonddrive.results.tables import KeptTable

HERE = Path(__file__).parent
PICTURE = HERE.parents[1] / "docs" / "pictures" / "open_closed.png"


def main() -> None:
    """Relate."""
    opened = KeptTable("effect/planners").scores("test")
    closed = KeptTable("closed_loop/planners").scores("all")
    points: dict[str, list[tuple[float, float]]] = {}
    for row in closed.rows:
        for seed in sorted(set(closed.seeds(row)) & set(opened.seeds(row) if row in opened.rows else ())):
            pair = (opened.of(row, "PDMS", [seed]).mean(), closed.of(row, "HD-Score", [seed]).mean())
            points.setdefault(row, []).append((float(pair[0]), float(pair[1])))
    every = np.array([pair for pairs in points.values() for pair in pairs])
    means = np.array([np.mean(pairs, axis=0) for pairs in points.values()])
    figure = Figure((5.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for row, pairs in points.items():
        axes.plot(*np.transpose(pairs), "o", label=row)
    axes.set(xlabel="PDMS, open loop", ylabel="HD-Score, closed loop")
    axes.legend()
    figure.savefig(PICTURE, dpi=110)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "points", "rank correlation"])
    for name, values in (("trainings", every), ("rows", means)):
        writer.writerow([name, len(values), f"{spearmanr(*values.T).statistic:+.2f}"])
    write_atomically(HERE / "relation.csv", text.getvalue().encode())
    print(text.getvalue())


if __name__ == "__main__":
    main()
