"""Adds the runs of a sweep to a table that is kept: ``python results/keep.py SWEEP effect/planners``.

``SWEEP`` is the folder of ``beyonddrive sweep --plan results/effect/planners.yml --out SWEEP``, where the
sweep may still be at work: complete runs are taken, with the seeds that they have. A run of the table that
was made from another recipe is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from beyonddrive.engine.sweeps.records import CHECKPOINT_DIGEST, RECORD
from beyonddrive.engine.sweeps.runs import Finished, Outcome, Run
from beyonddrive.evaluation.statistics.score_table import RunKey
from beyonddrive.results.tables import KeptTable
from beyonddrive.visualization.sweep_report import collect


def finished_runs(sweep: Path, table: KeptTable) -> dict[RunKey, tuple[Finished, dict[str, Any]]]:
    """Complete runs of a sweep with their records."""
    found = {}
    for row in table.plan.rows:
        for path in sorted((sweep / "runs" / row.slug).glob(f"*/{RECORD}")):
            told = json.loads(path.read_text())
            is_trained = told["checkpoint"] is not None
            seed = told["seed"] if is_trained else 0
            run = Run(
                row.name, seed, told["config"], told["options"], path.parent, told["recipe"],
                is_trained, tuple(told["loaders"]), told["checkpoint_rule"], 1,
                further=table.plan.further,
            )  # fmt: skip
            outcome = Outcome(row.name, seed, run.folder, told["seconds"], told["checkpoint"])
            told["date"] = time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime))
            found[RunKey(row.name, seed)] = Finished(run, outcome), told
    return found


def main() -> int:
    """Keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    parser.add_argument("table", help="plan below results/, without the ending")
    args = parser.parse_args()
    table = KeptTable(args.table)
    found = finished_runs(args.sweep, table)
    if not found:
        raise SystemExit(f"keep: {args.sweep}: no complete run of {args.table}.yml")
    made = table.made_with()
    for key, (_, told) in found.items():
        name = f"{key.row}/{key.seed}"
        origin = {part: told.get(part) for part in ("recipe", "weights")}
        if name in made and any(
            made[name].get(part, origin[part]) != value for part, value in origin.items()
        ):
            raise SystemExit(
                f"keep: {name}: the table has it from another recipe or other weights; take it out first"
            )
        keys = ("recipe", "config", "checkpoint_rule", "checkpoint", "date", "seconds", "made_with")
        made[name] = {part: told[part] for part in keys}
        if origin["weights"] is not None:
            made[name]["weights"] = origin["weights"]
        if told.get(CHECKPOINT_DIGEST) is not None:
            made[name][CHECKPOINT_DIGEST] = told[CHECKPOINT_DIGEST]
    table.write(collect(table.plan, [run for run, _ in found.values()]), made)
    print(f"{args.table}: {len(made)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
