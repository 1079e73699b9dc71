"""Draw scenes: ``beyonddrive visualize --data-root R --split S --num 4 --plans LTF=plans.npz --out DIR``.

One page per scene and planner, and one of the human: bird's-eye view, camera, sub-scores and why they fail.
The exit code is 1 if a scene or a planner's plan could not be drawn; the others are drawn all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.tools._command_line import command_parser, refuse_file, run_command, tell


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("visualize", "Draw scenes with the plans of planners and their scores.")
    parser.add_argument(
        "--data-root", type=Path, required=True, help="folder with navsim_logs and sensor_blobs"
    )
    parser.add_argument("--maps-root", type=Path, help="folder of the maps; default: DATA_ROOT/maps")
    parser.add_argument("--split", required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tokens", nargs="+", help="scenes to draw")
    which.add_argument("--num", type=int, default=4, help="or how many to choose by chance (default 4)")
    parser.add_argument("--scene-filter", type=Path, help="split file of NAVSIM: which windows are scenes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (default 0)")
    parser.add_argument(
        "--plans",
        nargs="+",
        default=[],
        metavar="NAME=plans.npz",
        help="plans by scene token: (8, 3), or (N, 8, 3) with the proposals after the plan",
    )
    parser.add_argument(
        "--pool", type=Path, help="negative pool; its proposals are coloured by what they fail"
    )
    parser.add_argument("--cameras", choices=["front", "arc"], default="front", help="which cameras to show")
    parser.add_argument(
        "--allow-missing-sensors", action="store_true", help="draw scenes without images from above only"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures and their index.json")
    args = parser.parse_args(argv)
    refuse_file(parser, "--out", args.out)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; the exit code is 1 if something could not be drawn."""
    args = parse_args(argv)
    return run_command("visualize", lambda: draw(args))


def draw(args: argparse.Namespace) -> int:
    """Draw the pages and tell what could not be drawn."""
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.datasets.stores.negative_pool import NegativePool
    from beyonddrive.visualization.scene_pages import (
        PageSettings,
        ScenePages,
        choose_tokens,
        draw_scenes,
        read_plans,
    )
    from beyonddrive.visualization.tables import parse_named

    root = NavsimRoot(args.data_root, args.maps_root)
    plans = {name: read_plans(Path(path)) for name, path in parse_named(args.plans, "--plans")}
    pool = NegativePool(args.pool, allow_partial=True) if args.pool else None
    scene_filter = SceneFilter.from_yaml(args.scene_filter) if args.scene_filter else None
    tokens = args.tokens or choose_tokens(root, args.split, args.num, args.seed, plans, pool, scene_filter)
    pages = ScenePages(root, args.split, pool, PageSettings(args.cameras, args.allow_missing_sensors))
    pictures, problems = draw_scenes(pages, tokens, plans, args.out)
    print(f"{len(pictures)} pictures in {args.out}")
    for problem in problems:
        tell("visualize", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
