"""Is this machine fit: ``beyonddrive doctor [CONFIG ...] [--data-root R] [--devkit-python PYTHON]``.

One line for each thing that is looked at: ok, warn or fail, and what to do. Without arguments: versions,
linear algebra, a self-test of the score, GPUs, the package ``navsim``. With configs, or ``--data-root``, also
data, maps, scene filters, caches and their freshness, and free disk against what the configs will write. The
exit code is 1 if something has failed, and 2 if a config or the devkit's interpreter cannot be asked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import (
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    run_command,
)

if TYPE_CHECKING:
    from beyonddrive.engine.checks import Check

LOGS = 8
"""Logs of a split that are read."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("doctor", "Say whether this machine and its data are fit.")
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="configs that shall run here")
    parser.add_argument("--data-root", type=Path, help="data root; default: those of the configs")
    parser.add_argument("--maps-root", type=Path, help="its maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--stores", type=Path, nargs="+", default=[], help="folders with caches and pools")
    parser.add_argument(
        "--devkit-python", type=Path, metavar="PYTHON", help="interpreter of the NAVSIM devkit, to test, too"
    )
    parser.add_argument(
        "--logs",
        type=int,
        default=LOGS,
        help=f"logs of a split to read (default {LOGS}); 0 reads all of them",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        nargs="?",
        const=Path("-"),
        help="also write what was found; without a file, or with -, print it instead",
    )
    add_executor_options(parser)
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.logs < 0:
        parser.error(f"--logs: must not be negative, got {args.logs}")
    if args.maps_root is not None and args.data_root is None:
        parser.error("--maps-root: goes with --data-root; configs have maps_root")
    if args.cfg_options and not args.configs:
        parser.error("--cfg-options: changes configs, and none is given")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Look at everything; 1 if something has failed, 2 if a config or the devkit's interpreter is refused."""
    args = parse_args(argv)
    return run_command("doctor", lambda: doctor(args), refused=2)


def doctor(args: argparse.Namespace) -> int:
    """Make the checks, print each as it is made, and write them."""
    from beyonddrive.engine.checks import exit_code, to_json
    from beyonddrive.engine.environment import environment
    from beyonddrive.engine.files import write_atomically

    prints_json = args.json is not None and str(args.json) == "-"
    checks = []
    for check in all_checks(args):
        checks.append(check)
        if not prints_json:
            print(check, flush=True)
    report = json.dumps({**to_json(checks), "environment": environment()}, indent=1) + "\n"
    if prints_json:
        print(report, end="")
    elif args.json is not None:
        write_atomically(args.json, report.encode())
    return exit_code(checks)


def all_checks(args: argparse.Namespace) -> Iterator[Check]:
    """Every check that a command line asks for, as it is made."""
    from beyonddrive.engine.checks import attempt
    from beyonddrive.engine.machine_checks import (
        blas_checks,
        devkit_checks,
        fit_checks,
        gpu_checks,
        navsim_checks,
        version_checks,
    )
    from beyonddrive.evaluation.self_test import self_test_checks
    from beyonddrive.tools._doctor_configs import disk_checks, needs_of_all, read_configs
    from beyonddrive.tools._doctor_data import needed_data_checks

    configs = read_configs(args.configs, args.cfg_options)
    for name, check in (
        ("versions", version_checks),
        ("blas", blas_checks),
        ("speed fit", fit_checks),
        ("score", self_test_checks),
        ("gpu", gpu_checks),
        ("navsim", navsim_checks),
    ):
        yield from attempt(name, check)
    if args.devkit_python is not None:
        yield from devkit_checks(args.devkit_python)
    needs, refused = needs_of_all(configs)
    yield from refused
    given = None if args.data_root is None else (args.data_root, args.maps_root)
    yield from needed_data_checks(needs, given, args.stores, args.logs or None, executor_of(args))
    yield from attempt("disk", lambda: disk_checks(needs))


if __name__ == "__main__":
    sys.exit(main())
