"""Make metric caches, which spare every evaluation the work on logs and maps.

``beyonddrive cache-metrics CONFIG`` makes those that the evaluators of a config read;
``beyonddrive cache-metrics --data-root R --split S --out DIR`` those of any split.

Run it again after a kill, or when logs have changed: it does what is missing. The exit code is 1 if a scene
has no metric cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    fill_stores,
    refuse_file,
    refuse_idle,
    run_command,
)

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.log_jobs import CacheReport


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("cache-metrics", "Make metric caches for the PDM score.")
    add_config(parser, "config whose evaluators have a cache_dir", optional=True)
    parser.add_argument(
        "--loaders", nargs="+", choices=["val", "test"], default=["val", "test"],
        help="evaluators of the config to make caches for",
    )  # fmt: skip
    add_config_options(parser)
    parser.add_argument("--data-root", type=Path, help="without CONFIG: data root in NAVSIM's layout")
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--split", help="split of the data root")
    parser.add_argument("--scene-filter", type=Path, help="yaml file of a split; default: all whole windows")
    parser.add_argument("--out", type=Path, help="folder of the caches")
    add_executor_options(parser)
    args = parser.parse_args(argv)
    if args.config is None and not (args.data_root and args.split and args.out):
        parser.error("give CONFIG, or --data-root, --split and --out")
    if args.config is None:
        refuse_idle(parser, args, ("loaders", "cfg_options"), "CONFIG")
    else:
        idle = ("data_root", "maps_root", "split", "scene_filter", "out")
        refuse_idle(parser, args, idle, "a command line without CONFIG, which says this itself")
    refuse_file(parser, "--out", args.out)
    return args


def _reports(args: argparse.Namespace) -> Iterator[tuple[str, CacheReport]]:
    if args.config is not None:
        from beyonddrive.apis import cache_metrics_of, load_config

        config = load_config(args.config, args.cfg_options)
        yield from cache_metrics_of(config, args.loaders, executor_of(args))
        return
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.evaluation.metric_caching import cache_metrics

    scene_filter = SceneFilter.from_config(args.scene_filter)
    root = NavsimRoot(args.data_root, args.maps_root)
    yield args.split, cache_metrics(root, args.split, scene_filter, args.out, executor_of(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Make the caches; the exit code is 1 if something is refused or a scene has no cache."""
    args = parse_args(argv)
    return run_command("cache-metrics", lambda: fill_stores("cache-metrics", "metric caches", _reports(args)))


if __name__ == "__main__":
    sys.exit(main())
