"""Compare ours with its originals: ``beyonddrive check-golden GOLDEN_DIR [--planner NAME]``.

What GOLDEN_DIR holds is recognised:

* HUGSIM's arrays (``records.json``, ``controller.npz``, ``episodes/`` and so on), its cameras
  (``cameras.json``) and what was seen of its HTTP protocol (``http.json``, by a server that is started for it
  on this machine alone): one line per file, and what of them is not compared, and why.
* Two-stage scores of NAVSIM v2 (``two_stage.npz``, ``scenes/``; maps by ``--maps-root``): one line per file.
* Planners (one of them by ``--planner``; run on ``--device``): ``recipe.py`` (which is run: name only
  directories that you trust) and, for each planner, ``<name>.keys.json``, ``<name>.npz``,
  ``<name>.meta.json`` and perhaps ``<name>.data.npz``. The recipe's weights, under the original's names, pass
  through the conversion of ``beyonddrive convert``; then every output, loss and gradient must agree to 2e-5 *
  (1 + max|golden|) in float32. A list of names without arrays is only converted, forth and back. One line per
  planner.

The exit code is 1 if anything fails, or nothing was compared.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import command_parser, run_command, tell

if TYPE_CHECKING:
    from beyonddrive.evaluation.golden import FileComparison


_READ_FOR = {"maps_root": "two-stage scores", "planner": "planners", "device": "planners"}
"""Options, and what a folder has to hold for them to be read."""
_CPU = "cpu"


@dataclass(frozen=True)
class Report:
    """What came of one planner.

    Attributes:
        name: Stem of its golden files.
        release: What its names were recognised as; empty if nothing was.
        compared: Arrays compared.
        worst: Largest relative difference.
        worst_name: Array that has it.
        faults: What is wrong; empty if it passed.
    """

    name: str
    release: str = ""
    compared: int = 0
    worst: float = 0.0
    worst_name: str = ""
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        verdict = "FAIL" if self.faults else "pass"
        figures = f"{self.compared:4d} arrays"
        if self.compared:
            figures += f", worst {self.worst:.1e} ({self.worst_name})"
        else:
            figures += ", names converted forth and back"
        reasons = f": {'; '.join(self.faults)}" if self.faults else ""
        return f"{self.name:<24} {self.release:<15} {figures} {verdict}{reasons}"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("check-golden", "Compare ours with golden outputs of the originals.")
    parser.add_argument("directory", metavar="GOLDEN_DIR", type=Path, help="recorded arrays of originals")
    parser.add_argument(
        "--maps-root", type=Path, help="maps of two-stage scenes; default: GOLDEN_DIR/data/maps"
    )
    parser.add_argument(
        "--planner", metavar="NAME", help="only this one: stem of its files (navsim_ltf), or our name (ltf)"
    )
    parser.add_argument(
        "--device", default=_CPU, metavar="DEVICE", help="where planners run, such as cuda; without TF32"
    )
    return parser.parse_args(argv)


def check(
    directory: Path, name: str, recipe: ModuleType, planner: str | None = None, device: str = "cpu"
) -> Report | None:
    """Compare one planner; None if it is not the one asked for."""
    import torch

    from beyonddrive.checkpoints.conversion import to_official
    from beyonddrive.checkpoints.golden import GoldenFile, compare_planner

    release = ""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        golden = GoldenFile(directory, name, recipe, device)
        conversion = golden.conversion
        release = conversion.release.name
        if planner not in (None, name, release):
            return None
        weights = golden.weights()
        back = to_official(conversion.state, release, name).state
        changed = [key for key in weights if key not in back or not torch.equal(back[key], weights[key])]
        faults = [f"{len(changed)} weights do not come back, first {changed[0]}"] if changed else []
        results = list(compare_planner(golden)) if golden.wanted() else []
    # A comparison may fail in any way on foreign files; one planner must not end the check of the others.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Report(name, release, faults=(f"{type(error).__name__}: {reason}",))
    bad = [result for result in results if not result.passed]
    if bad:
        shown = ", ".join(f"{result.name} {result.difference:.1e}" for result in bad[:3])
        faults.append(f"{len(bad)} beyond the tolerance ({shown})")
    absent = sorted(golden.wanted() - {result.name for result in results})
    if absent:
        faults.append(f"{len(absent)} not compared ({', '.join(absent[:3])})")
    arrays = [result for result in results if result.name in golden.wanted()]
    worst = max(arrays, key=lambda result: result.difference, default=None)
    if worst is None:
        return Report(name, release, faults=tuple(faults))
    difference = worst.difference if not math.isnan(worst.difference) else math.inf
    return Report(name, release, len(arrays), difference, worst.name, tuple(faults))


def main(argv: Sequence[str] | None = None) -> int:
    """Check a directory; the exit code is 1 if anything fails or nothing was compared."""
    args = parse_args(argv)
    return run_command("check-golden", lambda: check_all(args))


def check_all(args: argparse.Namespace) -> int:
    """Check one file or planner after another, and print a line for each."""
    from beyonddrive.evaluation import two_stage_golden
    from beyonddrive.evaluation.closed_loop.hugsim import golden as hugsim_golden

    if not args.directory.is_dir():
        tell("check-golden", f"{args.directory}: no such folder")
        return 1
    holds = "planners"
    if hugsim_golden.is_golden(args.directory):
        holds = "HUGSIM's arrays"
    elif two_stage_golden.is_golden(args.directory):
        holds = "two-stage scores"
    for name, owner in _READ_FOR.items():
        if holds != owner and getattr(args, name) not in (None, _CPU):
            option = f"--{name.replace('_', '-')}"
            tell("check-golden", f"{args.directory}: holds {holds}; {option} goes with {owner} alone")
            return 1
    if holds == "HUGSIM's arrays":
        files = chain(hugsim_golden.compare_directory(args.directory), _compare_outside(args.directory))
        code = _check_files(args.directory, files)
        if passed_over := hugsim_golden.not_compared(args.directory):
            print(f"not compared: {passed_over}")
        return code
    if holds == "two-stage scores":
        maps_root = args.maps_root or args.directory / "data" / "maps"
        if not maps_root.is_dir():
            tell("check-golden", f"{maps_root}: no maps there; name their folder by --maps-root")
            return 1
        found = two_stage_golden.compare_directory(args.directory, maps_root)
        return _check_files(args.directory, found)
    return _check_planners(args)


def _compare_outside(directory: Path) -> Iterator[FileComparison]:
    """Compare what is recorded of HUGSIM's cameras and messages."""
    from beyonddrive.deploy.drivers.golden import CAMERAS, compare_cameras
    from beyonddrive.evaluation.golden import compared
    from beyonddrive.synth.live.golden import HTTP, compare_http

    for name, compare in ((CAMERAS, compare_cameras), (HTTP, compare_http)):
        if (directory / name).is_file():
            yield compared(name, partial(compare, directory / name))


def _check_files(directory: Path, files: Iterable[FileComparison]) -> int:
    rows, failed = 0, False
    for found in files:
        print(found, flush=True)
        rows += found.rows
        failed |= bool(found.faults)
    if not rows:
        tell("check-golden", f"{directory}: nothing was compared")
    return int(failed or not rows)


def _check_planners(args: argparse.Namespace) -> int:
    from beyonddrive.checkpoints.golden import load_recipe

    recipe = load_recipe(args.directory)
    compared, failed = 0, False
    for path in sorted(args.directory.glob("*.keys.json")):
        report = check(
            args.directory, path.name.removesuffix(".keys.json"), recipe, args.planner, args.device
        )
        if report is not None:
            print(report, flush=True)
            compared += report.compared
            failed |= bool(report.faults)
    if not compared:
        what = f"of planner {args.planner!r} " if args.planner else ""
        tell("check-golden", f"{args.directory}: nothing {what}was compared")
    return int(failed or not compared)


if __name__ == "__main__":
    sys.exit(main())
