"""Mine hard negatives: ``beyonddrive mine CONFIG CHECKPOINT --out POOL``.

CONFIG and CHECKPOINT are those of the generator. The same command resumes a job that was killed, and tries
scenes again that failed. ``--report-only POOL`` measures a pool that is there. The exit code is 1 if a scene
failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from beyonddrive.tools._command_line import (
    KeyValues,
    add_config,
    add_config_options,
    command_parser,
    refuse_file,
    refuse_idle,
    run_command,
    tell,
    tell_all,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("mine", "Mine hard negatives with a trained generator.")
    add_config(parser, "config of the generator", optional=True)
    parser.add_argument("checkpoint", nargs="?", help="weights of the generator")
    parser.add_argument("--out", metavar="POOL", help="folder of the pool")
    parser.add_argument("--split", help="split to mine; default: that of the training")
    parser.add_argument("--num-workers", type=int, help="processes that score; default: all cores but one")
    parser.add_argument(
        "--loader-workers",
        type=int,
        default=0,
        help="processes that read scenes; worth it without a feature cache",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="scenes per call of the generator")
    parser.add_argument("--seed", type=int, help="seed of the noise; default: that of the config")
    parser.add_argument("--device", help="default: the GPU if there is one")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="do every N-th shard from the I-th")
    parser.add_argument(
        "--strategy",
        nargs="+",
        action=KeyValues,
        metavar="key=value",
        help="change the sampling strategy: num_proposals=32 noise=0.3, or type=PlainSampling ...",
    )
    parser.add_argument("--column", help="column of the report; default: that of the config, or PDMS")
    parser.add_argument(
        "--threshold", type=float, help="threshold of the report; default: that of the config, or 0.6"
    )
    add_config_options(parser)
    parser.add_argument("--report-only", metavar="POOL", help="mine nothing, measure this pool")
    args = parser.parse_args(argv)
    if args.report_only is None and None in (args.config, args.checkpoint, args.out):
        parser.error("CONFIG, CHECKPOINT and --out are needed, or --report-only POOL")
    if args.report_only is not None:
        refuse_idle(parser, args, ("split", "seed", "part", "strategy"), "mining")
        if args.config is None:
            refuse_idle(parser, args, ("cfg_options",), "CONFIG")
    refuse_file(parser, "--out", args.out)
    try:
        index, count = args.part.split("/")
        args.part = (int(index), int(count))
    except ValueError:
        parser.error(f"--part: must be I/N, such as 0/8, got {args.part!r}")
    return args


def mine(args: argparse.Namespace) -> tuple[dict[str, str], bool]:
    """Run the job; return what failed or is missing, and whether all scenes have been through."""
    import torch

    from beyonddrive.apis import init_planner, load_config
    from beyonddrive.datasets.stores.negative_pool import NegativePool
    from beyonddrive.generators.mining import MiningOptions
    from beyonddrive.generators.mining_job import build_miner, share_cores

    config = load_config(args.config, args.cfg_options)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    planner = init_planner(config, args.checkpoint, device)
    num_workers = share_cores(args.num_workers)
    options = MiningOptions(args.batch_size, num_workers, args.loader_workers, args.part)
    miner = build_miner(
        config, planner, args.checkpoint, args.out, args.split, args.strategy, args.seed, options
    )
    summary = miner.run()
    print(f"{args.out}: {summary.mined} scenes mined, {summary.resumed} were there before")
    return {**summary.failures, **summary.lost}, NegativePool(args.out, allow_partial=True).is_finished


def report(args: argparse.Namespace, root: str) -> Mapping[str, str]:
    """Measure a pool, print the table, write it beside the pool; return what failed or is missing."""
    from beyonddrive.apis import load_config
    from beyonddrive.datasets.stores.negative_pool import NegativePool
    from beyonddrive.generators.coverage import write_report
    from beyonddrive.generators.mining_job import report_pool

    config = load_config(args.config, args.cfg_options) if args.config else None
    pool = NegativePool(root, allow_partial=True)
    coverage = report_pool(pool, config, args.column, args.threshold)
    print(coverage.table())
    print(f"written to {write_report(pool, coverage)}")
    if not pool.is_finished:
        tell("mine", f"{root}: the pool is unfinished, run its job again to resume")
    elif not pool.is_complete:
        tell(
            "mine",
            f"{root}: the pool is incomplete: it has {len(pool)} scenes, and {len(pool.lost)} scene(s) or "
            "log(s) of its split were missing; mend the split and mine it into another folder",
        )
    return {**pool.failures, **pool.lost}


def main(argv: Sequence[str] | None = None) -> int:
    """Mine and report; the exit code is 1 if something is refused or a scene failed."""
    args = parse_args(argv)
    return run_command("mine", lambda: mine_and_report(args))


def mine_and_report(args: argparse.Namespace) -> int:
    """Mine, measure the pool if all scenes have been through, and tell which ones failed or are missing."""
    failures: Mapping[str, str]
    if args.report_only is not None:
        failures = report(args, args.report_only)
    else:
        failures, is_finished = mine(args)
        if is_finished:
            failures = report(args, args.out)
        else:
            print(f"{args.out}: other parts are still to be mined; --report-only measures the pool then")
    tell_all("mine", [f"{name} failed: {reason}" for name, reason in failures.items()])
    if failures:
        tell("mine", f"{len(failures)} scenes or logs failed; the same command tries scenes again")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
