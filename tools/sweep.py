"""Train many recipes with many seeds and compare them: ``beyonddrive sweep CONFIG ... --out D --seeds 0:5``.

Runs are work folders below ``--out`` that go on where a sweep was killed. A run that fails is told, and the
rest goes on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import KeyTexts, command_parser, refuse_file, run_command, tell

if TYPE_CHECKING:
    from beyonddrive.engine.executors import Executor
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
        "--loaders", nargs="+", choices=("test", "val"), help="where every run is judged; default: test"
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
        default=1,
        help="runs at a time; they share the cores, and the GPUs if there are any",
    )
    parser.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="run on the Ray cluster at this address"
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
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: must be at least 1")
    refuse_file(parser, "--out", args.out)
    return args


def plan_of(args: argparse.Namespace) -> SweepPlan:
    """The plan that a command line means.

    Raises:
        SweepError: If it contradicts itself.
    """
    from dataclasses import replace

    from beyonddrive.engine.sweeps.plan import SweepError, plan_of_grid, read_plan, read_seeds

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
    rows = plan.rows
    if args.rows:
        lacking = [name for name in args.rows if name not in {row.name for row in rows}]
        if lacking:
            raise SweepError(f"--rows: the plan has no {', '.join(lacking)}")
        kept: set[str] = set()
        names = list(args.rows)
        while names:  # (with the rows that they need, and those that these need)
            row = plan.row(names.pop())
            kept.add(row.name)
            names += [name for name in (row.baseline, row.weights) if name and name not in kept]
        rows = tuple(row for row in rows if row.name in kept)
    rows = tuple(replace(row, options={**row.options, **options}) for row in rows)
    seeds = read_seeds(args.seeds) if args.seeds else plan.seeds
    return replace(plan, rows=rows, seeds=seeds, **settings)


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
    from beyonddrive.engine.sweeps.runs import Outcome, carry_out, read_record, runs_of
    from beyonddrive.evaluation.bases.evaluators import basis_named
    from beyonddrive.visualization.sweep_report import Finished, write_report, write_sweep

    plan = plan_of(args)
    for name in plan.further:
        basis_named(name)
    if args.report_only:
        print(write_report(args.out, plan))
        return 0
    cores = len(os.sched_getaffinity(0))
    gpus = _gpus()
    if args.jobs > cores:
        tell("sweep", f"--jobs {args.jobs}: this machine has {cores} cores for it")
        return 1
    jobs_per_gpu = -(-args.jobs // gpus) if gpus else 1
    runs = runs_of(plan, args.out, max(1, cores // args.jobs), gpus, jobs_per_gpu)
    done = [run for run in runs if read_record(run) is not None and not run.open_judgements]
    print(
        f"{len(runs)} runs of {len(plan.rows)} rows, {len(done)} complete; {args.jobs} at a time", flush=True
    )
    if args.dry_run:
        for run in runs:
            state = "complete" if run in done else "to do"
            print(f"{state:<10}{run.row}, seed {run.seed}: {run.folder}")
        return 0
    outcomes: list[Outcome] = []
    runs.sort(key=lambda run: run.weights is not None)
    own = sum(run.weights is None for run in runs)
    executor = _executor(args)
    # Those with the weights of another run come when all of these are there.
    trained = executor.map(carry_out, runs[:own], desc="runs")
    for outcome in chain(trained, executor.map(carry_out, runs[own:], desc="with weights of other runs")):
        outcomes.append(outcome)
        if outcome.error is not None:
            tell("sweep", f"{outcome.row}, seed {outcome.seed}: {outcome.error}")
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed < len(runs):
        finished = [Finished(run, outcome) for run, outcome in zip(runs, outcomes, strict=True)]
        print(write_sweep(args.out, plan, finished))
    if failed:
        tell("sweep", f"{failed} of {len(runs)} runs failed; the same command tries them again")
    return int(bool(failed))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _executor(args: argparse.Namespace) -> Executor:
    from beyonddrive.engine.executors import RayExecutor, make_executor

    if args.ray is not None:
        return RayExecutor(args.ray or None, args.jobs)
    return make_executor(args.jobs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit code is 1 if something is refused or a run failed."""
    args = parse_args(argv)
    return run_command("sweep", lambda: sweep(args))


if __name__ == "__main__":
    sys.exit(main())
