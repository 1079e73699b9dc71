"""Make a vocabulary of plans: ``beyonddrive build-vocabulary CONFIG_OR_ROOT SPLIT --size N --out FILE``.

Clusters the expert plans of a split by k-means and writes the centres. CONFIG_OR_ROOT is a config, and SPLIT
then one of its data sets (train, val or test); or a data root in NAVSIM's layout, and SPLIT one of its
splits. Only the logs are read, neither sensors nor maps. The file holds ``plans`` (N, 8, 3), ``counts`` of
the clusters, and ``step_means`` and ``step_stds`` (N, 4) of their steps, from which MeanFuser's Gaussian
mixture is made. Sizes as published: 4096 for the vocabulary planner, 256 for WoTE, 20 for DiffusionDrive, 8
for MeanFuser.

Scenes that cannot be read are named and left out. The exit code is 1 if something is refused, or if the file
is of a part of the split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import (
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    refuse_idle,
    run_command,
    tell,
    tell_all,
)

if TYPE_CHECKING:
    from beyonddrive.generators.expert_plans import SceneSource


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("build-vocabulary", "Make a vocabulary of plans by k-means.")
    parser.add_argument("source", metavar="CONFIG_OR_ROOT", type=Path, help="config, or data root")
    parser.add_argument("split", help="train, val or test of a config; a split of a data root")
    parser.add_argument("--size", type=int, default=4096, help="plans in the vocabulary")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clustering")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="npz file to write")
    parser.add_argument("--scene-filter", type=Path, help="with a data root: yaml file of its scenes")
    parser.add_argument("--max-iterations", type=int, default=50, help="rounds of k-means at most")
    add_executor_options(parser)
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.max_iterations < 1:
        parser.error(f"--max-iterations: must be at least 1, got {args.max_iterations}")
    if args.source.is_dir():
        refuse_idle(parser, args, ("cfg_options",), "a config")
    return args


def source_of(args: argparse.Namespace) -> SceneSource:
    """The scenes that ``args.source`` and ``args.split`` name.

    Raises:
        ValueError: If a config has no such data set.
    """
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.generators.expert_plans import SceneSource

    if args.source.is_dir():
        root = NavsimRoot(args.source, getattr(args, "maps_root", None))  # (experts are read without maps)
        return SceneSource(root, args.split, SceneFilter.from_config(args.scene_filter))
    from beyonddrive.apis import load_config

    if args.scene_filter is not None:
        raise ValueError("--scene-filter goes with a data root; a config has its own, see --cfg-options")
    config = load_config(args.source, args.cfg_options)
    loader = config.get(f"{args.split}_dataloader")
    if loader is None:
        loaders = [name for name in ("train", "val", "test") if config.get(f"{name}_dataloader") is not None]
        raise ValueError(f"{args.source}: has no data set {args.split!r}, choose one of {loaders}")
    return SceneSource.from_dataset(loader.dataset)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the vocabulary; the exit code is 1 if something is refused or scenes are lost."""
    args = parse_args(argv)
    return run_command("build-vocabulary", lambda: build(args))


def check_out(args: argparse.Namespace) -> None:
    """Refuse to write over anything but an earlier vocabulary, such as a file of the data root.

    Raises:
        ConfigError: If ``--out`` cannot be written, or is there and no vocabulary.
    """
    from beyonddrive.engine.config_values import ConfigError
    from beyonddrive.engine.runner.result_paths import check_results
    from beyonddrive.structures.vocabulary import VocabularyError, read_vocabulary

    check_results({"--out": args.out}, [args.scene_filter] if args.scene_filter else [])
    if args.out.exists():
        try:
            read_vocabulary(args.out)
        except VocabularyError:
            raise ConfigError(
                f"--out {args.out}: is there and no vocabulary, so it is not written over; give another name"
            ) from None


def build(args: argparse.Namespace) -> int:
    """Make the vocabulary."""
    from beyonddrive.generators.expert_plans import read_expert_plans
    from beyonddrive.generators.vocabulary import build_vocabulary, describe_vocabulary, write_vocabulary

    check_out(args)
    source = source_of(args)
    experts = read_expert_plans(source, executor_of(args))
    account = experts.account
    tell_all("build-vocabulary", [f"{name}: {reason}" for name, reason in account.lost.items()])
    plans = build_vocabulary(experts.plans, args.size, args.seed, args.max_iterations)
    meta = {"split": source.split, "data_root": source.root.root.resolve().name, "seed": args.seed}
    write_vocabulary(args.out, describe_vocabulary(experts.plans, plans, meta))
    print(f"{args.out}: {args.size} plans, clusters of {len(experts.plans)} expert plans of {source.split}")
    if account.is_complete:
        return 0
    tell("build-vocabulary", f"the vocabulary is of {account}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
