"""Train many recipes with many seeds and compare them: ``beyonddrive sweep CONFIG ... --out D --seeds 0:5``.

Runs are work folders below ``--out`` that go on where a sweep was killed. A run that fails is told, and the
rest goes on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import KeyTexts, command_parser, refuse_file, run_command, tell

if TYPE_CHECKING:
    from beyonddrive.engine.sweeps.folder import Recipes
    from beyonddrive.engine.sweeps.plan import SweepPlan


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("sweep", "Train rows of recipes with several seeds, and compare them.")
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="configs, each a row of its own")
    parser.add_argument("--plan", type=Path, metavar="FILE.yml", help="rows, seeds and options from a file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--seeds", help="like 0:5 or 0,3,7; default: 0, or those of the plan")
    parser.add_argument(
        "--grid", nargs="+", action=KeyTexts, metavar="key=a,b", help="values of which every one is a row"
    )
    parser.add_argument("--baseline", help="row that the others are compared with: a config, or key=value")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows of the plan")
    parser.add_argument(
        "--loaders",
        nargs="+",
        choices=("test", "val"),
        help="where every run is judged; default: test; with --grid val, too, which chooses the best row",
    )
    parser.add_argument(
        "--further", nargs="+", metavar="BASIS", help="judge on these bases, too, such as epdms"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        help="which one is judged; best: by validation (default: last)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time; they share the cores, and the GPUs if there are any (default: 1; with --ray as "
        "many as the cluster holds)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="runs are tasks of the Ray cluster at this "
        "address, or of one that is started here; each asks for its cores, and for a GPU if there are any",
    )
    parser.add_argument("--report-only", action="store_true", help="train nothing; write the report again")
    parser.add_argument("--dry-run", action="store_true", help="name the runs, and what is left to do")
    parser.add_argument(
        "--cfg-options", nargs="+", action=KeyTexts, metavar="key=value", help="change every config"
    )
    args = parser.parse_args(argv)
    if bool(args.configs) == bool(args.plan):
        parser.error("give configs or --plan, and not both")
    if args.plan and (args.grid or args.baseline):
        parser.error("--plan: the file has the rows; --grid and --baseline are for configs")
    if args.rows and not args.plan:
        parser.error("--rows: chooses rows of a --plan")
    if args.report_only:
        given = {"--rows": args.rows, "--seeds": args.seeds, "--jobs": args.jobs, "--ray": args.ray}
        given["--dry-run"] = args.dry_run or None
        if told := [name for name, value in given.items() if value is not None]:
            parser.error(
                f"--report-only: trains nothing, and reports all runs in --out; leave out {', '.join(told)}"
            )
    if args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: must be at least 1")
    refuse_file(parser, "--out", args.out)
    return args


def whole_plan(args: argparse.Namespace) -> SweepPlan:
    """The plan that a command line means, with all its rows.

    Subsets of the plan are of its first loader, and are left out where another one is judged first.

    Raises:
        SweepError: If it contradicts itself.
    """
    from dataclasses import replace

    from beyonddrive.engine.sweeps.plan import plan_of_grid, read_plan, read_seeds

    options = {key: str(value) for key, value in (args.cfg_options or {}).items()}
    settings: dict[str, Any] = {
        name: value
        for name, value in (
            ("loaders", args.loaders and tuple(args.loaders)),
            ("further", args.further and tuple(args.further)),
            ("checkpoint", args.checkpoint),
        )
        if value
    }
    if args.plan is None:
        grid = {key: values_of(str(text)) for key, text in (args.grid or {}).items()}
        seeds = read_seeds(args.seeds or "0")
        return plan_of_grid(args.configs, grid, options, seeds, args.baseline, **settings)
    plan = read_plan(args.plan)
    rows = tuple(replace(row, options={**row.options, **options}) for row in plan.rows)
    seeds = read_seeds(args.seeds) if args.seeds else plan.seeds
    if settings.get("loaders", plan.loaders)[0] != plan.loaders[0]:
        settings["subsets"] = {}
    return replace(plan, rows=rows, seeds=seeds, **settings)


def plan_of(args: argparse.Namespace) -> SweepPlan:
    """The plan with the rows that are to be trained.

    Raises:
        SweepError: As :func:`whole_plan`, or if a row that is asked for is not there.
    """
    plan = whole_plan(args)
    return plan.only(args.rows) if args.rows else plan


def values_of(text: str) -> list[str]:
    """Values of a grid: those between the commas that are in no brackets.

    >>> values_of('0,2.5,[1,2]')
    ['0', '2.5', '[1,2]']
    """
    values, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and not depth:
            values.append("")
        else:
            values[-1] += letter
    return [value.strip() for value in values]


def sweep(args: argparse.Namespace) -> int:
    """Carry out what is left, and write the report; 1 if a run failed."""
    from beyonddrive.engine.executors import WorkerLostError
    from beyonddrive.engine.sweeps.folder import Recipes, runs_of, scene_filter_of
    from beyonddrive.engine.sweeps.places import ray_cluster, this_machine
    from beyonddrive.engine.sweeps.records import is_complete, read_record
    from beyonddrive.engine.sweeps.runs import Outcome
    from beyonddrive.engine.sweeps.work import carry_out
    from beyonddrive.evaluation.bases.evaluators import basis_named
    from beyonddrive.visualization.sweep_report import check_subsets, read_subsets

    plan = plan_of(args)
    for name in plan.further:
        basis_named(name)
    read_subsets(plan)  # (what is wrong with them is told before hours of training)
    _tell_subsets_left_out(args, plan)
    recipes = Recipes(args.out)
    if args.report_only:
        print(_report(args, recipes))
        return 0
    runs = runs_of(plan, args.out, recipes)
    if (scene_filter := scene_filter_of(plan, recipes)) is not None:
        check_subsets(plan, scene_filter)
    done = [run for run in runs if is_complete(run, read_record(run))]
    print(f"{len(runs)} runs of {len(plan.rows)} rows, {len(done)} complete", flush=True)
    if len(plan.rows) > 1 and not any(row.baseline for row in plan.rows):
        where = "a row's baseline in the plan" if args.plan else "--baseline"
        print(f"rows are compared with none, so there will be no differences: give {where}")
    for run in runs:
        if lacking := [loader for loader in plan.loaders if loader not in run.loaders]:
            print(f"{run.row}: has no {' and '.join(lacking)}, and is judged on {' and '.join(run.loaders)}")
    if args.dry_run:
        for run in runs:
            state = "complete" if run in done else "to do"
            lacks = run.lacking() if run not in done and read_record(run) is not None else ""
            lacks = lacks and f", has no scores on {lacks}"
            print(f"{state:<10}{run.row}, seed {run.seed}: {run.folder}{lacks}")
        return 0
    place = (
        this_machine(args.jobs or 1, _gpus())
        if args.ray is None
        else ray_cluster(args.ray or None, args.jobs)
    )
    print(f"{place.jobs} at a time, with {place.threads} threads each", flush=True)
    outcomes: list[Outcome] = []
    own = [place.of(run) for run in runs if run.weights is None]
    others = [place.of(run) for run in runs if run.weights is not None]
    # Those with the weights of another run come when all of these are there.
    trained = place.executor.map(carry_out, own, desc="runs")
    judged = place.executor.map(carry_out, others, desc="with weights of other runs")
    lost = None
    try:
        for outcome in chain(trained, judged):
            outcomes.append(outcome)
            for said in filter(None, (outcome.note, outcome.error)):
                tell("sweep", f"{outcome.row}, seed {outcome.seed}: {said}")
    except WorkerLostError as error:  # (what is complete is worth its report all the same)
        lost = error
    errors = {(it.row, it.seed): it.error for it in outcomes if it.error is not None}
    if report := _report(args, recipes, errors):
        print(report)
    if errors:
        tell("sweep", f"{len(errors)} of {len(runs)} runs failed; the same command tries them again")
    if lost is not None:
        tell("sweep", f"{len(runs) - len(outcomes)} of {len(runs)} runs were not carried out: {lost}")
    return int(bool(errors) or lost is not None)


def _tell_subsets_left_out(args: argparse.Namespace, plan: SweepPlan) -> None:
    """Say which subsets of a plan are not of the scenes that the command line judges first."""
    from beyonddrive.engine.sweeps.plan import read_plan

    if args.plan is None or plan.subsets or not (lost := read_plan(args.plan)).subsets:
        return
    print(
        f"left out are the subsets {', '.join(lost.subsets)}: they are of scenes of the loader "
        f"{lost.loaders[0]}, and --loaders {plan.loaders[0]} is judged first"
    )


def _report(
    args: argparse.Namespace, recipes: Recipes, errors: Mapping[tuple[str, int], str] | None = None
) -> str | None:
    """Write the report of all runs of the plan in the folder, whichever of them are asked for now.

    Args:
        args: The command line.
        recipes: Configs of the rows.
        errors: What failed now; None if nothing was tried.

    Returns:
        The report; None if no run is complete and something was tried.

    Raises:
        StatisticsError: If no run is there, nor scores of earlier ones.
        SweepError: If runs are there, and none of them has scores of what its row is now.
    """
    from beyonddrive.engine.sweeps.folder import found_runs
    from beyonddrive.engine.sweeps.plan import SweepError
    from beyonddrive.visualization.sweep_report import write_report, write_sweep

    plan = whole_plan(args)
    finished, told = found_runs(plan, recipes)
    told |= errors or {}
    if finished:
        return write_sweep(args.out, plan, finished, told)
    if errors is not None:
        return None
    if told:
        (row, seed), reason = next(iter(told.items()))
        raise SweepError(
            f"{args.out}: none of the {len(told)} runs there has scores that count for this plan, so "
            f"there is no new report: {row}, seed {seed}: {reason}"
        )
    # (without its runs a folder may still have the scores that were made of them)
    return write_report(args.out, plan)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit code is 1 if something is refused or a run failed."""
    args = parse_args(argv)
    return run_command("sweep", lambda: sweep(args))


if __name__ == "__main__":
    sys.exit(main())
