"""PDM scores of plans: ``python tools/score.py --data-root R --split S --plans plans.npz --out scores.npz``.

``plans.npz`` holds one array (N, 8, 3) per scene token: x [m], y [m], heading [rad] of the rear axle every
0.5 s, in the ego frame now. ``scores.npz`` gets one array (N, 7) float64 per token: NC, DAC, EP, TTC, C, DDC,
PDMS. A token names any frame with 3 frames before it and 10 after it in its log.

Scenes that cannot be scored are listed with the reason, the rest is still written; the exit code is then 1.
It is 2, and nothing is written, if the plans, the data root or the caches cannot be read at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Score plans with the PDM score.")
    parser.add_argument("--data-root", type=Path, required=True, help="data root in NAVSIM's layout")
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--split", required=True, help="split that the scenes are of")
    parser.add_argument("--plans", type=Path, required=True, help="npz file: token -> (N, 8, 3)")
    parser.add_argument("--out", type=Path, required=True, help="npz file to write: token -> (N, 7)")
    parser.add_argument(
        "--cache-dir", type=Path, help="keep metric caches here, and use those that are there"
    )
    parser.add_argument("--num-workers", type=int, default=0, help="processes; 0 works in this one")
    parser.add_argument(
        "--progress",
        choices=("pair", "pooled"),
        default="pair",
        help="divide progress plan by plan, as the benchmark does, or by the largest of a scene's plans",
    )
    args = parser.parse_args(argv)
    if args.num_workers < 0:
        parser.error(f"--num-workers: must not be negative, got {args.num_workers}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Score the plans and return the exit code."""
    args = parse_args(argv)
    from beyonddrive.datasets.navsim_root import NavsimRoot, NavsimRootError
    from beyonddrive.datasets.shards import StoreError
    from beyonddrive.engine.executors import make_executor
    from beyonddrive.evaluation.pdm.plan_file import PlanFile, PlanFileError, write_arrays
    from beyonddrive.evaluation.pdm.runner import score_split

    try:
        plans = PlanFile(args.plans)
        root = NavsimRoot(args.data_root, args.maps_root)
        executor = make_executor(args.num_workers)
        result = score_split(root, args.split, plans, args.progress, executor, args.cache_dir)
        write_arrays(args.out, result.values)
    except (PlanFileError, NavsimRootError, StoreError, OSError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    for problem in result.problems:
        print(f"score: {problem}", file=sys.stderr)
    for token, reason in result.failures.items():
        print(f"score: {token}: {reason}", file=sys.stderr)
    count = sum(len(values) for values in result.values.values())
    print(f"{args.out}: {count} plans of {len(result.values)} scenes, {len(result.failures)} scenes failed")
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main())
