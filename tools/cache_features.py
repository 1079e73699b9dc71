"""Make the feature caches that a config reads: ``python tools/cache_features.py CONFIG [--num-workers N]``.

Run it again after a kill, or when logs have changed: it does what is missing. The exit code is 1 if a scene
has no features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


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


def main(argv: Sequence[str] | None = None) -> int:
    """Make the caches; the exit code is 1 if something is refused or a scene has no features."""
    args = parse_args(argv)
    from beyonddrive.apis import cache_features_of, load_config

    failed = False
    try:
        config = load_config(args.config, args.cfg_options)
        for name, report in cache_features_of(config, args.loaders, args.num_workers):
            print(f"{name}: features of {report.num_scenes} scenes, {report.num_new_logs} logs done now")
            for token, reason in report.failures.items():
                print(f"cache_features: scene {token}: {reason}", file=sys.stderr)
            for problem in report.problems:
                print(f"cache_features: {problem}", file=sys.stderr)
            failed |= bool(report.failures or report.problems)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"cache_features: {error}", file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
