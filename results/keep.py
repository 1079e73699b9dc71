"""Adds the runs of a sweep to a table that is kept: ``python results/keep.py SWEEP effect/planners``.

``SWEEP`` is the folder of ``beyonddrive sweep --plan results/effect/planners.yml --out SWEEP``, where the
sweep may still be at work: complete runs are taken, with the seeds that they have. A run of the table that
was made from another recipe is refused.

``SWEEP`` may also be a table that is kept, such as ``effect/planners``: rows that both plans have, with the
same config and options, are taken from there, so that a training that two tables show is made once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from beyonddrive.engine.sweeps.records import CHECKPOINT_DIGEST, RECORD
from beyonddrive.engine.sweeps.runs import Finished, Outcome, Run
from beyonddrive.evaluation.statistics.score_table import RunKey, ScoreTable
from beyonddrive.results.tables import RESULTS, KeptTable
from beyonddrive.visualization.sweep_report import collect, parts_of, subset_parts


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


def origin_of(told: dict[str, Any]) -> dict[str, Any]:
    """What a table keeps of the record of a run."""
    keys = ("recipe", "config", "checkpoint_rule", "checkpoint", "date", "seconds", "made_with")
    optional = [key for key in ("weights", CHECKPOINT_DIGEST) if told.get(key) is not None]
    return {key: told[key] for key in (*keys, *optional)}


def refuse_other_recipes(made: dict[str, Any], others: dict[str, Any]) -> None:
    """End if a run that is to be kept was made otherwise than the table's of the same row and seed."""
    for name, told in others.items():
        origin = {part: told.get(part) for part in ("recipe", "weights")}
        if name in made and any(
            made[name].get(part, origin[part]) != value for part, value in origin.items()
        ):
            raise SystemExit(
                f"keep: {name}: the table has it from another recipe or other weights; take it out first"
            )


def kept_runs(source: KeptTable, table: KeptTable) -> tuple[dict[str, ScoreTable], dict[str, Any]]:
    """Runs of a table that is kept, of the rows that another one's plan has, too.

    Returns:
        Their scores by part, and how they were made by ``row/seed``.
    """
    there = {row.name: replace(row, baseline=None) for row in source.plan.rows}
    same = {row.name for row in table.plan.rows if there.get(row.name) == replace(row, baseline=None)}
    parts = {}
    for part in source.parts:
        if part in parts_of(table.plan) and part not in subset_parts(source.plan):
            scores = source.scores(part)
            keep = [i for i, run in enumerate(scores.runs) if run.row in same]
            if keep:
                parts[part] = replace(
                    scores,
                    runs=tuple(scores.runs[i] for i in keep),
                    values=scores.values[keep],
                    untrained=scores.untrained & same,
                )
    made = {key: told for key, told in source.made_with().items() if key.rpartition("/")[0] in same}
    return parts, made


def main() -> int:
    """Keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    parser.add_argument("table", help="plan below results/, without the ending")
    args = parser.parse_args()
    table = KeptTable(args.table)
    made = table.made_with()
    if (RESULTS / f"{args.sweep}.yml").is_file():
        parts, others = kept_runs(KeptTable(str(args.sweep)), table)
        if not parts:
            raise SystemExit(f"keep: {args.sweep} has no runs of rows that are the same in {args.table}.yml")
        refuse_other_recipes(made, others)
    else:
        found = finished_runs(args.sweep, table)
        if not found:
            raise SystemExit(f"keep: {args.sweep}: no complete run of {args.table}.yml")
        others = {f"{key.row}/{key.seed}": origin_of(told) for key, (_, told) in found.items()}
        refuse_other_recipes(made, others)
        parts = collect(table.plan, [run for run, _ in found.values()])
    table.write(parts, made | others)
    print(f"{args.table}: {len(made | others)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
