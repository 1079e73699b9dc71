"""Cut a scene filter into one for training and one for validation, by lists of logs.

``beyonddrive split-scene-filter navtrain.yaml default_train_val_test_log_split.yaml --data-root
data/navsim --split trainval`` writes ``navtrain_train.yaml`` and ``navtrain_val.yaml`` in
``data/navsim/scene_filters``: the configs select checkpoints on the scenes of the second one, never on the
test split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.tools._command_line import command_parser, run_command, tell


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("split-scene-filter", "Cut a scene filter into training and validation.")
    parser.add_argument(
        "scene_filter", type=Path, help="scene filter, such as NAVSIM's scene_filter/navtrain.yaml"
    )
    parser.add_argument(
        "log_lists",
        type=Path,
        help="lists train_logs and val_logs: NAVSIM's default_train_val_test_log_split.yaml",
    )
    parser.add_argument("--data-root", type=Path, required=True, help="data root in NAVSIM's layout")
    parser.add_argument("--split", default="trainval", help="split of the data root that the filter is for")
    parser.add_argument(
        "--out", type=Path, help="folder of the two filters; default: DATA_ROOT/scene_filters"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the two filters; the exit code is 1 if something is refused or a log cannot be read."""
    args = parse_args(argv)
    return run_command("split-scene-filter", lambda: split(args))


def split(args: argparse.Namespace) -> int:
    """Write the two filters and tell which logs cannot be read."""
    import yaml

    from beyonddrive.datasets.navsim.filter_split import read_log_lists, restrict_to_logs
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.engine.files import write_atomically

    folder = args.out or args.data_root / "scene_filters"
    unreadable: list[str] = []
    scene_filter = SceneFilter.from_yaml(args.scene_filter)
    for part, logs in read_log_lists(args.log_lists).items():
        root = NavsimRoot(args.data_root)
        kept = restrict_to_logs(root, args.split, scene_filter, logs)
        path = folder / f"{args.scene_filter.stem}_{part}.yaml"
        write_atomically(path, yaml.safe_dump(kept.to_dict(), sort_keys=False).encode())
        scenes = "all" if kept.tokens is None else len(kept.tokens)
        print(f"{path}: {len(kept.log_names or ())} logs, {scenes} scenes")
        unreadable += [problem for problem in root.problems if ".pkl" in problem]
    for problem in unreadable:
        tell("split-scene-filter", problem)
    return 1 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
