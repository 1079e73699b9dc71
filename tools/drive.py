"""Put a planner behind a simulator: ``beyonddrive drive CONFIG CHECKPOINT --protocol P ...``.

- ``hugsim-pipes``: the named pipes of HUGSIM in ``--output-dir``, for one episode. ``--write-script FILE``
  writes the script that HUGSIM's launcher calls as ``zsh FILE <cuda id> <output dir>``.
- ``hugsim-http``: the protocol of the RealADSim server, at ``--server``; drives all its scenarios. Needs the
  extra ``hugsim``.
- ``alpasim``: serves ``egodriver.EgodriverService`` at ``--bind`` and ``--port`` until it is stopped. Needs
  the extra ``alpasim``.

CHECKPOINT may be a graph file of ``beyonddrive export``. A run whose plans were not all the planner's own
says so first; the exit code is 1 if the simulator went away before the end.
"""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    command_parser,
    read_token,
    refuse_file,
    refuse_idle,
    refuse_no_port,
    run_command,
)

if TYPE_CHECKING:
    from beyonddrive.deploy.drivers import PlannerDriver
    from beyonddrive.deploy.drivers.hugsim import HugsimConventions
    from beyonddrive.deploy.drivers.run_report import RunReport

PROTOCOLS = ("hugsim-pipes", "hugsim-http", "alpasim")
_READ_BY: dict[tuple[str, ...], tuple[str, ...]] = {
    ("hugsim-pipes",): ("output_dir", "write_script", "variant", "follow_plan", "give_up", "lidar"),
    ("hugsim-pipes", "hugsim-http"): (
        "as_released",
        "command",
        "plan_dtype",
        "controller",
        "first_wait",
        "wait",
    ),
    ("hugsim-http",): ("server", "token_file", "hf_space"),
    ("alpasim",): (
        "bind",
        "port",
        "max_workers",
        "route_distance",
        "route_threshold",
        "full_decode",
        "forget_after",
    ),
}
"""Options that some protocols read, and the others do not."""
PIPES_FIRST_WAIT = 1800.0
"""A simulator may load its scene for so long before it sends a frame [s]."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("drive", "Put a planner behind a simulator.")
    parser.allow_abbrev = False  # (--write-script writes the words that it finds, by their full names)
    add_config(parser, "config of the planner")
    parser.add_argument(
        "checkpoint", nargs="?", help="its weights, or its graph file; none for a planner without weights"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True, help="what the simulator speaks")
    parser.add_argument("--device", default="cpu", help="where the planner runs; cpu by default")
    parser.add_argument("--exported", action="store_true", help="drive the fast copy of the planner")
    parser.add_argument(
        "--threads",
        type=int,
        help="of one plan, on the CPU; 1 where many sessions drive at once; all by default",
    )
    parser.add_argument(
        "--rig",
        default="auto",
        help="rig of its training images: navsim, synth or auto (by the names of config and bases)",
    )
    parser.add_argument("--seed", type=int, help="the same noise in every session, for paired runs")
    parser.add_argument(
        "--max-cached-age", type=float, default=1.5, help="drive the last plan on for so long [s]; 1.5"
    )
    parser.add_argument("--report-dir", type=Path, help="where driver.json goes, if not to --output-dir")
    hugsim = parser.add_argument_group("HUGSIM")
    hugsim.add_argument("--output-dir", type=Path, metavar="DIR", help="folder of the pipes")
    hugsim.add_argument("--write-script", type=Path, metavar="FILE", help="write the launcher's script only")
    hugsim.add_argument(
        "--variant", choices=("release", "garage"), default="release", help="garage: the simulator of 2026"
    )
    hugsim.add_argument(
        "--follow-plan", action="store_true", help="garage: move the ego along the plan itself"
    )
    hugsim.add_argument(
        "--give-up", type=int, default=0, metavar="N", help="after N fallbacks in a row; 0 never does"
    )
    hugsim.add_argument(
        "--as-released",
        action="store_true",
        help="images, status, commands and plans as the public LTF client, also plans that stand",
    )
    hugsim.add_argument(
        "--command",
        choices=("faithful", "always-forward"),
        default="faithful",
        help="what becomes of the simulator's driving command",
    )
    hugsim.add_argument(
        "--lidar", choices=("absent", "depth"), default="absent", help="points for planners with LiDAR"
    )
    hugsim.add_argument("--plan-dtype", choices=("float64", "float32"), help="of the plans; float64")
    hugsim.add_argument(
        "--controller",
        choices=("first_release", "main", "pr57", "resampled"),
        help="of the simulator, for plans that stand; by default what closed-loop serve tells, else one of "
        "HUGSIM's releases, first_release or main",
    )
    hugsim.add_argument(
        "--first-wait",
        type=float,
        help="longest wait for a simulator that is not there yet [s]: pipes: for its first frame, by default "
        f"{PIPES_FIRST_WAIT:g}; http: for the server, by default not at all",
    )
    hugsim.add_argument(
        "--wait",
        type=float,
        default=300.0,
        help="longest wait for another message, by HTTP for a part of it [s]",
    )
    hugsim.add_argument("--server", default="http://localhost:8065", help="the RealADSim server")
    hugsim.add_argument("--token-file", type=Path, help="file with the server's token")
    hugsim.add_argument("--hf-space", action="store_true", help="answer the health check of a hosted space")
    alpasim = parser.add_argument_group("AlpaSim")
    alpasim.add_argument(
        "--bind", default="127.0.0.1", help="address to serve at; only this machine by default"
    )
    alpasim.add_argument("--port", type=int, default=6789, help="port to serve at; 0 takes a free one")
    alpasim.add_argument("--max-workers", type=int, default=16, help="calls that are answered at once")
    alpasim.add_argument(
        "--route-distance", type=float, default=5.0, help="command by the first waypoint beyond this [m]; 5"
    )
    alpasim.add_argument(
        "--route-threshold", type=float, default=2.0, help="which is a turn if it is so far aside [m]; 2"
    )
    alpasim.add_argument("--full-decode", action="store_true", help="decode images as large as they are")
    alpasim.add_argument(
        "--forget-after",
        type=float,
        default=600.0,
        help="sessions that have been silent for so long lose their images when another begins [s]; 600",
    )
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.threads is not None and args.threads < 1:
        parser.error(f"--threads: must be positive, got {args.threads}")
    if args.max_workers < 1:
        parser.error(f"--max-workers: must be positive, got {args.max_workers}")
    refuse_no_port(parser, args.port)
    if args.protocol == "hugsim-pipes" and (args.output_dir is None) == (args.write_script is None):
        parser.error("--protocol hugsim-pipes needs --output-dir, or --write-script")
    for protocols, names in _READ_BY.items():
        if args.protocol not in protocols:
            refuse_idle(parser, args, names, f"--protocol {' or '.join(protocols)}")
    if args.variant != "garage":
        refuse_idle(parser, args, ("follow_plan",), "--variant garage")
    if args.as_released:
        # (the released client has its own commands, no points, and looks at no calibration)
        refuse_idle(parser, args, ("command", "lidar", "rig"), "drivers that are not --as-released")
    if args.write_script is not None and args.report_dir is not None:
        parser.error("--report-dir: every episode of a script would write to it; each has its own folder")
    refuse_file(parser, "--output-dir", args.output_dir)
    refuse_file(parser, "--report-dir", args.report_dir)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Drive; the exit code is 1 if something is refused or the simulator went away."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(words)
    if args.write_script is not None:
        return run_command("drive", lambda: write_script(args, words))
    return run_command("drive", lambda: drive(args))


def drive(args: argparse.Namespace) -> int:
    """Load the planner, test it, and serve the protocol."""
    from beyonddrive.deploy.drivers import DriverSettings
    from beyonddrive.deploy.drivers.self_test import warm_up
    from beyonddrive.tools._driver import describe_driver, open_driver

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # (so that a report is written when a simulator ends its driver)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if args.threads is not None:
        _use_threads(args.threads)
    settings = DriverSettings(args.max_cached_age, args.seed)
    driver = open_driver(
        args.config,
        args.checkpoint,
        args.device,
        args.exported,
        args.rig,
        args.as_released,
        settings,
        args.cfg_options,
    )
    seconds = warm_up(driver)
    about = {**describe_driver(driver, args.config, args.checkpoint), "device": args.device}
    print(
        f"{driver.engine.name} on {args.device} plans in {1000 * seconds:.0f} ms; rig {about['rig']}",
        flush=True,
    )
    if args.protocol == "alpasim":
        return _serve_alpasim(args, driver, about)
    report = _hugsim(args, driver, about)
    print(report.headline(), flush=True)
    return int(bool(report.trouble))


def _use_threads(count: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _hugsim(args: argparse.Namespace, driver: PlannerDriver, about: dict[str, Any]) -> RunReport:
    from dataclasses import asdict

    conventions = _conventions(args)
    about = {**about, "conventions": asdict(conventions)}
    if args.protocol == "hugsim-pipes":
        from beyonddrive.deploy.drivers.hugsim_pipes import PipeSettings, drive_pipes

        first_wait = PIPES_FIRST_WAIT if args.first_wait is None else args.first_wait
        settings = PipeSettings(
            args.variant, args.follow_plan, args.give_up, first_wait, args.wait, conventions
        )
        args.output_dir.mkdir(parents=True, exist_ok=True)
        return drive_pipes(args.output_dir, driver, settings, about, args.report_dir)
    from beyonddrive.deploy.drivers.hugsim_http import HttpSettings, drive_http

    token, first_wait = read_token(args.token_file), args.first_wait or 0.0
    http = HttpSettings(
        args.server, token, args.wait, args.hf_space, conventions=conventions, first_wait=first_wait
    )
    return drive_http(http, driver, about, args.report_dir)


def _serve_alpasim(args: argparse.Namespace, driver: PlannerDriver, about: dict[str, Any]) -> int:
    from beyonddrive.deploy.drivers.alpasim import AlpasimSettings, serve

    settings = AlpasimSettings(
        args.route_distance, args.route_threshold, not args.full_decode, args.forget_after
    )
    return serve(driver, settings, args.bind, args.port, args.max_workers, about, args.report_dir)


def _conventions(args: argparse.Namespace) -> HugsimConventions:
    from dataclasses import replace

    from beyonddrive.deploy.drivers.hugsim import HugsimConventions

    if args.as_released:
        made = replace(HugsimConventions.released(), controller=args.controller)
        return made if args.plan_dtype is None else replace(made, dtype=args.plan_dtype)
    return HugsimConventions(
        args.command.replace("-", "_"), False, args.lidar, args.plan_dtype or "float64", args.controller
    )


def write_script(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Write a script that drives as this command line says, in the folder that it is called with."""
    from beyonddrive.engine.checkpoint_files import find_checkpoint
    from beyonddrive.engine.config_files import find_config
    from beyonddrive.engine.files import write_atomically

    find_config(args.config)  # (now, not when a simulator waits)
    if args.checkpoint is not None:
        find_checkpoint(args.checkpoint)
    kept, skip = [], False
    for word in words:
        if skip or word.split("=")[0] == "--write-script":
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    command = shlex.join([sys.executable, "-m", "beyonddrive", "drive", *kept])
    command = re.sub(r"--device[ =]cuda(?= |$)", '--device "cuda:$1"', command)
    lines = [
        "#!/bin/sh",
        "# HUGSIM's launcher calls this as: zsh FILE <cuda id> <output dir>",
        'output=$(cd "$2" && pwd) || exit 1',
        f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
        f'exec {command} --output-dir "$output"',
    ]
    write_atomically(args.write_script, ("\n".join(lines) + "\n").encode())
    args.write_script.chmod(0o755)
    print(f"{args.write_script}: give it to HUGSIM as the script of the planner")
    return 0


if __name__ == "__main__":
    sys.exit(main())
