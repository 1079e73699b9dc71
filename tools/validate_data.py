"""Data health: ``beyonddrive validate-data ROOT [--split S ...] [--num-workers N] [--out found.json]``.

Reads every log of the splits and looks at every sensor file: what would break later, in training or scoring,
is found now. Prints a table and the first findings of each kind; ``--out`` has all of them. With ``--out`` a
job that was killed goes on where it was. The exit code is 1 if there is an error (with ``--strict``: or a
warning) and 2 if the data root cannot be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import (
    add_executor_options,
    command_parser,
    executor_of,
    refuse_idle,
    refuse_taken,
    run_command,
    tell,
)

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.validation import SplitHealth

SHOWN = 3
"""Findings of a kind that are printed."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(
        "validate-data", "Find what is wrong with the logs and sensor files of a data root."
    )
    parser.add_argument("data_root", metavar="ROOT", type=Path, help="data root in NAVSIM's layout")
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in ROOT/maps")
    parser.add_argument("--split", nargs="+", help="splits to look at; default: all")
    parser.add_argument(
        "--scene-filter",
        type=Path,
        help="split file of NAVSIM: look only at the sensor files that its scenes see, such as a download "
        "for navtrain alone has them",
    )
    parser.add_argument("--no-sensors", action="store_true", help="do not look at sensor files")
    parser.add_argument(
        "--decode", action="store_true", help="read images and sweeps whole, not a few places of them"
    )
    parser.add_argument("--strict", action="store_true", help="let warnings give the exit code 1, too")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write all findings to this file")
    parser.add_argument("--all", action="store_true", help=f"print all findings, not {SHOWN} of each kind")
    add_executor_options(parser)
    args = parser.parse_args(argv)
    if args.no_sensors:
        refuse_idle(parser, args, ("decode", "scene_filter"), "sensor files, which --no-sensors leaves out")
    refuse_taken(parser, "--out", args.out, {})
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the data and return the exit code."""
    args = parse_args(argv)
    return run_command("validate-data", lambda: validate(args), refused=2)


def validate(args: argparse.Namespace) -> int:
    """Look at the splits, print what was found, and write it."""
    from beyonddrive.datasets.navsim.log_health import HealthSettings
    from beyonddrive.datasets.navsim.root import NavsimRoot, NavsimRootError
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.datasets.navsim.validation import absent_scenes, kept_parts, validate_split
    from beyonddrive.engine.environment import environment
    from beyonddrive.engine.files import write_atomically

    root = NavsimRoot(args.data_root, args.maps_root)
    splits = args.split or root.splits()
    if not any(root.log_paths(split) for split in splits):
        raise NavsimRootError(
            f"{root.root / 'navsim_logs'}: holds no logs of {', '.join(splits) or 'any split'}"
        )
    needed = SceneFilter.from_yaml(args.scene_filter) if args.scene_filter else None
    executor = executor_of(args)
    healths = []
    absent: list[str] = []
    with kept_parts(args.out) as parts:
        for split in splits:
            sensors = None if args.no_sensors else root.sensor_root(split)
            settings = HealthSettings(root.maps_root, sensors, args.decode, needed)
            healths.append(validate_split(root, split, settings, executor, parts))
            print(table(healths[-1], None if args.all else SHOWN), flush=True)
        if needed is not None:
            scenes = {token for health in healths for token in health.scenes}
            logs = {path.stem for split in splits for path in root.log_paths(split)}
            absent = absent_scenes(needed, scenes, logs)
        if args.out is not None:
            found = {
                "data_root": str(root.root),
                "absent": absent,
                "environment": environment(),
                "splits": [health.to_json() for health in healths],
            }
            write_atomically(args.out, (json.dumps(found, indent=1) + "\n").encode())
    for line in absent:
        tell("validate-data", f"{args.scene_filter}: {line} (looked at: {', '.join(splits)})")
    errors = len(absent) + sum(health.count("error") for health in healths)
    warnings = sum(health.count("warning") for health in healths)
    return int(bool(errors or (args.strict and warnings)))


def table(health: SplitHealth, shown: int | None = SHOWN) -> str:
    """What was found in a split, kind by kind, with the first findings of each."""
    from beyonddrive.datasets.navsim.findings import KINDS, count_kinds

    head = f"split {health.split}: {health.num_logs} logs, {health.num_frames} frames"
    head += f", {health.num_blobs} sensor files" if health.num_blobs else ""
    lines = [f"{head}: {health.count('error')} errors, {health.count('warning')} warnings"]
    for kind, (count, logs) in count_kinds(health.findings).items():
        about = KINDS[kind]
        lines.append(f"  {about.severity:<7}  {count:>7} in {logs} logs  {about.title}")
        those = [finding for finding in health.findings if finding.kind == kind]
        lines += [f"           {finding}" for finding in those[:shown]]
        if shown is not None and len(those) > shown:
            lines.append(f"           and {len(those) - shown} more; --all prints them, --out writes them")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
