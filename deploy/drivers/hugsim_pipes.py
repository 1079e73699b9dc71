"""A planner at the two named pipes of HUGSIM's simulator (HUGSIM, section 3)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beyonddrive.deploy.drivers.core import PlannerDriver
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.frame_inputs import FrameError
from beyonddrive.deploy.drivers.hugsim import (
    HugsimConventions,
    answer_of,
    garage_answer,
    planned,
    self_test,
    step_of,
    whereabouts_of,
)
from beyonddrive.deploy.drivers.run_report import RunReport
from beyonddrive.evaluation.closed_loop.hugsim.messages import DONE, MessageError, plan_message, read_message
from beyonddrive.evaluation.closed_loop.hugsim.pipes import OBSERVATIONS, PLANS, PeerError, Pipe
from beyonddrive.structures.frame import PLANNER, STRAIGHT_ON, DrivenPlan
from beyonddrive.structures.plan import NUM_POSES

Variant = Literal["release", "garage"]


@dataclass(frozen=True)
class PipeSettings:
    """How the pipes are served.

    Attributes:
        variant: ``garage``, the simulator of 2026, ends an episode in order when the answer is None, so that
            a driver may give up; the ``release`` does not, and gets a plan whatever happens.
        follow_plan: ``garage`` only: move the ego along the plan, without the simulator's tracker.
        give_up: After so many plans in a row that are not the planner's, give up: None to the ``garage``, a
            standing plan to the ``release``. 0 never gives up.
        first_wait: Longest wait for the first frame [s].
        wait: Longest wait for another one [s].
        conventions: How frames are read and plans written.

    Raises:
        DriverError: If ``follow_plan`` is asked of the release, or a number makes no sense.
    """

    variant: Variant = "release"
    follow_plan: bool = False
    give_up: int = 0
    first_wait: float = 1800.0
    wait: float = 300.0
    conventions: HugsimConventions = field(default_factory=HugsimConventions)

    def __post_init__(self) -> None:
        if self.follow_plan and self.variant != "garage":
            raise DriverError("follow_plan: only the garage variant moves the ego by a driver's word")
        # (not a number is no number of seconds either, and would never pass)
        if self.give_up < 0 or not self.first_wait > 0 or not self.wait > 0:
            raise DriverError("give_up must not be negative, first_wait and wait must be positive")


def drive_pipes(
    folder: Path,
    driver: PlannerDriver,
    settings: PipeSettings,
    about: Mapping[str, Any] | None = None,
    report_dir: Path | None = None,
) -> RunReport:
    """Drive one episode: read frames and answer plans until the simulator says that it is done.

    Args:
        folder: The simulator's output folder, in which the pipes are.
        driver: Drives.
        settings: How.
        about: For the report.
        report_dir: Where the report goes; ``folder`` if None.

    Returns:
        The report, which is also in that folder; its ``trouble`` says if the simulator went away.
    """
    self_test(settings.conventions, settings.follow_plan)
    parent = os.getppid()
    session = folder.resolve().name or "episode"
    observations, plans = Pipe(folder / OBSERVATIONS), Pipe(folder / PLANS)
    driver.reset(session)
    misses, gave_up, ended, conventions = 0, False, "the driver ended", settings.conventions
    about = {"protocol": f"hugsim-pipes ({settings.variant})", **(about or {})}
    with RunReport(report_dir or folder, about) as report:
        try:
            wait = settings.first_wait
            while True:
                # (whoever has started this process takes it to the grave)
                content = observations.receive(wait, lambda: os.getppid() == parent)
                started = time.perf_counter()
                wait = settings.wait
                answer, plan, moment, conventions = _answer(
                    content, session, driver, settings, conventions, misses
                )
                if plan is None:
                    ended = "gave up" if gave_up else "done"
                    break
                misses = 0 if plan.source == PLANNER else misses + 1
                report.planned(session, moment, plan, time.perf_counter() - started)
                plans.send(answer, settings.wait, lambda: os.getppid() == parent)
                gave_up = gave_up or answer == plan_message(None)
        except (PeerError, MessageError) as error:
            report.trouble, ended = str(error), "the simulator went away"
        finally:
            report.session_ended(session, driver.close(session), ended)
    return report


def _answer(
    content: bytes,
    session: str,
    driver: PlannerDriver,
    settings: PipeSettings,
    conventions: HugsimConventions,
    misses: int,
) -> tuple[bytes, DrivenPlan | None, float, HugsimConventions]:
    """The answer to a message.

    Returns:
        The answer, the plan in it (None after the last message), the moment it is for, and the conventions
        with the controller that a message has named: the next one may be none that can be read.
    """
    info: Mapping[str, Any] = {}
    moment = float("nan")
    try:
        message = read_message(content)
        if isinstance(message, str) and message == DONE:
            return b"", None, moment, conventions
        if not isinstance(message, tuple) or len(message) != 2:
            raise FrameError(f"the message is a {type(message).__name__}, not (obs, info)")
        if isinstance(message[1], Mapping):
            info = message[1]
            conventions = conventions.told_by(info)
        plan, moment = planned(driver, *message, session, conventions)
    except MessageError as error:
        plan = driver.plan_without_frame(session, "bad_message", str(error))
    except FrameError as error:
        plan = driver.plan_without_frame(session, "bad_frame", str(error))
    if settings.give_up and plan.source != PLANNER and misses + 1 >= settings.give_up:
        driver.report(session).count("gave_up", plan.reason)
        if settings.variant == "garage":
            return plan_message(None), plan, moment, conventions
        # (the log has what is sent)
        plan = replace(plan, poses=np.zeros((NUM_POSES, 3)))
        return plan_message(answer_of(plan.poses, conventions, STRAIGHT_ON)), plan, moment, conventions
    if settings.follow_plan:
        try:
            speed = whereabouts_of(info).speed
            if speed is None:
                raise FrameError("info.ego_velo: the speed of the ego is not known")
            own = garage_answer(plan.poses, speed, step_of(info), conventions, plan.source)
            return plan_message(own), plan, moment, conventions
        except DriverError as error:
            driver.report(session).count("tracker_instead", str(error))
    return plan_message(answer_of(plan.poses, conventions, plan.source)), plan, moment, conventions
