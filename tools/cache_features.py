"""Make the feature caches that a config reads: ``beyonddrive cache-features CONFIG [--num-workers N]``.

Run it again after a kill, or when logs have changed: it does what is missing. The exit code is 1 if a scene
has no features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    fill_stores,
    run_command,
)

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.log_jobs import CacheReport


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("cache-features", "Make the feature caches that a config reads.")
    add_config(parser, "config whose data sets have a cache_dir")
    parser.add_argument(
        "--loaders", nargs="+", choices=["train", "val", "test"], default=["train", "val", "test"],
        help="data loaders of the config to make caches for",
    )  # fmt: skip
    add_executor_options(parser)
    add_config_options(parser)
    return parser.parse_args(argv)


def _reports(args: argparse.Namespace) -> Iterator[tuple[str, CacheReport]]:
    from beyonddrive.apis import cache_features_of, load_config

    config = load_config(args.config, args.cfg_options)
    yield from cache_features_of(config, args.loaders, executor_of(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Make the caches; the exit code is 1 if something is refused or a scene has no features."""
    args = parse_args(argv)
    return run_command("cache-features", lambda: fill_stores("cache-features", "features", _reports(args)))


if __name__ == "__main__":
    sys.exit(main())
