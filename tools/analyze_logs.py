"""Curves of trainings: ``beyonddrive analyze-logs work_dirs/ltf BASELINE=work_dirs/other --out curves.png``.

A run is a work folder, whose resumed parts are joined, or one ``vis_data/scalars.json``. Prints the last and
the best value of each figure, and draws each into a panel, with a line for each run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.tools._command_line import command_parser, run_command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("analyze-logs", "Curves of one or several trainings, and their best values.")
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="work folder or scalars.json")
    parser.add_argument(
        "--keys",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="figures: loss 'pdms/*'; all by default",
    )
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture of the curves to write")
    return parser.parse_args(argv)


def analyze(args: argparse.Namespace) -> int:
    """Print the table and draw the curves."""
    from beyonddrive.visualization.training_curves import choose_keys, draw_curves, format_summary, read_run

    runs = []
    for word in args.runs:
        name, _, path = word.rpartition("=")
        runs.append(read_run(name or Path(path).name, Path(path)))
    keys = choose_keys(runs, args.keys)
    print(format_summary(runs, keys))
    if args.out:
        draw_curves(runs, keys, args.out)
        print(f"curves in {args.out}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Analyze; the exit code is 1 if a log is refused."""
    args = parse_args(argv)
    return run_command("analyze-logs", lambda: analyze(args))


if __name__ == "__main__":
    sys.exit(main())
