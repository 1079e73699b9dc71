"""Drivers to compare with, which are told the whole world: SUMO's own, and PDM-Closed.

Neither is a planner: they see what no sensor does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.evaluation.closed_loop.hugsim.agents import STEP
from beyonddrive.evaluation.closed_loop.hugsim.episode import Episode
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame as RecordFrame
from beyonddrive.evaluation.reference_plan import driven_reference_plan
from beyonddrive.structures.errors import BeyondDriveError, describe_error
from beyonddrive.structures.frame import PLANNER, STRAIGHT_ON, DrivenPlan, Driver, DriverReport, Frame
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL
from beyonddrive.structures.se2 import to_global, to_local
from beyonddrive.synth.live.drive import Answer, LiveSettings, Outcome, Stage, film_row, score_of, staged
from beyonddrive.synth.live.place import Place, camera_from
from beyonddrive.synth.live.scenario import LiveScenario
from beyonddrive.synth.live.sumo_world import SumoWorld

Floats = NDArray[np.float64]


GONE = "SUMO took the ego away"
"""Why its drive ends if it stands for a minute."""


class Nobody:
    """In the place of a driver where SUMO drives."""

    def reset(self, session: str, seed: int | None = None) -> None:
        """Nothing to begin."""

    def plan(self, frame: Frame) -> DrivenPlan:
        """Refuse.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("SUMO drives the ego itself: use drive_by_sumo")

    def close(self, session: str) -> DriverReport:
        """Nothing to tell."""
        return DriverReport()


class PdmClosedDriver:
    """PDM-Closed at the wheel: PDMS's reference planner on the true state of the world.

    Its plan is its choice by PDMS (PDMS_V1, section 12.8) as NAVSIM's tracker drives it, made anew in every
    step.
    """

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._report = DriverReport()

    def attach(self, stage: Stage) -> None:
        """Be told the world."""
        self._stage = stage

    def reset(self, session: str, seed: int | None = None) -> None:
        """Begin a session."""
        self._report = DriverReport()

    def plan(self, frame: Frame) -> DrivenPlan:
        """The plan for a frame; straight on, counted, where PDM-Closed has none."""
        assert self._stage is not None
        town, seen = self._stage.town, self._stage.eyes.frame
        scene = Scene(seen["log_name"], "closed-loop", [seen] * HISTORY)
        try:
            poses = driven_reference_plan(scene, town.nuplan_map)
        except BeyondDriveError as error:
            self._report.count(STRAIGHT_ON, describe_error(error))
            times = POSE_INTERVAL * np.arange(1, NUM_POSES + 1)
            poses = np.column_stack([times * frame.velocity[0], np.zeros((NUM_POSES, 2))])
            return DrivenPlan(poses, STRAIGHT_ON, describe_error(error))
        self._report.count("inference")
        return DrivenPlan(poses, PLANNER)

    def close(self, session: str) -> DriverReport:
        """End a session."""
        return self._report


class _SumoEpisode(Episode):
    """An episode whose ego is where SUMO has driven it."""

    world: SumoWorld
    place: Place

    def _drive(self, command: Floats) -> None:
        if not self.world.ego_is_there():
            return
        rear, speed = self.world.ego_state()
        x, y, yaw = self.place.to_scene(camera_from(rear))
        self._ab, self._euler = np.array([-y, x]), np.array([0.0, -yaw, 0.0])
        self._command = np.array([(speed - self._speed) / STEP, 0.0])
        self._speed = speed


_STRAIGHT = np.column_stack([np.zeros(NUM_POSES), np.arange(1.0, NUM_POSES + 1)])
"""Stands for a plan until it is known what was done."""


def drive_by_sumo(
    scenario: LiveScenario,
    towns: Path,
    driver: Driver,
    answer: Answer,
    settings: LiveSettings | None = None,
    keep_film: bool = False,
    record: list[RecordFrame] | None = None,
) -> Outcome:
    """Let SUMO's own driver take the ego along its path: a human-like reference.

    It has no plan: what it did is recorded as what it meant to do. No kinematics of HUGSIM are between.
    Arguments, result and errors are those of :func:`beyonddrive.synth.live.drive.drive`.
    """
    settings = settings or LiveSettings()
    film = []
    with staged(scenario, towns, settings, _SumoEpisode) as stage:
        episode = stage.episode
        assert isinstance(episode, _SumoEpisode)
        episode.world, episode.place = stage.world, stage.place
        goes_on = True
        frames = [] if record is None else record
        try:
            while goes_on and len(episode.frames) < settings.max_steps:
                if keep_film:
                    frame = stage.frame(episode.observe(), scenario.name)
                    film.append(film_row(stage, frame, DrivenPlan(np.zeros((0, 3)))))
                goes_on = episode.step(_STRAIGHT) and stage.world.ego_is_there()
        finally:
            # (what stands for plans until then is nobody's and must not be left in a record)
            frames[:] = with_what_was_done(episode.frames, stage.place)
        late = len(episode.frames) >= settings.max_steps
        ends = episode.ends or (f"{settings.max_steps} steps" if late else GONE,)
        with stage.clock.on("score"):
            score = score_of(frames, stage.ground, stage.solid, settings.hugsim)
    for row, done in zip(film, frames, strict=False):
        row["plan"] = to_local(np.vstack([done.traj, done.traj[-1:]]), done.ego_box[[0, 1, 6]])
    report = DriverReport()
    return Outcome(
        scenario, frames, score, ends, report, stage.ground, stage.solid, dict(stage.clock.seconds),
        episode.driven, film,
    )  # fmt: skip


def with_what_was_done(frames: Sequence[RecordFrame], place: Place) -> list[RecordFrame]:
    """Frames whose plans are where the ego went, and beyond the end on along its path at its last speed."""
    if not frames:
        return []
    pose = np.array([frame.ego_box[[0, 1, 6]] for frame in frames]).reshape(-1, 3)
    pose[:, 2] = np.unwrap(pose[:, 2])
    every = round(POSE_INTERVAL / STEP)
    speed = float(np.hypot(*(pose[-1, :2] - pose[-2, :2]))) / STEP if len(pose) > 1 else 0.0
    beyond = STEP * speed * np.arange(1, every * NUM_POSES + 1, dtype=np.float64)
    on = _onward(pose[-1], place, beyond)
    whole = np.vstack([pose, on])
    # (HUGSIM writes all points but the last)
    rows = every * np.arange(1, NUM_POSES)
    return [replace(frame, traj=whole[i + rows]) for i, frame in enumerate(frames)]


def _onward(last: Floats, place: Place, beyond: Floats) -> Floats:
    """Poses (K, 3) so many metres beyond the last one (3,) as the path goes on, then straight on."""
    here = place.progress(place.to_town(last[:2]))
    way = place.poses_at(here + np.concatenate([[0.0], beyond]))
    return to_global(to_local(way[1:], way[0]), last)
