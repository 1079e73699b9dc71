"""Scores of plans: ``beyonddrive score --data-root R --split S --plans plans.npz --out scores.npz``.

``plans.npz`` holds one array (N, 8, 3) per scene token: x [m], y [m], heading [rad] of the rear axle every
0.5 s, in the ego frame now. ``scores.npz`` gets one array (N, 7) float64 per token: NC, DAC, EP, TTC, C, DDC,
PDMS. With ``--version v2`` it is (N, 9), the one-stage EPDMS of NAVSIM v2: NC, DAC, DDC, TLC, EP, TTC, LK, HC
and the score without extended comfort, which needs plans of neighbouring frames. A token names any frame with
3 frames before it and 10 after it in its log.

``--basis all`` scores one plan per scene on every basis instead, PDMS to two-stage EPDMS, and writes one
labelled table.

Scenes that cannot be scored are listed with the reason, the rest is still written; the exit code is then 1.
It is 2, and nothing is written, if the plans, the data root or the caches cannot be read at all. Plans and
scores are streamed; run the same command again after a kill, it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from beyonddrive.tools._command_line import (
    add_executor_options,
    command_parser,
    executor_of,
    refuse_file,
    refuse_taken,
    run_command,
    tell,
)
from beyonddrive.tools._score_bases import add_basis_options, check_basis_options, score_bases


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("score", "Score plans with the PDM score or the one-stage EPDMS.")
    parser.add_argument("--data-root", type=Path, required=True, help="data root in NAVSIM's layout")
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--split", required=True, help="split that the scenes are of")
    parser.add_argument("--plans", type=Path, required=True, help="npz file: token -> (N, 8, 3), or (8, 3)")
    parser.add_argument("--out", type=Path, required=True, help="npz file to write: token -> (N, 7 or 9)")
    parser.add_argument(
        "--explain", type=Path, metavar="JSON", help="also write why each plan loses points: token -> N lists"
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        help="keep metric caches here, and use those that are there; several jobs may share it",
    )
    add_executor_options(parser)
    parser.add_argument(
        "--progress",
        choices=("pair", "pooled"),
        default="pair",
        help="divide progress plan by plan, as the benchmark does, or by the largest of a scene's plans",
    )
    parser.add_argument(
        "--version", choices=("v1", "v2"), default="v1", help="v1: PDM score; v2: EPDMS, one stage"
    )
    parser.add_argument(
        "--no-human-filter",
        dest="human_filter",
        action="store_false",
        help="v2: charge plans with what the human driver fails as well, too",
    )
    add_basis_options(parser)
    args = parser.parse_args(argv)
    check_basis_options(parser, args)
    taken = {args.plans.resolve(): "the file of plans"}
    refuse_taken(parser, "--out", args.out, taken)
    refuse_taken(parser, "--explain", args.explain, {**taken, args.out.resolve(): "the file of scores"})
    refuse_file(parser, "--cache-dir", args.cache_dir)
    if args.version == "v1" and not args.human_filter:
        parser.error("--no-human-filter: the PDM score has no human filter; it goes with --version v2")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Score the plans and return the exit code."""
    args = parse_args(argv)
    return run_command("score", lambda: score(args), refused=2)


def score(args: argparse.Namespace) -> int:
    """Score the plans, and tell which scenes have no scores."""
    if args.basis is not None:
        return score_bases(args)
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.evaluation.plan_files import PlanFile
    from beyonddrive.evaluation.scene_scoring import ScoreSettings
    from beyonddrive.evaluation.score_files import describe_inputs, open_parts
    from beyonddrive.evaluation.score_labels import BASES
    from beyonddrive.evaluation.split_scoring import SplitScoring

    name = "pdms" if args.version == "v1" else "epdms" if args.human_filter else "epdms-unfiltered"
    settings = ScoreSettings(
        args.progress, args.version, args.human_filter, with_failures=args.explain is not None
    )
    executor = executor_of(args)
    plans = PlanFile(args.plans)
    root = NavsimRoot(args.data_root, args.maps_root)
    # (parts that do not tell the logs of their scenes, as those of version 0.2, are not gone on with)
    told = {"settings": asdict(settings), "logs": "told"}
    config = {**describe_inputs(root, args.split, args.plans), **told}
    scoring = SplitScoring(root, args.split, plans, settings, args.cache_dir)
    with open_parts(args.out, config) as parts:
        if parts.done:
            tell("score", f"{len(parts.done)} scenes were scored before")
        for result in scoring.run(executor, parts.done):
            parts.add(result)
        num_scenes, num_plans = parts.finish(
            plans, args.out, args.explain, BASES[name], args.progress, scoring.scorer.open().logs_digest
        )
    if not plans:
        tell("score", f"{args.plans}: holds no plans")
    for problem in scoring.problems:
        tell("score", problem)
    for token, reason in scoring.failures.items():
        tell("score", f"{token}: {reason}")
    failed = len(scoring.failures)
    print(f"{args.out}: {num_plans} plans of {num_scenes} scenes, {failed} scenes failed")
    return int(bool(failed) or not plans)


if __name__ == "__main__":
    sys.exit(main())
