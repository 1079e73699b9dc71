"""Compare planners: ``beyonddrive report --row human=human.csv --row LTF=ltf.csv --out report.html``.

Prints one table as text and as markdown; ``--out`` also writes one HTML file that holds everything.
Means alone say little of how planners differ: ``--difference LTF=MLP`` pairs two by scene, with an interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.tools._command_line import command_parser, run_command

TITLE = "PDM score of planners"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("report", "Compare planners by the results that beyonddrive test --out wrote.")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME=results.csv",
        help="a planner; repeat in the order shown",
    )
    parser.add_argument(
        "--difference",
        action="append",
        default=[],
        metavar="NAME=BASELINE",
        help="compare a row with another, scene by scene, with a 95%% interval over scenes; repeat",
    )
    parser.add_argument(
        "--sight",
        metavar="NAME=BLIND",
        help="a row that sees and one that does not: compare them, and say so if sight does not pay",
    )
    parser.add_argument(
        "--common-scenes", action="store_true", help="compare on the scenes that all files have"
    )
    parser.add_argument(
        "--different-labels",
        action="store_true",
        help="compare scores of different bases, such as other traffic; the table says how they differ",
    )
    parser.add_argument(
        "--time",
        action="append",
        default=[],
        metavar="STAGE=SECONDS",
        help="time of a stage; repeat in order",
    )
    parser.add_argument("--coverage", type=Path, help="coverage.json of a negative pool")
    parser.add_argument("--pictures", type=Path, help="folder that beyonddrive visualize wrote")
    parser.add_argument("--title", default=TITLE)
    parser.add_argument("--note", default="", help="a sentence below the title")
    parser.add_argument("--markdown", type=Path, help="also write the markdown table to this file")
    parser.add_argument("--out", type=Path, help="HTML file to write")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Report; the exit code is 1 if a file is refused."""
    args = parse_args(argv)
    return run_command("report", lambda: report(args))


def _refuse_idle(args: argparse.Namespace) -> None:
    """Refuse options that nothing would be seen of.

    Raises:
        ReportError: If there are some, or there is nothing to report.
    """
    from beyonddrive.visualization.report_inputs import ReportError

    if not args.row and (args.markdown or not args.out):
        raise ReportError("there is no table without planners; give --row NAME=results.csv, once or more")
    for name in ("time", "coverage", "pictures", "title", "note"):
        if not args.out and getattr(args, name) not in (None, [], "", TITLE):
            raise ReportError(f"--{name}: is seen on the page alone; say where it goes by --out report.html")


def report(args: argparse.Namespace) -> int:
    """Print the table and write the files."""
    from beyonddrive.engine.files import write_atomically
    from beyonddrive.engine.runner.result_paths import check_results
    from beyonddrive.evaluation.score_results import label_differences, read_results
    from beyonddrive.visualization.report import Report, write_report
    from beyonddrive.visualization.report_inputs import parse_times, read_coverage, read_picture_index
    from beyonddrive.visualization.result_differences import (
        differences_markdown,
        paired_differences,
        remarks_on,
    )
    from beyonddrive.visualization.tables import describe_labels, format_table, parse_named, summarise

    named = parse_named(args.row, "--row")
    pictures = [path for path in args.pictures.rglob("*") if path.is_file()] if args.pictures else []
    coverage = [args.coverage] if args.coverage else []
    read = [*(path for _, path in named), *coverage, *pictures]
    check_results({"--out": args.out, "--markdown": args.markdown}, read)
    _refuse_idle(args)
    results = [read_results(name, Path(path)) for name, path in named]
    rows = summarise(results, args.common_scenes, args.different_labels)
    labels = describe_labels(rows, label_differences(results))
    sights = paired_differences(results, parse_named([args.sight] if args.sight else [], "--sight"))
    differences = sights + paired_differences(results, parse_named(args.difference, "--difference"))
    remarks = remarks_on(differences, sights[0] if sights else None)
    page = Report(
        args.title,
        rows,
        parse_times(args.time),
        read_coverage(args.coverage) if args.coverage else {},
        read_picture_index(args.pictures) if args.pictures else (),
        args.note,
        labels,
        differences,
        remarks,
    )
    told = [f"- {line}" for line in (*labels, *remarks)]
    parts = [format_table(rows, "markdown"), differences_markdown(differences), "\n".join(told)]
    markdown = "\n\n".join(filter(None, parts))
    if rows:
        print(*labels, "", format_table(rows), "", markdown, sep="\n")
    if args.markdown:
        write_atomically(args.markdown, (markdown + "\n").encode())
    if args.out:
        write_report(args.out, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
