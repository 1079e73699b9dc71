"""Train a planner: ``beyonddrive train CONFIG [--work-dir W] [--resume] [--cfg-options key=value ...]``.

Distributed: ``tools/dist_train.sh CONFIG 8``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    add_launcher_options,
    command_parser,
    run_distributed,
)

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(
        "train", "Train a planner. The best checkpoint by validation PDMS is kept as best_pdms_PDMS_*.pth."
    )
    add_config(parser, "config to train")
    parser.add_argument("--work-dir", help="logs and checkpoints; default: work_dirs/<name of the config>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="continue from a checkpoint; without PATH (or with 'auto') from the newest in the work folder",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on GPU, bfloat16 on CPU")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the scenes per step, by auto_scale_lr.base_batch_size of the config",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="make one step in a single process, print its shapes, parameters, operations and memory",
    )
    parser.add_argument(
        "--seed", type=int, help="seed of everything; default: that of the checkpoint to resume, or CONFIG's"
    )
    add_config_options(parser)
    add_launcher_options(parser)
    args = parser.parse_args(argv)
    if args.dry_run and (args.resume or args.launcher != "none"):
        parser.error("--dry-run: makes the first step in a single process, without --resume and --launcher")
    return args


def train(args: argparse.Namespace) -> int:
    """Train, or continue to."""
    from beyonddrive.engine.allocator import keep_freed_memory
    from beyonddrive.engine.runner import build_train_runner, load_config

    config = load_config(args.config, args.cfg_options)
    if args.dry_run:
        return _dry_run(config, args)
    keep_freed_memory()
    _advise_on_threads(config)
    resume = args.resume or False
    build_train_runner(
        config, args.work_dir, resume, args.amp, args.launcher, _seed(args, config), args.auto_scale_lr
    ).train()
    return 0


def _seed(args: argparse.Namespace, config: Config) -> int | None:
    """The seed that the command line asks for, by either option; None leaves it to checkpoint and config."""
    from beyonddrive.engine.config_values import ConfigError

    if not {"randomness", "randomness.seed"} & set(args.cfg_options or {}):
        return args.seed
    seed = (config.get("randomness") or {}).get("seed")
    if args.seed not in (None, seed):
        raise ConfigError(f"--seed {args.seed}: --cfg-options gives the seed {seed}; leave one of them out")
    return seed


def _share_cores() -> None:
    """Have threads that wait for others sleep, not spin; to be called before torch is imported.

    Two trainings with a thread for every core keep each other from running where threads spin: on two cores a
    step then took forty times as long (``benchmarks/shared_cores.py``). A training that is alone is a sixth
    slower by it; ``OMP_WAIT_POLICY=ACTIVE`` in the environment has its threads spin.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _advise_on_threads(config: Config) -> None:
    """Say so if other processes use the cores."""
    import logging

    import torch
    from mmengine.logging import print_log

    busy, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if torch.cuda.is_available() or config.get("num_threads") or torch.get_num_threads() == 1 or busy < 1:
        return
    print_log(
        f"other processes keep {busy:.1f} of {cores} cores busy: trainings that share them are fastest with "
        f"--cfg-options num_threads=1 each; beyonddrive sweep --jobs N divides the cores by itself",
        "current",
        logging.WARNING,
    )


def _dry_run(config: Config, args: argparse.Namespace) -> int:
    """Make a step that leaves nothing behind."""
    from tempfile import TemporaryDirectory

    from beyonddrive.engine.runner import build_train_runner
    from beyonddrive.tools._dry_run import dry_run

    config.log_level = "WARNING"
    with TemporaryDirectory() as folder:
        given = config, folder, False, args.amp, "none", _seed(args, config), args.auto_scale_lr
        dry_run(build_train_runner(*given, is_dry_run=True))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit code is 1 if config, data or checkpoint are refused."""
    args = parse_args(argv)
    _share_cores()
    return run_distributed("train", lambda: train(args), args.launcher)


if __name__ == "__main__":
    sys.exit(main())
