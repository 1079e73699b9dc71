"""Print what a config is in the end: ``beyonddrive print-config CONFIG [--cfg-options key=value ...]``.

What it inherits is in it, references are replaced and options are applied; the text is a config in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from beyonddrive.tools._command_line import add_config, add_config_options, command_parser, run_command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("print-config", "Print a config with all that it inherits.")
    add_config(parser, "config to print")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the config; the exit code is 1 if it is refused."""
    args = parse_args(argv)

    def work() -> int:
        from beyonddrive.engine.configs import load_config

        print(load_config(args.config, args.cfg_options).pretty_text)
        return 0

    return run_command("print-config", work)


if __name__ == "__main__":
    sys.exit(main())
