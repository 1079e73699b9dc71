"""Evaluate a planner: ``python tools/test.py CONFIG [CHECKPOINT] [--out results.csv]``.

A planner without weights needs no checkpoint. The exit code is 1 if a scene could not be scored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description="Evaluate a planner by the PDM score on the test split.")
    parser.add_argument("config", help="config file that the planner was trained with")
    parser.add_argument("checkpoint", nargs="?", help="weights; none for planners that have none")
    parser.add_argument("--work-dir", help="logs; default: work_dirs/<name of the config>/test")
    parser.add_argument("--out", metavar="results.csv", help="write one row per scene")
    parser.add_argument(
        "--plans", metavar="plans.npz", help="write the plan of each scene, for tools/score.py"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="key=value", help="change config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def summary(metrics: Mapping[str, float]) -> str:
    """One line per figure, PDMS last; figures of EPDMS say that they are those of one stage.

    >>> print(summary({'pdms/NC': 98.0, 'pdms/PDMS': 84.25}))
    NC      98.00
    PDMS    84.25
    >>> print(summary({'epdms_one_stage/EC': 98.0, 'epdms_one_stage/num_failed': 0.0}))
    epdms_one_stage/EC       98.00
    """
    names = sorted(metrics, key=lambda name: name.endswith("/PDMS"))
    lines = []
    for name in names:
        prefix, _, figure = name.partition("/")
        if figure.startswith("num_"):
            continue
        if prefix == "pdms":
            lines.append(f"{figure:<6}{metrics[name]:>7.2f}")
        elif prefix == "epdms_one_stage":
            lines.append(f"{name:<23}{metrics[name]:>7.2f}")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> bool:
    """Evaluate, print the figures, and return whether every scene has a score."""
    from mmengine.dist import is_main_process

    from beyonddrive.engine.runner import build_test_runner, evaluate, load_config

    config = load_config(args.config, args.cfg_options)
    metrics, failures = evaluate(
        build_test_runner(config, args.checkpoint, args.work_dir, args.out, args.plans, args.launcher)
    )
    if is_main_process():
        print(summary(metrics))
        for token, reason in failures.items():
            print(f"test: scene {token} has no score: {reason}", file=sys.stderr)
    return not failures


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; the exit code is 1 if something is refused or a scene has no score."""
    args = parse_args(argv)
    from beyonddrive.engine.runner import ending_processes, explain

    try:
        with ending_processes():
            return 0 if run(args) else 1
    except (ValueError, RuntimeError, OSError) as error:
        if args.launcher != "none":
            raise  # torchrun shows which rank failed, and ends the others
        print(f"test: {explain(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
