"""Make data sets: ``beyonddrive create-data synth --out data/synth --seed 0 --num-scenes 300``.

``synth`` generates a world in NAVSIM's layout: towns that Eclipse SUMO simulates, seen by cameras and LiDAR.
Run it again after a kill: it does what is missing. A finished world is left as it is.
``mmdet3d-infos`` writes a split as mmdet3d reads it: info files, points, and a database of agents.
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
    fill_stores,
    refuse_file,
    run_command,
)


def split_sizes(text: str) -> dict[str, int]:
    """Read ``train:2000,val:200,test:300``.

    Raises:
        argparse.ArgumentTypeError: If it is something else.

    >>> split_sizes("train:20,test:5")
    {'train': 20, 'test': 5}
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.partition(":")
        if not name or not count.isdigit() or int(count) < 1 or name in sizes:
            raise argparse.ArgumentTypeError(f"{text!r}: write splits as train:2000,val:200,test:300")
        sizes[name] = int(count)
    return sizes


def image_size(text: str) -> tuple[int, int]:
    """Read ``480x270``.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: write a size as 480x270")
    return int(width), int(height)


def shared_sizes(num_scenes: int) -> dict[str, int]:
    """Split a number of scenes into train, val and test as 7 : 1 : 2.

    Raises:
        ValueError: If there are fewer than three scenes.

    >>> shared_sizes(300)
    {'train': 210, 'val': 30, 'test': 60}
    """
    if num_scenes < 3:
        raise ValueError(f"--num-scenes {num_scenes}: train, val and test need at least one scene each")
    val, test = max(num_scenes // 10, 1), max(num_scenes // 5, 1)
    return {"train": num_scenes - val - test, "val": val, "test": test}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("create-data", "Make data sets in NAVSIM's layout.")
    sources = parser.add_subparsers(dest="source", required=True)
    synth = sources.add_parser("synth", help="generate a world; needs the extra 'synth'")
    synth.add_argument("--out", type=Path, default=Path("data/synth"), help="data root to write")
    synth.add_argument("--seed", type=int, default=0, help="everything follows from it")
    amount = synth.add_mutually_exclusive_group()
    amount.add_argument(
        "--num-scenes", type=int, default=300, help="scenes in all, shared 7:1:2 by train, val and test"
    )
    amount.add_argument("--splits", type=split_sizes, metavar="NAME:SCENES,...", help="scenes of each split")
    synth.add_argument(
        "--image-size", type=image_size, default=(480, 270), metavar="WxH",
        help="size of the pictures; 1920x1080 is that of NAVSIM",
    )  # fmt: skip
    synth.add_argument(
        "--cameras", choices=["all", "front", "none"], default="all",
        help="all eight, those that planners stitch (CAM_L0, CAM_F0, CAM_R0), or none",
    )  # fmt: skip
    synth.add_argument("--lidar", action=argparse.BooleanOptionalAction, default=True, help="LiDAR sweeps")
    synth.add_argument(
        "--sensor-frames", choices=["scenes", "all"], default="scenes",
        help="sensors of the current frame of every scene, which is what planners see, or of every frame",
    )  # fmt: skip
    synth.add_argument(
        "--scenes-per-town",
        type=int,
        default=150,
        help="at most; fewer make the world more varied and take longer",
    )
    synth.add_argument(
        "--min-expert-score", type=float, default=0.0, metavar="PDMS",
        help="ask the scorer too, and leave out scenes whose expert has a lower PDM score (slower); by "
        "default experts are checked by geometry only",
    )  # fmt: skip
    add_executor_options(synth)
    infos = sources.add_parser("mmdet3d-infos", help="write a split as mmdet3d reads it")
    infos.add_argument("--data-root", type=Path, default=Path("data/synth"), help="data root to read")
    infos.add_argument("--split", nargs="+", required=True, help="splits to write")
    infos.add_argument("--scene-filter", type=Path, metavar="YAML", help="scenes of them; all if not given")
    infos.add_argument("--out", type=Path, required=True, help="folder to write")
    add_executor_options(infos)
    args = parser.parse_args(argv)
    refuse_file(parser, "--out", args.out)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Make the data; the exit code is 1 if something is refused or missing."""
    args = parse_args(argv)
    work = {"synth": create_synth, "mmdet3d-infos": create_infos}[args.source]
    return run_command("create-data", lambda: work(args))


def create_synth(args: argparse.Namespace) -> int:
    """Generate a world and print what is in it."""
    from beyonddrive.evaluation.experts import score_experts
    from beyonddrive.synth.world import create_world
    from beyonddrive.synth.world_config import WorldConfig

    config = WorldConfig(
        splits=args.splits or shared_sizes(args.num_scenes),
        seed=args.seed,
        image_size=args.image_size,
        cameras=args.cameras,
        lidar=args.lidar,
        sensor_frames=args.sensor_frames,
        scenes_per_town=args.scenes_per_town,
        min_expert_score=args.min_expert_score,
    )
    summary = create_world(args.out, config, executor_of(args), score_experts)
    for split, count in summary["scenes"].items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in summary["kinds"][split].items())
        print(f"{split}: {count} scenes in {summary['logs'][split]} logs ({kinds})")
    return 0


def create_infos(args: argparse.Namespace) -> int:
    """Write info files of some splits and print what became of each."""
    from beyonddrive.datasets.info_files import write_info_files
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter

    root, executor = NavsimRoot(args.data_root), executor_of(args)
    scenes = SceneFilter.from_config(args.scene_filter)
    reports = ((split, write_info_files(root, split, args.out, executor, scenes)) for split in args.split)
    return fill_stores("create-data", "infos", reports)


if __name__ == "__main__":
    sys.exit(main())
