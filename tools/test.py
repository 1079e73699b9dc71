"""Evaluate a planner: ``beyonddrive test CONFIG [CHECKPOINT] [--out results.csv]``.

A planner without weights needs no checkpoint. The exit code is 1 if a scene could not be scored.
``--plans-only --plans plans.npz`` plans for scenes that cannot be scored: logs of a private test, which end
now and have no annotations. ``--basis epdms`` judges by another score than the config's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    add_launcher_options,
    command_parser,
    run_distributed,
    tell,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("test", "Evaluate a planner by the PDM score on the test split.")
    add_config(parser, "config that the planner was trained with")
    parser.add_argument("checkpoint", nargs="?", help="weights; none for planners that have none")
    parser.add_argument(
        "--loader",
        choices=("test", "val"),
        default="test",
        help="which scenes and metrics of the config; val: those of validation during training",
    )
    parser.add_argument(
        "--basis",
        metavar="NAME",
        help="judge on this basis, such as epdms, instead of by the metrics of the config",
    )
    parser.add_argument("--work-dir", help="logs; default: work_dirs/<name of the config>/test")
    parser.add_argument("--out", metavar="results.csv", help="write one row per scene")
    parser.add_argument(
        "--plans", metavar="plans.npz", help="write the plan of each scene, for beyonddrive score"
    )
    parser.add_argument(
        "--plans-only",
        action="store_true",
        help="score nothing: for scenes without a future, annotations or maps, such as a private test's",
    )
    add_config_options(parser)
    add_launcher_options(parser)
    args = parser.parse_args(argv)
    if args.plans_only and args.plans is None:
        parser.error("--plans-only: needs --plans, the file that the plans are written to")
    if args.plans_only and args.basis is not None:
        parser.error(f"--basis {args.basis}: with --plans-only nothing is scored; leave one of them out")
    if args.plans_only and args.out is not None:
        parser.error(f"--out {args.out}: with --plans-only nothing is scored; leave one of them out")
    return args


def summary(metrics: Mapping[str, float], shares: Mapping[str, str] | None = None) -> str:
    """One line per figure, the final score last; other figures than those of PDMS carry their prefix.

    Args:
        metrics: Figures by ``prefix/name``.
        shares: Prefix of figures of a part of the split -> which part; their lines say so.

    >>> print(summary({'pdms/NC': 98.0, 'pdms/PDMS': 84.25}))
    NC      98.00
    PDMS    84.25
    >>> print(summary({'epdms_one_stage/EC': 98.0, 'epdms_one_stage/num_failed': 0.0}))
    epdms_one_stage/EC       98.00
    >>> print(summary({'pdms/PDMS': 84.25}, {'pdms': '4 of 30 scenes'}))
    PDMS    84.25  (4 of 30 scenes)
    """
    lines = []
    for name in sorted(metrics, key=lambda name: name.endswith("/PDMS")):
        prefix, _, figure = name.partition("/")
        if figure.startswith("num_"):
            continue
        label = f"{figure:<6}" if prefix == "pdms" else f"{name:<23}"
        share = (shares or {}).get(prefix)
        lines.append(f"{label}{metrics[name]:>7.2f}" + (f"  ({share})" if share else ""))
    return "\n".join(lines)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate and print the figures; 1 if a scene has no score."""
    from mmengine.dist import is_main_process

    from beyonddrive.checkpoints.loading import load_weights
    from beyonddrive.engine import evaluators, runner
    from beyonddrive.evaluation.bases.evaluators import basis_named, judge_on
    from beyonddrive.evaluation.plan_writer import plan_only

    config = runner.load_config(args.config, args.cfg_options)
    if args.loader == "val":
        evaluators.test_on_validation(config)
    if args.basis is not None:
        judge_on(config, basis_named(args.basis))
    inputs = [args.checkpoint] if args.checkpoint else []
    if args.plans_only:
        plan_only(config, args.plans, inputs)
    testing = runner.build_test_runner(
        config,
        work_dir=args.work_dir,
        out_file=args.out,
        plans_file=None if args.plans_only else args.plans,
        launcher=args.launcher,
        inputs=inputs,
    )
    load_weights(testing.model, args.checkpoint)
    metrics, failures, shares, unwritten, labels = runner.evaluate(testing)
    if is_main_process():
        if args.plans_only:
            print(f"{args.plans}: {metrics['plans/num_scenes']:.0f} plans, {len(failures)} scenes failed")
        else:
            print(summary(metrics, shares))
            for prefix, label in labels.items():
                print(f"{prefix}/...: {label}", flush=True)
        what = "plan" if args.plans_only else "score"
        for name, reason in failures.items():
            tell("test", f"{name} has no {what}: {reason}")
        for reason in unwritten:
            tell("test", reason)
    return int(bool(failures or unwritten))


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; the exit code is 1 if something is refused or a scene has no score."""
    args = parse_args(argv)
    return run_distributed("test", lambda: evaluate(args), args.launcher)


if __name__ == "__main__":
    sys.exit(main())
