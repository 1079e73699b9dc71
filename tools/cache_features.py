"""Make the feature caches that a config reads: ``python tools/cache_features.py CONFIG [--num-workers N]``.

Run it again after a kill, or when logs have changed: it does what is missing. The exit code is 1 if a scene
has no features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from beyonddrive.engine.executors import add_executor_options, executor_of

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.log_jobs import CacheReport


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description="Make the feature caches that a config reads.")
    parser.add_argument("config", help="config whose data sets have a cache_dir")
    parser.add_argument(
        "--loaders", nargs="+", choices=["train", "val", "test"], default=["train", "val", "test"],
        help="data loaders of the config to make caches for",
    )  # fmt: skip
    add_executor_options(parser)
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="key=value", help="change config"
    )
    args = parser.parse_args(argv)
    args.executor = executor_of(parser, args)
    return args


def _reports(args: argparse.Namespace) -> Iterator[tuple[str, CacheReport]]:
    from beyonddrive.apis import cache_features_of, load_config

    config = load_config(args.config, args.cfg_options)
    yield from cache_features_of(config, args.loaders, args.executor)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the caches; the exit code is 1 if something is refused or a scene has no features."""
    from beyonddrive.datasets.navsim.log_jobs import tell

    return tell("cache_features", "features", _reports(parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
