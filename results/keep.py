"""Adds the runs of a sweep to a table that is kept: ``python results/keep.py SWEEP effect/planners``.

``SWEEP`` is the folder of ``beyonddrive sweep --plan results/effect/planners.yml --out SWEEP``, where the
sweep may still be at work: complete runs are taken, with the seeds that they have; a run that judged another
checkpoint than the row of its weights has now, or that lacks scores of scenes, is named and left out. Refused
are runs of another config, other bases, options, weights or rule of checkpoints than the plan's, with another
recipe than the table has of their row, trained on other data than its other seeds, and runs of another
checkpoint that would stand beside scores of the earlier one.

With ``--made-anew`` seeds may have been trained on other data than those of their row: with what the same
commands made on another machine, say, such as a pool, which has another digest. The report names these rows.

With ``--replace`` the runs take the place of all that the table has of their rows, such as those of an
earlier recipe; refused is a sweep that has not all seeds and parts of these: the rest would stay beside them.

``SWEEP`` may also be a table that is kept, such as ``effect/planners``: rows that both plans have, with the
same config and options, are taken from there, so that a training that two tables show is made once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from beyonddrive.engine.config_files import ConfigNameError, find_config
from beyonddrive.engine.sweeps.plan import Row, SweepError, SweepPlan
from beyonddrive.engine.sweeps.records import (
    BASES,
    CHECKPOINT_DIGEST,
    DATA,
    DATE,
    RECORD,
    date_of,
    out_of_date,
)
from beyonddrive.engine.sweeps.runs import Finished, Outcome, Run, failed_scenes
from beyonddrive.evaluation.statistics.score_table import RunKey, ScoreTable
from beyonddrive.results.tables import RESULTS, KeptTable, name_of, run_of
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.visualization.sweep_report import collect, parts_of, subset_parts

PLACES = frozenset(
    {"data_root", "maps_root", "cache_root", "feature_cache", "pool_dir", "num_threads", "work_dir"}
)
"""Options that may be given beside those of a plan: where files are, and threads."""


def finished_runs(sweep: Path, table: KeptTable) -> dict[RunKey, tuple[Finished, dict[str, Any]]]:
    """Complete runs of a sweep with their records.

    Raises:
        SweepError: If a run is not what its row is in the plan.
    """
    found: dict[RunKey, tuple[Finished, dict[str, Any]]] = {}
    for row in table.plan.rows:
        for path in sorted((sweep / "runs" / row.slug).glob(f"*/{RECORD}")):
            told = json.loads(path.read_text())
            is_trained = told["checkpoint"] is not None
            seed = told["seed"] if is_trained else 0
            weights = table.plan.row(row.weights) if row.weights else None
            run = Run(
                row.name, seed, told["config"], told["options"], path.parent, told["recipe"],
                is_trained, tuple(told["loaders"]), told["checkpoint_rule"], 1,
                further=table.plan.further,
                weights=sweep / "runs" / weights.slug / path.parent.name if weights else None,
            )  # fmt: skip
            refuse_other_rows(table.plan, row, run, told)
            if stale := _stale(run, told):
                print(f"keep: {row.name}, seed {seed}: left out: {stale}", file=sys.stderr)
                continue
            failed = {judgement for judgement in run.judgements if failed_scenes(run.results(*judgement))}
            if failed:
                print(f"keep: {row.name}, seed {seed}: left out on {run.lacking()}", file=sys.stderr)
                if not any(run.is_judged(*judgement) for judgement in run.judgements):
                    continue
                run = replace(run, loaders=tuple(it for it in run.loaders if (it, "") not in failed))
            if (key := RunKey(row.name, seed)) in found:
                raise SweepError(
                    f"{run.folder / RECORD}: is of seed {seed}, as that of {found[key][0].run.folder} is; "
                    "delete the folder that is a copy"
                )
            outcome = Outcome(row.name, seed, run.folder, told["seconds"], told["checkpoint"])
            found[key] = Finished(run, outcome), {**told, DATE: date_of(run, told)}
    return found


def refuse_other_rows(plan: SweepPlan, row: Row, run: Run, told: dict[str, Any]) -> None:
    """End if a run is not what its row is in the plan, places of files aside."""
    keys = [*row.options, *sorted(run.options.keys() - row.options.keys() - PLACES)]
    compared = [(key, run.options.get(key), row.options.get(key)) for key in keys]
    compared.append(("config", _merged_by(run, told), _merged([row.config, *row.bases])))
    weights = plan.row(row.weights).slug if row.weights else None
    compared.append(("weights", told.get("weights"), weights))
    if run.is_trained:
        compared.append(("checkpoint", run.checkpoint, plan.checkpoint))
    for key, was, wanted in compared:
        if was != wanted:
            raise SweepError(
                f"{run.folder / RECORD}: was made with {key}={was or 'nothing'}, but the plan has "
                f"{wanted or 'nothing'} for row '{row.name}'; keep the sweep of this plan, or mend the plan"
            )


def _merged_by(run: Run, told: dict[str, Any]) -> str:
    """Configs that the one of a run was merged from, or that one itself.

    Where the record does not say it, the file does that lies beside the folders of the row's runs.
    """
    file = run.folder.parent / "config.py"
    if told.get(BASES):
        return _merged(told[BASES])
    if BASES in told or Path(run.config).name != file.name or not file.exists():
        return _merged([run.config])
    try:
        return _merged(json.loads(file.read_text().partition("_base_ = ")[2]))
    except ValueError as error:
        raise SweepError(f"{file}: is not as the sweep wrote it ({error})") from error


def _merged(names: Sequence[str]) -> str:
    """Configs by their places below a folder of configs, wherever that lies; by their names without one."""
    found = []
    for name in names:
        try:
            found.append(find_config(name).resolve().as_posix())
        except ConfigNameError:
            found.append(name)
    return " + ".join(file.rpartition("/configs/")[2] for file in found)


def _stale(run: Run, told: dict[str, Any]) -> str | None:
    """Why the scores of a run are not of the checkpoint that the row of its weights has now; None if so."""
    if run.weights is None or not (run.weights / RECORD).exists():
        return None
    other = json.loads((run.weights / RECORD).read_text())
    return out_of_date(replace(run, weights_recipe=other["recipe"]), told)


def origin_of(told: dict[str, Any]) -> dict[str, Any]:
    """What a table keeps of the record of a run."""
    keys = ("recipe", "config", "checkpoint_rule", "checkpoint", DATE, "seconds", "made_with")
    optional = [key for key in ("weights", CHECKPOINT_DIGEST, DATA) if told.get(key) is not None]
    return {key: told[key] for key in (*keys, *optional)}


def refuse_other_recipes(made: dict[str, Any], others: dict[str, Any], same_data: bool = True) -> None:
    """End if a run that is to be kept was made otherwise than another of its row, kept or to be kept.

    With ``same_data=False`` it may have been trained on other data. What a run does not tell, because it was
    made before it was recorded, is taken to fit.
    """
    all_of_them = {**others, **made}
    for name, told in others.items():
        for other, kept in all_of_them.items():
            if run_of(other).row != run_of(name).row:
                continue
            there = "the table has it" if other == name else f"{other} is"
            if any(part in kept and kept[part] != told.get(part) for part in ("recipe", "weights")):
                raise SystemExit(
                    f"keep: {name}: {there} from another recipe or other weights; --replace "
                    "puts the sweep in the place of the row"
                )
            if same_data and None not in (kept.get(DATA), told.get(DATA)) and kept[DATA] != told[DATA]:
                raise SystemExit(
                    f"keep: {name}: {there} trained on other data: scenes, pool or other stores have changed "
                    "between them; train all seeds of a row on the same; --replace puts them in its place, "
                    "--made-anew keeps both, if the same commands made these data"
                )


def refuse_mixtures(
    table: KeptTable, made: dict[str, Any], others: dict[str, Any], parts: dict[str, ScoreTable]
) -> None:
    """End if a run of another checkpoint than the table's has not all the parts that the table has of it."""
    there = [part for part in table.parts if part not in subset_parts(table.plan)]
    kept = {part: table.scores(part).runs for part in there}
    for name, told in others.items():
        digests = [run.get(CHECKPOINT_DIGEST) for run in (made.get(name, {}), told)]
        if None in digests or digests[0] == digests[1]:
            continue
        run = run_of(name)
        if old := [p for p in there if run in kept[p] and (p not in parts or run not in parts[p].runs)]:
            raise SystemExit(
                f"keep: {name}: is of another checkpoint than the table has, which would keep the earlier "
                f"one's scores on {', '.join(old)}; judge it there, too"
            )


def without_replaced(
    table: KeptTable, made: dict[str, Any], others: dict[str, Any], parts: dict[str, ScoreTable]
) -> dict[str, Any]:
    """How the runs of a table were made whose rows a sweep does not have.

    Ends if it has not all that the table has of the other rows.
    """
    rows = {run_of(name).row for name in others}
    old = {name for name in made if run_of(name).row in rows}
    if lacking := sorted(old - others.keys()):
        raise SystemExit(f"keep: --replace: the sweep has not all seeds of its rows: {', '.join(lacking)}")
    for part in table.parts:
        if part not in subset_parts(table.plan):
            there = {run for run in table.scores(part).runs if run.row in rows}
            if there - set(parts[part].runs if part in parts else ()):
                raise SystemExit(f"keep: --replace: the sweep has no scores on {part}; judge it there, too")
    return {name: told for name, told in made.items() if name not in old}


def kept_runs(source: KeptTable, table: KeptTable) -> tuple[dict[str, ScoreTable], dict[str, Any]]:
    """Runs of a table that is kept, of the rows that another one's plan has, too.

    Returns:
        Their scores by part, and how they were made by ``row/seed``.
    """
    same = same_rows(source.plan, table.plan)
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
    taken = {name_of(run) for scores in parts.values() for run in scores.runs}
    return parts, {key: told for key, told in source.made_with().items() if key in taken}


def same_rows(one: SweepPlan, other: SweepPlan) -> set[str]:
    """Names of the rows that two plans train and judge alike, whatever they are compared with."""
    if one.checkpoint != other.checkpoint:
        return set()
    ours, theirs = ({row.name: replace(row, baseline=None) for row in plan.rows} for plan in (one, other))
    alike = {name for name, row in ours.items() if theirs.get(name) == row}
    return {name for name in alike if ours[name].weights in (None, *alike)}


def main() -> int:
    """Keep."""
    try:
        return keep()
    except BeyondDriveError as error:
        raise SystemExit(f"keep: {error}") from error


def keep() -> int:
    """Add the runs that the command line names to its table; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    parser.add_argument("table", help="plan below results/, without the ending")
    parser.add_argument("--replace", action="store_true", help="in the place of all runs of the same rows")
    parser.add_argument("--made-anew", action="store_true", help="on data that the same commands made anew")
    args = parser.parse_args()
    table = KeptTable(args.table)
    with table.held():
        return add_runs(args, table)


def add_runs(args: argparse.Namespace, table: KeptTable) -> int:
    """Add the runs of a sweep, or of another table, to a table that nobody else changes; 0."""
    made = table.made_with()
    beside = {} if args.replace else made
    if (RESULTS / f"{args.sweep}.yml").is_file():
        parts, others = kept_runs(KeptTable(str(args.sweep)), table)
        if not parts:
            raise SystemExit(f"keep: {args.sweep} has no runs of rows that are the same in {args.table}.yml")
        refuse_other_recipes(beside, others, same_data=not args.made_anew)
    else:
        found = finished_runs(args.sweep, table)
        if not found:
            raise SystemExit(f"keep: {args.sweep}: no complete run of {args.table}.yml")
        others = {name_of(key): origin_of(told) for key, (_, told) in found.items()}
        refuse_other_recipes(beside, others, same_data=not args.made_anew)
        parts = collect(table.plan, [run for run, _ in found.values()])
    if args.replace:
        made = without_replaced(table, made, others, parts)
    refuse_mixtures(table, made, others, parts)
    table.write(parts, made | others, same_data=not args.made_anew)
    print(f"{args.table}: {len(made | others)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
