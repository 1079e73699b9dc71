"""What a planner costs: ``beyonddrive flops CONFIG [--batch 1]``.

Prints parameters and floating-point operations of the planner and of its parts, and the activations that one
forward pass keeps for the backward pass. Inputs are made up, weights are the initial ones; nothing is read
but the config.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    command_parser,
    run_command,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("flops", "Parameters, operations and activation memory of a planner.")
    add_config(parser, "config of the planner")
    parser.add_argument("--batch", type=int, default=1, help="scenes of the forward pass; 1 by default")
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error(f"--batch: must be positive, got {args.batch}")
    return args


def measure(args: argparse.Namespace) -> int:
    """Build the planner, run it once, and print what it costs."""
    from beyonddrive.deploy.cost import measure_cost
    from beyonddrive.engine.build_errors import build_planner
    from beyonddrive.engine.configs import load_config

    planner = build_planner(load_config(args.config, args.cfg_options).model).eval()
    cost = measure_cost(planner, args.batch)
    scenes = "one scene" if args.batch == 1 else f"{args.batch} scenes"
    rows = [("part", "parameters", "GFLOPs")]
    rows += [(part.name, f"{part.parameters:,}", f"{part.flops / 1e9:.3f}") for part in cost.parts]
    rows.append((type(planner).__name__, f"{cost.parameters:,}", f"{cost.flops / 1e9:.3f}"))
    width = max(len(row[0]) for row in rows)
    for name, parameters, flops in rows:
        print(f"{name:<{width}}  {parameters:>12}  {flops:>10}")
    print(
        f"forward pass of {scenes}, all heads; {cost.trained:,} parameters are trained; "
        f"{cost.activations / 2**20:.1f} MiB of activations are kept for the backward pass"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print the cost; the exit code is 1 if the config is refused."""
    args = parse_args(argv)
    return run_command("flops", lambda: measure(args))


if __name__ == "__main__":
    sys.exit(main())
