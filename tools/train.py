"""Train a planner: ``python tools/train.py CONFIG [--work-dir W] [--resume] [--cfg-options key=value ...]``.

Distributed: ``torchrun --nproc_per_node 8 tools/train.py CONFIG --launcher pytorch``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description="Train a planner. The best checkpoint by validation PDMS is kept as best_pdms_PDMS_*.pth."
    )
    parser.add_argument("config", help="config file, such as configs/ltf/ltf_tiny_1xb16-12e_synth.py")
    parser.add_argument("--work-dir", help="logs and checkpoints; default: work_dirs/<name of the config>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="continue from a checkpoint; without PATH (or with 'auto') from the newest in the work folder",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on GPU, bfloat16 on CPU")
    parser.add_argument("--seed", type=int, help="seed of everything; default: that of the config")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="key=value", help="change config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Train, or continue to."""
    from beyonddrive.engine.runner import build_train_runner, load_config

    config = load_config(args.config, args.cfg_options)
    resume = args.resume or False
    build_train_runner(config, args.work_dir, resume, args.amp, args.launcher, args.seed).train()


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit code is 1 if config, data or checkpoint are refused."""
    args = parse_args(argv)
    from beyonddrive.engine.runner import ending_processes, explain

    try:
        with ending_processes():
            run(args)
    except (ValueError, RuntimeError, OSError) as error:
        if args.launcher != "none":
            raise  # torchrun shows which rank failed, and ends the others
        print(f"train: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
