"""HUGSIM's side of its protocols, played by the live world: observations out, plans in (HUGSIM, 2 to 4).

``obs`` has ``rgb`` alone, as it has over HTTP. ``semantic`` and ``depth``, which it has over pipes, are
absent: the painter knows neither of a pixel. ``info`` is complete. Cameras are those of HUGSIM's nuScenes
scenes, but level, with the calibration that ``cam_params`` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import check_plan, directions
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame as RecordFrame
from beyonddrive.evaluation.closed_loop.hugsim.run_files import RECORD
from beyonddrive.evaluation.closed_loop.hugsim.settings import CONTROLLER_KEY
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.frame import PLANNER, DriverReport
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.synth.live.batch import Filming
from beyonddrive.synth.live.drive import Outcome, Pivot, Stage, camera_points, score_of, staged
from beyonddrive.synth.live.episode_files import (
    EPISODE,
    VIDEO,
    Failed,
    Film,
    Job,
    keep_failure,
    write_outcome,
)
from beyonddrive.synth.live.place import CAMERA
from beyonddrive.synth.live.scenario import read_live_scenario
from beyonddrive.synth.rig import CameraPose

HEIGHT, WIDTH = 450, 800
_FRONT = (1.722, 0.005, 1.495)
_RIG: dict[str, tuple[tuple[float, float, float], float, float, float, float, float]] = {
    # name: x, y, z [m] from the rear axle, yaw [deg], fields of view [deg], principal point [px]
    "CAM_BACK": ((0.055, 0.011, 1.568), 179.48, 90.22, 58.91, 428.89, 238.44),
    "CAM_BACK_LEFT": ((1.049, 0.483, 1.562), 108.58, 65.03, 39.45, 414.79, 233.58),
    "CAM_BACK_RIGHT": ((1.059, -0.467, 1.551), -112.52, 65.24, 39.60, 412.69, 231.27),
    "CAM_FRONT": (_FRONT, 0.0, 65.12, 39.52, 413.29, 234.99),
    "CAM_FRONT_LEFT": ((1.575, 0.501, 1.507), 55.34, 64.91, 39.37, 413.62, 225.46),
    "CAM_FRONT_RIGHT": ((1.581, -0.499, 1.517), -57.58, 64.96, 39.40, 408.89, 225.98),
}
"""HUGSIM's cameras (HUGSIM, section 2.1), without their pitch of less than 1.2 degrees."""


def hugsim_rig() -> tuple[dict[str, CameraPose], dict[str, dict[str, Any]]]:
    """The cameras as the painter takes them, and as ``cam_params`` tells of them.

    >>> poses, params = hugsim_rig()
    >>> place = poses["CAM_FRONT"]["sensor2lidar_translation"]
    >>> abs(params["CAM_FRONT"]["v2c"] @ [*place, 1.0]).round(9).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    poses, params = {}, {}
    for name, (place, degrees, fovx, fovy, cx, cy) in _RIG.items():
        yaw = np.deg2rad(degrees)
        axes = ((np.sin(yaw), -np.cos(yaw), 0.0), (0.0, 0.0, -1.0), (np.cos(yaw), np.sin(yaw), 0.0))
        turn = np.array(axes).T
        spot = np.array(place) - _FRONT + CAMERA
        focal = [side / (2 * np.tan(np.deg2rad(fov) / 2)) for side, fov in ((WIDTH, fovx), (HEIGHT, fovy))]
        poses[name] = CameraPose(
            sensor2lidar_rotation=turn,
            sensor2lidar_translation=spot,
            cam_intrinsic=np.array([[focal[0], 0.0, cx], [0.0, focal[1], cy], [0.0, 0.0, 1.0]]),
            distortion=np.zeros(5),
        )
        to_camera = np.eye(4)
        to_camera[:3, :3], to_camera[:3, 3] = turn.T, -turn.T @ spot
        # The LiDAR of the live world is given in the vehicle's frame.
        params[name] = {
            "intrinsic": {
                "H": HEIGHT,
                "W": WIDTH,
                "cx": cx,
                "cy": cy,
                "fovx": float(np.deg2rad(fovx)),
                "fovy": float(np.deg2rad(fovy)),
            },
            "v2c": to_camera,
            "l2c": to_camera.copy(),
        }
    return poses, params


class SimulatorSession:
    """Scenarios one after the other, as a simulator holds them; one at a time in a process.

    Args:
        jobs: Scenarios, and where their results go.
        filming: Which of them get a video; None for no videos.
    """

    def __init__(self, jobs: Sequence[Job], filming: Filming | None = None) -> None:
        self.jobs = list(jobs)
        self._filming = filming
        self._film: Film | None = None
        self._shown: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] = []
        self._poses, self._params = hugsim_rig()
        self._stack = ExitStack()
        self._stage: Stage | None = None
        self._frames: list[RecordFrame] = []
        self._after: dict[str, Any] = {}
        self.index = 0

    @property
    def job(self) -> Job:
        """The present scenario."""
        return self.jobs[self.index]

    def begin(self, index: int) -> None:
        """Set a scenario up.

        Raises:
            LiveError: If it cannot be read, or its town is missing.
            SumoError: If SUMO fails.
        """
        try:
            self.close()
        finally:
            # (of what fails from here on, this scenario gives no episode)
            self.index, self._frames = index, []
            job = self.job
            job.folder.mkdir(parents=True, exist_ok=True)
            for name in (EPISODE, VIDEO, RECORD):  # (of an earlier drive, which no scorer may take for this)
                (job.folder / name).unlink(missing_ok=True)
        scenario = read_live_scenario(job.scenario)
        self._film = None if self._filming is None else self._filming.of(scenario)
        self._stage = self._stack.enter_context(staged(scenario, job.towns, job.settings))
        self._frames = self._stage.episode.frames
        self._after = {}

    def observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """``obs`` and ``info`` of now."""
        stage = self._running()
        seen = stage.episode.observe()
        stage.look(seen)
        views = stage.eyes.images((WIDTH, HEIGHT), self._poses, self._poses)
        self._shown = {"view": views["CAM_FRONT"], "frame": stage.eyes.frame, "time": seen.time}
        info = {
            "ego_pos": seen.position,
            "ego_rot": seen.euler,
            "ego_velo": seen.speed,
            "ego_steer": seen.steering,
            "accelerate": seen.acceleration,
            "steer_rate": seen.steering_rate,
            "timestamp": seen.time,
            "command": seen.command,
            "ego_box": seen.ego_box.tolist(),
            "obj_boxes": seen.obj_boxes.tolist(),
            "cam_params": self._params,
            CONTROLLER_KEY: stage.settings.hugsim.controller,
            **self._after,
        }
        return {"rgb": {name: view.image for name, view in views.items()}}, info

    def step(self, plan: NDArray[np.floating] | None) -> bool:
        """Drive one step; returns whether the scenario goes on.

        Raises:
            HugsimError: If the plan cannot be used; nothing has moved then.
        """
        stage = self._running()
        episode = stage.episode
        if plan is None:
            self._keep_row(None)
            return episode.step(None)
        points = check_plan(plan)
        recorded = points if stage.settings.pivot == "camera" else _camera_points(points)
        goes_on = episode.step(points, recorded) and len(episode.frames) < stage.settings.max_steps
        self._keep_row(poses_along(points, stage.settings.pivot))
        last = episode.frames[-1]
        self._after = {"rc": last.rc, "collision": last.collision}
        return goes_on

    def finish(self, report: DriverReport | None = None) -> dict[str, Any]:
        """Score and write the episode; returns how it went."""
        stage = self._running()
        episode = stage.episode
        score = score_of(episode.frames, stage.ground, stage.solid, stage.settings.hugsim)
        ends = episode.ends or (f"{stage.settings.max_steps} steps",)
        outcome = Outcome(
            stage.scenario, episode.frames, score, ends, report or DriverReport(), stage.ground, stage.solid,
            dict(stage.clock.seconds), episode.driven, self._rows,
        )  # fmt: skip
        self._stage, self._rows = None, []
        self._stack.close()
        return write_outcome(self.job, outcome, self._film)

    def close(self) -> None:
        """End SUMO; of a scenario that is not over, the record so far stays as that of one that failed."""
        is_over = self._stage is None
        try:
            self._end()
        finally:
            if not is_over and self._frames:
                keep_failure(self.job, self._frames, "broken off before its end")

    def failed(self, error: Exception) -> Failed:
        """Close the present scenario, which gives no episode because of an error. Raises nothing."""
        reason = describe_error(error)
        try:
            self._end()
        except Exception as further:  # (SUMO may fail to end, too; the next scenario begins all the same)
            reason = f"{reason}; then {describe_error(further)}"
        return replace(keep_failure(self.job, self._frames, reason), name=self.job.folder.name)

    def _end(self) -> None:
        self._stage, self._shown, self._rows = None, {}, []
        self._stack.close()

    def _keep_row(self, plan: NDArray[np.float64] | None) -> None:
        """Keep what a video shows of a step: what was observed before it, and the plan for it."""
        if self._film is not None:
            self._rows.append({**self._shown, "plan": plan, "source": PLANNER})

    def _running(self) -> Stage:
        if self._stage is None:
            raise RuntimeError("no scenario runs: call begin")
        return self._stage


def poses_along(points: NDArray[np.floating], pivot: Pivot) -> NDArray[np.float64]:
    """How the rear axle goes when what HUGSIM moves goes along a plan, as a video shows it.

    Args:
        points: (N, 2) right, ahead [m] every 0.5 s, from what is moved.
        pivot: What is moved.

    Returns:
        (8, 3) x [m], y [m], heading [rad] in the ego frame: the first 4 s; a shorter one stays where it ends.
        Headings are those of :func:`_headed`.

    >>> poses_along(np.array([[0.0, 2.0], [-1.0, 3.0]]), "rear_axle")[1:3].round(3).tolist()
    [[3.0, 1.0, 0.785], [3.0, 1.0, 0.785]]
    """
    poses = _headed(points)[:NUM_POSES]
    if pivot == "camera":
        poses[:, 0] += CAMERA[0] * (1.0 - np.cos(poses[:, 2]))
        poses[:, 1] -= CAMERA[0] * np.sin(poses[:, 2])
    return np.vstack([poses, np.repeat(poses[-1:], NUM_POSES - len(poses), axis=0)])


def _camera_points(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points of the front camera along points (N, 2) right, ahead of the rear axle."""
    return camera_points(_headed(points))


def _headed(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (N, 2) right, ahead as poses (N, 3) x, y, heading.

    Headings lead from point to point, and turn by less than 90 degrees from one to the next: who drives back
    is not turned round, and who hardly moves keeps its heading.
    """
    yaw = np.unwrap(np.concatenate([[0.0], directions(points)]), period=np.pi)[1:]
    return np.column_stack([points[:, 1], -points[:, 0], yaw])
