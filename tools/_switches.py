"""What command lines share that take HUGSIM's switches: a preset, and switches that are set otherwise."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimSettings

PRESET_NAMES = ("pr57", "main", "mid_2025", "paper_2024")


def add_switches(parser: argparse.ArgumentParser, what: str = "") -> None:
    """Give a command line the options ``--preset`` and ``--switch``, which :func:`switched` reads.

    Args:
        parser: The command line.
        what: Which switches it takes, for the help; empty for all.
    """
    parser.add_argument("--preset", choices=PRESET_NAMES, default="pr57", help="HUGSIM's switches, combined")
    parser.add_argument(
        "--switch",
        dest="switches",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a switch that is not as the preset has it{what and ': '}{what}; again for more",
    )


def switched(args: argparse.Namespace, **usual: Any) -> HugsimSettings:
    """The preset of a command line with its switches.

    Args:
        args: The command line.
        usual: Switches that are not the preset's even if none is given.

    Raises:
        HugsimError: If there is no such switch, or it cannot be that.
    """
    from beyonddrive.evaluation.closed_loop.hugsim.settings import preset, read_switches

    return preset(args.preset).changed(**{**usual, **read_switches(args.switches)})
