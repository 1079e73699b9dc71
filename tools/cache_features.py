"""Make the feature caches that a config reads: ``python tools/cache_features.py CONFIG [--num-workers N]``.

Run it again after a kill, or when logs have changed: it does what is missing. The exit code is 1 if a scene
has no features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beyonddrive.datasets.log_caches import CacheReport


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description="Make the feature caches that a config reads.")
    parser.add_argument("config", help="config whose data sets have a cache_dir")
    parser.add_argument(
        "--loaders", nargs="+", choices=["train", "val", "test"], default=["train", "val", "test"],
        help="data loaders of the config to make caches for",
    )  # fmt: skip
    parser.add_argument("--num-workers", type=int, default=0, help="processes; 0 works in this one")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="key=value", help="change config"
    )
    return parser.parse_args(argv)


def _reports(args: argparse.Namespace) -> Iterator[tuple[str, CacheReport]]:
    from beyonddrive.apis import cache_features_of, load_config

    config = load_config(args.config, args.cfg_options)
    yield from cache_features_of(config, args.loaders, args.num_workers)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the caches; the exit code is 1 if something is refused or a scene has no features."""
    from beyonddrive.datasets.log_caches import tell

    return tell("cache_features", "features", _reports(parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
