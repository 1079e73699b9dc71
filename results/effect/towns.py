"""How much the scenes of one town have in common: ``python results/effect/towns.py WORLD``.

Intervals take scenes for independent of each other, and the test split has many of each of its towns.
``towns.csv`` gets, by row and baseline of ``planners.yml`` and ``controls.yml``, the standard error of the
mean difference over scenes, the one over towns (clusters of unequal size, as surveys have them), and their
ratio: 1 if the scenes of a town are no more alike than others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from beyonddrive.datasets.navsim.logs import read_log
from beyonddrive.evaluation.statistics.intervals import difference_of
from beyonddrive.evaluation.statistics.score_table import ScoreTable
from beyonddrive.results.row_files import add_rows
from beyonddrive.results.tables import KeptTable
from beyonddrive.visualization.sweep_tables import paired_seeds

OUT = Path(__file__).parent / "towns.csv"
TABLES = ("effect/planners", "effect/controls")
PART = "test"
COLUMNS = ("baseline", "over scenes", "over towns", "ratio")
NUMBER = "number"
"""Row with how many scenes and towns there are; those after it have the least, median and largest ratio."""


def town_of(log_name: str) -> str:
    """The town of a log of a generated world.

    >>> town_of("synth-test-000-5c74e2_0012")
    'synth-test-000-5c74e2'
    """
    return log_name.rpartition("_")[0]


def error_over_towns(values: NDArray[np.float64], towns: NDArray[np.str_]) -> float:
    """Standard error of the mean of values (T,) whose clusters are the towns (T,)."""
    names, places = np.unique(towns, return_inverse=True)
    sums = np.bincount(places, weights=values - values.mean())
    return float(np.sqrt(len(names) / (len(names) - 1) * (sums**2).sum()) / len(values))


def errors_of(table: ScoreTable, row: str, baseline: str, towns: NDArray[np.str_]) -> tuple[float, float]:
    """Standard errors of a difference over scenes and over towns."""
    score = table.columns[-1]
    ours, theirs = paired_seeds(table, row, baseline)
    apart = difference_of(table.of(row, score, ours), table.of(baseline, score, theirs))
    by_scene = apart.mean(axis=0)
    return float(stats.sem(by_scene)), error_over_towns(by_scene, towns)


def main() -> None:
    """Measure, and write ``towns.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world", type=Path, metavar="WORLD")
    logs = parser.parse_args().world / "navsim_logs" / PART
    town = {
        str(frame["token"]): town_of(path.stem)
        for path in sorted(logs.glob("*.pkl"))
        for frame in read_log(path)
    }
    rows, ratios = {}, []
    for name in TABLES:
        kept = KeptTable(name)
        table = kept.scores(PART)
        towns = np.array([town[token] for token in table.tokens])
        for row in kept.plan.rows:
            if row.baseline is None or not paired_seeds(table, row.name, row.baseline)[0]:
                continue
            scenes, over = errors_of(table, row.name, row.baseline, towns)
            ratios.append(over / scenes)
            found = (row.baseline, *(f"{value:.2f}" for value in (scenes, over, over / scenes)))
            rows[f"{name.partition('/')[2]}: {row.name}"] = dict(zip(COLUMNS, found, strict=True))
        counts = (len(towns), len(np.unique(towns)))
    rows[NUMBER] = dict(zip(COLUMNS, ("", *map(str, counts), ""), strict=True))
    for name, ratio in zip(("least", "median", "most"), np.quantile(ratios, (0.0, 0.5, 1.0)), strict=True):
        rows[name] = dict(zip(COLUMNS, ("", "", "", f"{ratio:.2f}"), strict=True))
    OUT.unlink(missing_ok=True)
    print(add_rows(OUT, rows))


if __name__ == "__main__":
    main()
