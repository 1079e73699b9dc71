"""The live world behind HUGSIM's two named pipes (HUGSIM, section 3)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from beyonddrive.evaluation.closed_loop.hugsim.messages import MessageError, read_message, write_message
from beyonddrive.evaluation.closed_loop.hugsim.pipes import OBSERVATIONS, PLANS, PeerError, Pipe
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.structures.frame import DriverReport
from beyonddrive.synth.live.batch import Job
from beyonddrive.synth.live.server import SimulatorSession, results_of

DONE = "Done"
PATIENCE = 100.0
"""A planner is killed if it lives longer than this after ``Done`` [s]."""
MAX_PLAN = 1 << 20
"""A plan has fewer bytes."""


def serve_pipes(
    jobs: Sequence[Job], deadline: float, script: Path | None = None, device: str = "0"
) -> Iterator[dict[str, Any]]:
    """Drive scenarios by planners at the other end of pipes in their folders; yields how each went.

    Args:
        jobs: The scenarios.
        deadline: Longest wait for a planner to come, and for each plan [s].
        script: Started for every scenario as HUGSIM does: ``script DEVICE FOLDER``; None waits for a planner
            that somebody else starts.
        device: Its first argument.

    Raises:
        LiveError: If a scenario cannot be read.
        SumoError: If SUMO fails.
    """
    session = SimulatorSession(jobs)
    try:
        for index, job in enumerate(jobs):
            folder = results_of(job)
            pipes = Pipe(folder / OBSERVATIONS), Pipe(folder / PLANS)
            session.begin(index)
            with (folder / "output.txt").open("wb") as log:
                process = None if script is None else _started(script, device, folder, log)
                try:
                    report = _drive(session, pipes, deadline, process)
                finally:
                    _ended(process)
            yield session.finish(report)
    finally:
        session.close()


def _drive(
    session: SimulatorSession,
    pipes: tuple[Pipe, Pipe],
    deadline: float,
    process: subprocess.Popen[bytes] | None,
) -> DriverReport:
    """The loop; a planner that dies, is silent or sends no plan ends the scenario; what it drove stays."""
    observations, plans = pipes
    alive: Callable[[], bool] | None = None if process is None else lambda: process.poll() is None
    report = DriverReport()
    goes_on = True
    try:
        while goes_on:
            observations.send(write_message(session.observe()), deadline, alive)
            plan = read_message(plans.receive(deadline, alive, MAX_PLAN), MAX_PLAN)
            if isinstance(plan, dict):  # (a public fork sends the ego's motion, too)
                plan = plan.get("plan")
            if plan is not None and not isinstance(plan, np.ndarray):
                raise MessageError(f"{plans.path}: a plan is an array (N, 2), got {type(plan).__name__}")
            goes_on = session.step(plan)
            report.count("plans")
    except (PeerError, HugsimError) as error:
        report.count("planner_failure", str(error))
        session.step(None)
    try:
        observations.send(write_message(DONE), min(deadline, 5.0), alive)
    except PeerError as error:
        report.count("left_early", str(error))
    return report


def _started(script: Path, device: str, folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    if not script.is_file():
        raise HugsimError(f"{script}: there is no such script; it is started with a device and a folder")
    shell = [] if script.stat().st_mode & 0o100 else ["bash"]
    return subprocess.Popen([*shell, str(script), device, str(folder)], stdout=log, stderr=log)


def _ended(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
