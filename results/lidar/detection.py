"""Average precision of the runs of a sweep: ``python results/lidar/detection.py SWEEP lidar/planners``.

A sweep keeps the scores of plans; what ``DetectionMetric`` says of a run is in the log of its test. This
writes it to the folder of the table: ``detection_runs.csv`` has a line for each run, ``detection.csv`` mean
and standard deviation over the seeds of each row, and the differences from its baseline seed by seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.plan import Row, SweepPlan
from beyonddrive.engine.sweeps.records import RECORD
from beyonddrive.engine.text_tables import csv_text
from beyonddrive.results.tables import KeptTable

FIGURES = ("AP_vehicle", "AP_pedestrian", "mAP", "ATE_vehicle", "AOE_vehicle", "AVE_vehicle")
SHOWN = {"AP_vehicle": "vehicles", "AP_pedestrian": "pedestrians"}
"""Average precisions that ``detection.csv`` has, and how they are called there."""

Figures = dict[str, float]


def figures_of(run: Path, loader: str) -> Figures:
    """What the test of a run says of its boxes.

    Raises:
        SystemExit: If there is no such test, or it had no ``DetectionMetric``.
    """
    logs = sorted((run / loader).glob("*/*.json"))
    if not logs:
        raise SystemExit(f"detection: {run / loader}: has no log of a test; run the sweep again")
    found = json.loads(logs[-1].read_text())
    if "detection/mAP" not in found:
        raise SystemExit(f"detection: {logs[-1]}: has no detection/mAP; its config has no DetectionMetric")
    return {name: found[f"detection/{name}"] for name in FIGURES if f"detection/{name}" in found}


def runs_of(sweep: Path, plan: SweepPlan, loader: str) -> dict[tuple[str, int], Figures]:
    """Figures of all complete runs by row and seed."""
    found = {}
    for row in plan.rows:
        for record in sorted((sweep / "runs" / row.slug).glob(f"*/{RECORD}")):
            found[row.name, int(json.loads(record.read_text())["seed"])] = figures_of(record.parent, loader)
    if not found:
        raise SystemExit(f"detection: {sweep}: no complete run of the plan")
    return found


def summary(row: Row, runs: dict[tuple[str, int], Figures]) -> dict[str, str]:
    """A line of ``detection.csv``."""
    seeds = sorted(seed for name, seed in runs if name == row.name)
    line = {"row": row.name, "seeds": str(len(seeds))}
    for name, shown in SHOWN.items():
        values = np.array([runs[row.name, seed][name] for seed in seeds])
        spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        line[shown] = f"{values.mean():.1f}{spread}"
        base = {seed: figures[name] for (other, seed), figures in runs.items() if other == row.baseline}
        gains = [runs[row.name, seed][name] - base[seed] for seed in seeds if seed in base]
        line[f"{shown}, differences"] = ", ".join(f"{gain:+.1f}" for gain in gains)
    return line


def main() -> None:
    """Read the logs and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    parser.add_argument("table", help="plan below results/, without the ending")
    parser.add_argument("--loader", default="test", choices=("test", "val"))
    args = parser.parse_args()
    table = KeptTable(args.table)
    runs = runs_of(args.sweep, table.plan, args.loader)
    lines = [
        {"row": row, "seed": str(seed)} | {name: f"{figures[name]:.4f}" for name in FIGURES}
        for (row, seed), figures in runs.items()
    ]
    write_atomically(table.folder / "detection_runs.csv", csv_text(lines).encode())
    rows = [row for row in table.plan.rows if any(name == row.name for name, _ in runs)]
    text = csv_text([summary(row, runs) for row in rows])
    write_atomically(table.folder / "detection.csv", text.encode())
    print(text, end="")


if __name__ == "__main__":
    main()
