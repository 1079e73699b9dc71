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
    """Write the two filters; the exit code is 1 if something is refused or is in neither part."""
    args = parse_args(argv)
    return run_command("split-scene-filter", lambda: split(args))


def split(args: argparse.Namespace) -> int:
    """Write the two filters, and tell which logs cannot be read and what is in neither part."""
    import yaml

    from beyonddrive.datasets.navsim.filter_split import read_log_lists, restrict_to_logs
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.engine.files import write_atomically

    folder = args.out or args.data_root / "scene_filters"
    problems: list[str] = []
    scene_filter = SceneFilter.from_yaml(args.scene_filter)
    lists = read_log_lists(args.log_lists)
    other_logs, other_tokens = set(scene_filter.log_names or ()), set(scene_filter.tokens or ())
    for part, logs in lists.items():
        root = NavsimRoot(args.data_root)
        kept = restrict_to_logs(root, args.split, scene_filter, logs)
        path = folder / f"{args.scene_filter.stem}_{part}.yaml"
        write_atomically(path, yaml.safe_dump(kept.to_dict(), sort_keys=False).encode())
        scenes = "all" if kept.tokens is None else len(kept.tokens)
        print(f"{path}: {len(kept.log_names or ())} logs, {scenes} scenes")
        problems += [f"{part}: {problem}" for problem in root.problems if ".pkl" in problem]
        other_logs -= set(logs)
        other_tokens -= set(kept.tokens or ())
        if scene_filter.log_names is None:
            there = {path.stem for path in root.log_paths(args.split)}
            if absent := sorted(set(logs) - there):
                # (they may be of another split: no reason to fail)
                tell(
                    "split-scene-filter",
                    f"{part}: left out {len(absent)} of {len(logs)} logs of the list, which are not in split "
                    f"{args.split}, the first is {absent[0]}; if they belong there, download them and run "
                    f"this again",
                )
    if other_logs:
        problems.append(
            f"{args.log_lists}: has {len(other_logs)} logs of {args.scene_filter} in neither list, the first "
            f"is {min(other_logs)}"
        )
    if other_tokens and scene_filter.max_scenes is None:
        problems.append(
            f"{len(other_tokens)} of {len(scene_filter.tokens or ())} tokens of {args.scene_filter} are in "
            f"neither part, the first is {min(other_tokens)}: get the logs that are missing and run this "
            f"again, or check --split"
        )
    for problem in problems:
        tell("split-scene-filter", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
