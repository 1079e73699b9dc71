"""The live world behind HUGSIM's two named pipes (HUGSIM, section 3)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from beyonddrive.evaluation.closed_loop.hugsim.messages import DONE, MessageError, read_message, write_message
from beyonddrive.evaluation.closed_loop.hugsim.pipes import OBSERVATIONS, PLANS, PeerError, Pipe
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.structures.frame import DriverReport
from beyonddrive.synth.live.batch import Filming
from beyonddrive.synth.live.episode_files import Failed, Job
from beyonddrive.synth.live.server import SimulatorSession
from beyonddrive.synth.live.town import LiveError

PATIENCE = 100.0
"""A planner is killed if it lives longer than this after ``Done`` [s]."""
MAX_PLAN = 1 << 20
"""A plan has fewer bytes."""


def serve_pipes(
    jobs: Sequence[Job],
    deadline: float,
    script: Path | None = None,
    device: str = "0",
    filming: Filming | None = None,
) -> Iterator[dict[str, Any] | Failed]:
    """Drive scenarios by planners at the other end of pipes in their folders; yields how each went.

    A planner that fails ends its scenario, which counts; a scenario that fails is no episode. Neither ends
    the others.

    Args:
        jobs: The scenarios.
        deadline: Longest wait for a planner to come, and for each plan [s].
        script: Started for every scenario as HUGSIM does: ``script DEVICE FOLDER``; None waits for a planner
            that somebody else starts.
        device: Its first argument.
        filming: Which scenarios get a video; None for no videos.

    Raises:
        LiveError: If there is no such script.
    """
    if script is not None and not script.is_file():
        raise LiveError(f"{script}: there is no such script; it is started with a device and a folder")
    session = SimulatorSession(jobs, filming)
    try:
        for index, job in enumerate(jobs):
            try:
                session.begin(index)
                pipes = Pipe(job.folder / OBSERVATIONS), Pipe(job.folder / PLANS)
                with (job.folder / "output.txt").open("wb") as log:
                    if script is None:
                        report = _drive(session, pipes, deadline)
                    else:
                        with _planner(script, device, job.folder, log) as process:
                            report = _drive(session, pipes, deadline, process)
                episode = session.finish(report)
            except Exception as error:  # (SUMO raises what it likes)
                yield session.failed(error)
            else:
                yield episode
    finally:
        session.close()


def _drive(
    session: SimulatorSession,
    pipes: tuple[Pipe, Pipe],
    deadline: float,
    process: subprocess.Popen[bytes] | None = None,
) -> DriverReport:
    """The loop; a planner that dies, is silent or sends no plan ends the scenario; what it drove stays.

    The report counts plans and, once, a ``planner_failure``.
    """
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
            if not isinstance(plan, np.ndarray):
                said = "None" if plan is None else f"a {type(plan).__name__}"
                raise MessageError(f"{plans.path}: a plan is an array (N, 2), got {said}")
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


@contextmanager
def _planner(script: Path, device: str, folder: Path, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A planner for one scenario; what it has started ends with it, and shares no GPU with the next."""
    path = script.resolve()
    shell = [] if path.stat().st_mode & 0o100 else ["bash"]
    command = [*shell, str(path), device, str(folder)]
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    finally:
        with suppress(ProcessLookupError):  # (all of them have ended)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
