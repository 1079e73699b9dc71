"""Draw scenes: ``beyonddrive visualize --data-root R --split S --plans LTF=plans.npz --worst 20 --out DIR``.

One page per scene and planner, and one of the human: bird's-eye view, cameras, sub-scores and why they fail.
Scenes are chosen by token, by chance, or as the worst of a planner by any column of its scores (``--column
DAC``); or all are drawn. The same command goes on where it was stopped. The exit code is 1 if a scene or a
planner's plan could not be scored or drawn; the others are drawn all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import (
    add_executor_options,
    command_parser,
    executor_of,
    refuse_file,
    refuse_idle,
    run_command,
    tell,
    tell_all,
)

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.evaluation.score_results import Results
    from beyonddrive.visualization.page_jobs import Plans

NUM = 4
"""Scenes that are chosen by chance."""


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
    which.add_argument(
        "--num", type=int, default=NUM, help=f"or how many to choose by chance (default {NUM})"
    )
    which.add_argument("--all", action="store_true", help="or all scenes of the split")
    which.add_argument("--worst", type=int, metavar="N", help="or those with the lowest scores of a planner")
    parser.add_argument("--column", help="--worst: by which sub-score, such as DAC; default: the score")
    parser.add_argument(
        "--of", metavar="NAME", help="--worst: of which planner; default: the first of --plans"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="CSV",
        help="--worst: scores that beyonddrive test --out wrote; default: the plans are scored now",
    )
    parser.add_argument("--cache-dir", type=Path, help="--worst: metric caches to score by; kept and used")
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
    parser.add_argument(
        "--version",
        choices=("v1", "v2"),
        help="v1: PDM score; v2: EPDMS, one stage; default: v1, or what has the column",
    )
    parser.add_argument(
        "--cameras", choices=["front", "arc", "all"], default="front", help="which cameras to show"
    )
    parser.add_argument(
        "--allow-missing-sensors", action="store_true", help="draw scenes without images from above only"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures and their index.json")
    add_executor_options(parser)
    args = parser.parse_args(argv)
    refuse_file(parser, "--out", args.out)
    for option in ("num", "worst"):
        if (value := getattr(args, option)) is not None and value < 1:
            parser.error(f"--{option}: must be at least 1, got {value}")
    if args.worst is None:
        refuse_idle(parser, args, ("column", "of", "results", "cache_dir"), "--worst N")
    if args.tokens is not None:
        refuse_idle(parser, args, ("scene_filter",), "scenes that are chosen, not named")
    if args.tokens is not None or args.all or args.worst is not None:
        refuse_idle(parser, args, ("seed",), "--num, a choice by chance")
    if args.worst is not None and not (args.plans or args.results):
        parser.error("--worst: needs --plans, or --results with the scores of a planner")
    if args.results is not None and (args.of is not None or args.cache_dir is not None):
        parser.error("--results: is of one planner, and scored; leave out --of and --cache-dir")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; the exit code is 1 if something could not be drawn."""
    args = parse_args(argv)
    return run_command("visualize", lambda: draw(args))


def draw(args: argparse.Namespace) -> int:
    """Choose scenes, draw their pages and tell what could not be drawn."""
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.datasets.stores.manifests import MANIFEST
    from beyonddrive.datasets.stores.negative_pool import NegativePool
    from beyonddrive.evaluation.plan_files import PlanFile
    from beyonddrive.evaluation.score_files import describe_inputs
    from beyonddrive.evaluation.score_results import read_results
    from beyonddrive.visualization.page_jobs import draw_scenes
    from beyonddrive.visualization.scene_choice import choose_tokens
    from beyonddrive.visualization.scene_pages import PageSettings, ScenePages
    from beyonddrive.visualization.tables import parse_named

    root = NavsimRoot(args.data_root, args.maps_root)
    files = {name: Path(path) for name, path in parse_named(args.plans, "--plans")}
    plans = {name: dict(PlanFile(path)) for name, path in files.items()}  # (a bad one is found at once)
    pool = NegativePool(args.pool, allow_partial=True) if args.pool else None
    scene_filter = SceneFilter.from_yaml(args.scene_filter) if args.scene_filter else None
    results = read_results(args.results.stem, args.results) if args.results else None
    version = args.version or _version_of(args.column, results)
    notes: Mapping[str, str] = {}
    problems: list[str] = []
    if args.worst is not None:
        notes, problems = _worst(args, root, plans, scene_filter, version, results)
        tokens: Sequence[str] = list(notes)
    else:
        count = None if args.all else args.num
        tokens = args.tokens or choose_tokens(root, args.split, count, args.seed, plans, pool, scene_filter)
    settings = PageSettings(args.cameras, args.allow_missing_sensors, version=version)
    pages = ScenePages(root, args.split, pool, settings)
    files_read = [*files.values(), *([args.pool / MANIFEST] if pool else [])]
    made_from = {
        **describe_inputs(root, args.split, None, files_read),
        "planners": list(plans),
        "pool_scenes": len(pool) if pool else 0,
        "settings": vars(settings),
    }
    pictures, undrawn = draw_scenes(pages, tokens, plans, args.out, executor_of(args), notes, made_from)
    print(f"{len(pictures)} pictures in {args.out}")
    wrong = list(dict.fromkeys([*root.problems, *problems, *undrawn]))
    tell_all("visualize", wrong)
    return int(bool(wrong))


def _version_of(column: str | None, results: Results | None) -> Any:
    """The score that has a column."""
    from beyonddrive.evaluation.score_results import EPDMS
    from beyonddrive.structures.plan import SCORE_COLUMNS

    if results is not None:
        return "v2" if results.kind == EPDMS else "v1"
    return "v1" if column is None or column in SCORE_COLUMNS else "v2"


def _worst(
    args: argparse.Namespace,
    root: NavsimRoot,
    plans: Plans,
    scene_filter: SceneFilter | None,
    version: Any,
    results: Results | None,
) -> tuple[dict[str, str], list[str]]:
    """The worst scenes with what their pages say of it, and which have no score."""
    from beyonddrive.evaluation.pdm import EPDMS_COLUMNS
    from beyonddrive.evaluation.split_scoring import score_split
    from beyonddrive.structures.plan import SCORE_COLUMNS
    from beyonddrive.visualization.scene_choice import PlansError, worst_scenes

    wanted = {ref.token for ref in root.refs(args.split, scene_filter)} if scene_filter else None
    problems: list[str] = []
    if results is not None:
        name, columns = results.label, results.kind.columns
        values = {token: row for token, row in results.values.items() if wanted is None or token in wanted}
    else:
        name, columns = args.of or next(iter(plans)), EPDMS_COLUMNS if version == "v2" else SCORE_COLUMNS
        if name not in plans:
            raise PlansError(f"--of {name}: is none of --plans, choose one of {', '.join(plans)}")
        if args.column is not None and args.column not in columns:  # before an hour of scoring
            worst_scenes({}, columns, args.column, 0)
        chosen = {t: array[:1] for t, array in plans[name].items() if wanted is None or t in wanted}
        found = score_split(
            root, args.split, chosen, executor=executor_of(args), cache_dir=args.cache_dir, version=version
        )
        values = {token: rows[0] for token, rows in found.values.items()}
        problems = [*found.problems, *(f"scene {token}: {why}" for token, why in found.failures.items())]
    column = args.column or columns[-1]
    worst = worst_scenes(values, columns, column, args.worst)
    if len(worst) < args.worst:
        tell("visualize", f"only {len(worst)} of {len(values)} scenes of {name} lose anything in {column}")
    notes = {scene.token: f"no. {scene.rank} by {column} of {name}: {scene.value:.2f}" for scene in worst}
    return notes, problems


if __name__ == "__main__":
    sys.exit(main())
