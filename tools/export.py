"""Export a planner: ``beyonddrive export CONFIG CHECKPOINT OUT.onnx`` (or ``OUT.pt2``).

``.onnx`` is written by torch's exporter and needs the extra ``export``; ``.pt2`` is a program of
``torch.export``. Inputs and outputs have the names that the planner gives them; a planner that samples takes
its standard-normal noise as the input ``noise``. The written file is run and compared with the planner, with
``--free-batch`` at two sizes of a batch; the exit code is 1, and nothing is left, if they differ by more than
1e-4.

With ``--navsim-agent`` OUT is a folder that NAVSIM's devkit runs the planner from, as ``planner.onnx`` or,
by a worker process of this interpreter, with its weights: put it on ``PYTHONPATH`` and into
``hydra.searchpath``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    command_parser,
    refuse_file,
    refuse_idle,
    run_command,
)

LARGEST_DIFFERENCE = 1e-4
"""Between the planner and the file, relative to 1 + the largest value of an output."""

OTHER = 2
"""Scenes more, with which a file for any number of them is run, too: 3, while its graph was drawn with 2."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("export", "Export a planner to ONNX or a torch.export program.")
    add_config(parser, "config of the planner")
    parser.add_argument("checkpoint", help="its weights")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write: OUT.onnx or OUT.pt2")
    parser.add_argument(
        "--batch", type=int, default=1, help="scenes per call, fixed in the file; 1 by default"
    )
    parser.add_argument(
        "--free-batch", action="store_true", help="any number of scenes per call, if it can be"
    )
    parser.add_argument(
        "--navsim-agent", action="store_true", help="OUT is a folder for NAVSIM's devkit, v1.1 and v2"
    )
    parser.add_argument("--without-onnx", action="store_true", help="--navsim-agent: no planner.onnx")
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.navsim_agent:
        refuse_file(parser, "OUT", args.out)
        refuse_idle(parser, args, ("batch", "free_batch"), "OUT.onnx or OUT.pt2")
        return args
    refuse_idle(parser, args, ("without_onnx",), "--navsim-agent")
    if args.out.suffix not in (".onnx", ".pt2"):
        parser.error(f"OUT must end in .onnx or .pt2, got {args.out.name!r}")
    if args.batch < 1:
        parser.error(f"--batch: must be positive, got {args.batch}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Export; the exit code is 1 if anything is refused."""
    args = parse_args(argv)
    return run_command("export", lambda: export(args))


def export(args: argparse.Namespace) -> int:
    """Write the file, run it, and print how much it differs from the planner."""
    import numpy as np

    from beyonddrive.apis import init_planner, load_config
    from beyonddrive.deploy import PlannerGraph, largest_difference, write_graph
    from beyonddrive.engine.runner.result_paths import check_results, files_read

    config = load_config(args.config, args.cfg_options)
    if args.navsim_agent:
        from beyonddrive.tools._agent_folder import check_agent_folder, write_agent

        check_agent_folder(args.out, [*files_read(config), args.checkpoint])
        print(write_agent(config, args.checkpoint, args.out, not args.without_onnx, LARGEST_DIFFERENCE))
        return 0
    check_results({"OUT": args.out}, [*files_read(config), args.checkpoint])
    partial = args.out.with_name(f".partial-{args.out.name}")
    try:
        graph = PlannerGraph(init_planner(config, args.checkpoint), config.model.to_dict())
        write_graph(graph, partial, None if args.free_batch else args.batch)
        sizes = (args.batch, args.batch + OTHER) if args.free_batch else (args.batch,)
        difference = float(np.max([largest_difference(graph, partial, size) for size in sizes]))
        if not difference <= LARGEST_DIFFERENCE:
            raise ValueError(f"{args.out}: differs from the planner by {difference:.1e}; nothing was written")
        partial.replace(args.out)
    finally:
        partial.unlink(missing_ok=True)
    inputs, outputs = ", ".join(graph.input_names), ", ".join(graph.output_names)
    print(f"{args.out}: ({inputs}) -> ({outputs}), differs from the planner by {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
