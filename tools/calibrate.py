"""The best turn and stretch of a planner's plans: ``beyonddrive calibrate --plans val.npz ... --split val``.

Every plan is turned about the ego by an angle and stretched along its way by a factor, the same two numbers
for all scenes, and scored. What a recipe gains beyond the baseline in its own best calibration is what it
knows about scenes; the rest could have been had without it. ``--plans`` takes one file for each training of a
recipe (``beyonddrive test CONFIG CHECKPOINT --loader val --plans val.npz --plans-only``); the calibration is
chosen by their mean. Choose on validation scenes, judge on others: the line that is printed goes into the
config of a planner, or behind ``--cfg-options``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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

TURNS = tuple(0.005 * step for step in range(-5, 6))
"""To both sides: failures at the kerb push plans to the right where one drives on the left."""
STRETCHES = tuple(0.04 * step for step in range(19, 28))
"""Plans may be too slow as well as too fast."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("calibrate", "Find the turn and stretch of a planner's plans that score best.")
    parser.add_argument("--data-root", type=Path, required=True, help="data root in NAVSIM's layout")
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--split", required=True, help="split that the plans are of, such as val")
    parser.add_argument(
        "--plans", type=Path, nargs="+", required=True, metavar="NPZ", help="files: token -> (8, 3)"
    )
    parser.add_argument(
        "--version",
        choices=("v1", "v2"),
        default="v1",
        help="v1: by PDMS; v2: by one-stage EPDMS, without extended comfort",
    )
    parser.add_argument(
        "--turn",
        type=float,
        nargs="+",
        default=TURNS,
        help="angles to try [rad], positive to the left; -0.025 to 0.025 by default",
    )
    parser.add_argument(
        "--stretch", type=float, nargs="+", default=STRETCHES, help="factors to try; 0.76 to 1.08 by default"
    )
    parser.add_argument("--out", type=Path, metavar="CSV", help="write all sub-scores of all calibrations")
    parser.add_argument("--cache-dir", type=Path, help="metric caches; those that are missing are added")
    add_executor_options(parser)
    args = parser.parse_args(argv)
    if not all(0 < factor < float("inf") for factor in args.stretch):
        parser.error("--stretch: factors must be positive")
    if not all(abs(angle) < float("inf") for angle in args.turn):
        parser.error("--turn: angles must be finite")
    refuse_taken(parser, "--out", args.out, {path.resolve(): "a file of plans" for path in args.plans})
    refuse_file(parser, "--cache-dir", args.cache_dir)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Search and return the exit code."""
    args = parse_args(argv)
    return run_command("calibrate", lambda: calibrate(args))


def calibrate(args: argparse.Namespace) -> int:
    """Print the score by turn and stretch, and the best of them."""
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.engine.files import write_atomically
    from beyonddrive.engine.runner.result_paths import check_results
    from beyonddrive.engine.text_tables import csv_text, markdown_table
    from beyonddrive.evaluation.calibration_search import search_calibration

    check_results({"--out": args.out})
    grid = search_calibration(
        NavsimRoot(args.data_root, args.maps_root), args.split, args.plans, args.turn, args.stretch,
        args.cache_dir, executor_of(args), args.version,
    )  # fmt: skip
    if args.out is not None:
        write_atomically(args.out, csv_text(grid.lines()).encode())
    rows = [
        [f"{turn:g}", *(f"{100 * value:.2f}" for value in values)]
        for turn, values in zip(grid.turns, grid.means, strict=True)
    ]
    what = f"{grid.columns[-1]} [%], mean of {len(args.plans)} x {grid.num_scenes} scenes"
    print(f"{what}, by turn [rad] and stretch:")
    print(markdown_table(["turn", *(f"{factor:g}" for factor in grid.stretches)], rows))
    best = grid.best
    print(f"best: model.calibration.turn={best.turn:g} model.calibration.stretch={best.stretch:g}")
    if edges := grid.at_the_edge:
        tell("calibrate", f"the best {' and '.join(edges)} is at the edge of what was tried; try more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
