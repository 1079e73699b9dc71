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
from beyonddrive.results.row_files import add_rows, read_rows
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
    if len(names) < 2:
        raise SystemExit("error: all scenes are of one town, which says nothing about how towns differ")
    sums = np.bincount(places, weights=values - values.mean())
    return float(np.sqrt(len(names) / (len(names) - 1) * (sums**2).sum()) / len(values))


def apart_by_scene(table: ScoreTable, row: str, baseline: str) -> NDArray[np.float64]:
    """Paired difference (T,) of a row from its baseline, over the seeds that both have."""
    score = table.columns[-1]
    ours, theirs = paired_seeds(table, row, baseline)
    apart = difference_of(table.of(row, score, ours), table.of(baseline, score, theirs))
    by_scene: NDArray[np.float64] = apart.mean(axis=0)
    return by_scene


def compared(kept: KeptTable) -> dict[str, tuple[str, str]]:
    """Rows that are compared on :data:`PART`, and their baselines, by the names of ``towns.csv``."""
    table = kept.scores(PART)
    return {
        f"{kept.name.partition('/')[2]}: {row.name}": (row.name, row.baseline)
        for row in kept.plan.rows
        if row.baseline is not None and paired_seeds(table, row.name, row.baseline)[0]
    }


def check_towns() -> list[str]:
    """Rows of ``towns.csv`` that are not of the runs that are kept now, by their errors over scenes."""
    wanted = {}
    for name in TABLES:
        kept = KeptTable(name)
        table = kept.scores(PART)
        for key, (row, baseline) in compared(kept).items():
            wanted[key] = baseline, f"{stats.sem(apart_by_scene(table, row, baseline)):.2f}"
    found = {line["row"]: (line[COLUMNS[0]], line[COLUMNS[1]]) for line in read_rows(OUT) if line[COLUMNS[0]]}
    stale = [key for key in dict.fromkeys([*wanted, *found]) if wanted.get(key) != found.get(key)]
    remedy = "run results/effect/towns.py with the world of the test split"
    return [f"{OUT.name}: '{key}' is of other runs than are kept; {remedy}" for key in stale]


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
        for key, (row, baseline) in compared(kept).items():
            apart = apart_by_scene(table, row, baseline)
            scenes, over = float(stats.sem(apart)), error_over_towns(apart, towns)
            ratios.append(over / scenes)
            found = (baseline, *(f"{value:.2f}" for value in (scenes, over, over / scenes)))
            rows[key] = dict(zip(COLUMNS, found, strict=True))
        counts = (len(towns), len(np.unique(towns)))
    rows[NUMBER] = dict(zip(COLUMNS, ("", *map(str, counts), ""), strict=True))
    for name, ratio in zip(("least", "median", "most"), np.quantile(ratios, (0.0, 0.5, 1.0)), strict=True):
        rows[name] = dict(zip(COLUMNS, ("", "", "", f"{ratio:.2f}"), strict=True))
    OUT.unlink(missing_ok=True)
    print(add_rows(OUT, rows))


if __name__ == "__main__":
    main()
