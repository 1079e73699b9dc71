"""A planner as AlpaSim's ``EgodriverService``, by the package ``carla-driver-interface`` (ALPASIM)."""

from __future__ import annotations

import errno
import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.datasets.transforms.strip_rig import StripError
from beyonddrive.deploy.drivers.alpasim_cameras import DeclaredCamera, declared_cameras, reduction_of
from beyonddrive.deploy.drivers.alpasim_ego import EgoMotion, command_of_route, ego_motion
from beyonddrive.deploy.drivers.core import PlannerDriver
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.fallbacks import Whereabouts
from beyonddrive.deploy.drivers.frame_inputs import FrameError
from beyonddrive.deploy.drivers.run_report import RunReport
from beyonddrive.deploy.drivers.self_test import Motion, check_convention
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.frame import CameraView, DrivenPlan, Floats, Frame
from beyonddrive.structures.plan import POSE_INTERVAL
from beyonddrive.version import __version__

try:
    from carla_driver_interface.driver import (
        BaseDriver,
        DriveContext,
        DriveResult,
        SensorFrame,
        SessionState,
    )
    from carla_driver_interface.geometry import Pose, Trajectory
    from carla_driver_interface.server import serving
except ImportError as error:
    raise ImportError(
        "--protocol alpasim needs carla-driver-interface 2.3: pip install 'beyonddrive[alpasim]'"
    ) from error

logger = logging.getLogger(__name__)

_SHARPNESS = 4.0
"""Images are decoded this much finer than the strip that is made of them."""
_SAME_MOMENT_US = 1000
"""Images of one set end within this time of each other [us]."""
_LATE_US = 50_000
"""Images older than this are driven by, and counted [us]."""
_INTERVAL_US = round(1e6 * POSE_INTERVAL)


@dataclass(frozen=True)
class AlpasimSettings:
    """How a planner is put behind AlpaSim.

    Attributes:
        route_distance: The first waypoint of the route that is as far away tells the command [m].
        route_threshold: It is a turn if that point lies farther aside than this [m].
        reduce_images: Decode images only as fine as the planner's strip needs them.
        forget_after: Images of sessions that have been silent for so long are forgotten when another one
            begins: a runtime that is killed closes nothing [s].

    Raises:
        DriverError: If a distance or a time is not positive and finite.
    """

    route_distance: float = 5.0
    route_threshold: float = 2.0
    reduce_images: bool = True
    forget_after: float = 600.0

    def __post_init__(self) -> None:
        for option in ("route_distance", "route_threshold", "forget_after"):
            if not 0 < (value := getattr(self, option)) < math.inf:
                name = option.replace("_", "-")
                raise DriverError(f"--{name}: must be positive and finite, got {value}")


@dataclass
class _Session:
    state: SessionState
    used: float
    """When it was last heard of [s]; infinite while a plan is made for it."""
    cameras: dict[str, DeclaredCamera] = field(default_factory=dict)
    lost_us: int = -1
    """Stamp of the newest pose of the ego that was none [us]; -1 if all were some."""


class AlpasimDriver(BaseDriver):
    """The policy that the package serves.

    Args:
        driver: Drives.
        settings: How.
        report: Account of the run.
    """

    # (a set of images may be late, or come in another order)
    frame_history_length = 8

    def __init__(
        self, driver: PlannerDriver, settings: AlpasimSettings | None = None, report: RunReport | None = None
    ) -> None:
        self.driver, self.settings = driver, settings or AlpasimSettings()
        self.report = report or RunReport(None, {})
        # (all replicas have to answer alike)
        self.name = f"beyonddrive-{__version__}-{driver.engine.name}"
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()
        check_convention(lambda poses: trajectory_of(poses, 0), _motion_of)

    def on_session_start(self, session: SessionState) -> None:
        """Begin; raising refuses the session.

        Raises:
            DriverError: If its cameras do not show what the planner has to see.
        """
        cameras: dict[str, DeclaredCamera] = {}
        if self.driver.inputs.strip_widths:
            cameras = self._needed(session.cameras)
        self._forget_images()
        self.driver.reset(session.uuid, session.seed)
        with self._lock:
            self._sessions[session.uuid] = _Session(session, time.monotonic(), cameras)
        logger.info(
            "session %s: scene %s, seed %d, cameras %s, rig %s",
            session.uuid,
            session.scene_id or "?",
            session.seed,
            ", ".join(cameras) or "none",
            self.driver.inputs.rig.name,
        )

    def on_session_close(self, session: SessionState) -> None:
        """End, and log what became of it, fallbacks first."""
        self._end(session.uuid, "closed")

    def end_sessions(self, why: str) -> None:
        """End all sessions that nobody has closed."""
        with self._lock:
            left = list(self._sessions)
        for uuid in left:
            self._end(uuid, why)

    def on_frame(self, session: SessionState, frame: SensorFrame) -> None:
        """Note that the session is in use."""
        self._used(session.uuid, time.monotonic())

    def on_route(self, session: SessionState) -> None:
        """Note that the session is in use."""
        self._used(session.uuid, time.monotonic())

    def on_egomotion(self, session: SessionState, new_poses: Trajectory) -> None:
        """Forget poses that are not finite: the package lets every plan begin at the newest it has."""
        self._used(session.uuid, time.monotonic())
        if not new_poses.poses:
            return
        with session.lock:
            known = session.ego_trajectory
            # (what was there before has been looked at)
            for index in reversed(range(max(len(known) - len(new_poses), 0), len(known))):
                if not _is_finite(known.poses[index]):
                    del known.timestamps_us[index], known.poses[index], session.dynamic_states[index]
        stamped = zip(new_poses.timestamps_us, new_poses.poses, strict=True)
        lost = [stamp for stamp, pose in stamped if not _is_finite(pose)]
        with self._lock:
            if session.uuid in self._sessions:
                state = self._sessions[session.uuid]
                state.lost_us = max([state.lost_us, *lost])

    def drive(self, ctx: DriveContext) -> DriveResult:
        """Plan; never raises, for a rollout is lost by that."""
        started = time.perf_counter()
        uuid, now = ctx.session.uuid, Whereabouts(1e-6 * ctx.time_now_us)
        self._used(uuid, math.inf)
        try:
            plan = self._plan(ctx)
        except FrameError as error:
            plan = self.driver.plan_without_frame(uuid, "bad_frame", str(error), now)
        except Exception as error:
            logger.exception("session %s: the driver failed", uuid)
            plan = self.driver.plan_without_frame(uuid, "driver_error", describe_error(error), now)
        finally:
            self._used(uuid, time.monotonic())
        self.report.planned(uuid, 1e-6 * ctx.time_now_us, plan, time.perf_counter() - started)
        counts = self.driver.report(uuid).counts
        return DriveResult(
            trajectory_of(plan.poses, ctx.time_now_us),
            debug_scalars={name: float(count) for name, count in counts.items()},
        )

    def _plan(self, ctx: DriveContext) -> DrivenPlan:
        uuid, report = ctx.session.uuid, self.driver.report(ctx.session.uuid)
        with ctx.session.lock:
            stamps = list(ctx.session.ego_trajectory.timestamps_us[-3:])
            poses = list(ctx.session.ego_trajectory.poses[-3:])
            state = ctx.session.latest_dynamic_state()
            waypoints = np.array(ctx.session.route_waypoints_in_rig, np.float64)
            images = {name: list(frames) for name, frames in ctx.session.frame_history.items()}
        if not poses:
            return self.driver.plan_without_frame(uuid, "no_ego", "no pose of the ego has been sent")
        if stamps[-1] != ctx.time_now_us:
            late = 1e-3 * (ctx.time_now_us - stamps[-1])
            apart = f"{abs(late):.0f} ms {'older' if late > 0 else 'newer'} than the call"
            report.count("anchor_stale", f"the newest pose is {apart}")
        motion = _motion(stamps, poses, state)
        if motion.trouble:
            report.count("dynamic_state_fallback", motion.trouble)
        with self._lock:
            cameras, lost_us = self._sessions[uuid].cameras, self._sessions[uuid].lost_us
        frame = Frame(
            session=uuid,
            time=1e-6 * ctx.time_now_us,
            cameras={},
            velocity=motion.velocity,
            acceleration=motion.acceleration,
            command=command_of_route(waypoints, self.settings.route_distance, self.settings.route_threshold),
            pose=_flat(poses[-1]),
        )
        if stamps[-1] < lost_us <= ctx.time_now_us:
            # (what is sent begins at the last pose that is one, and the plan of before is known from there)
            return self.driver.fall_back(frame, "bad_frame", "pose: the newest of the ego is not finite")
        oldest = ctx.time_now_us - max(ctx.time_query_us - ctx.time_now_us, _SAME_MOMENT_US)
        try:
            views, moment = _views(cameras, images, ctx.time_now_us, oldest)
            if ctx.time_now_us - moment > _LATE_US:
                late = 1e-3 * (ctx.time_now_us - moment)
                report.count("images_late", f"the newest images are {late:.0f} ms older than the call")
            return self.driver.plan(replace(frame, cameras=views))
        except StripError as error:
            return self.driver.fall_back(frame, error.kind, str(error))
        except FrameError as error:
            return self.driver.fall_back(frame, "bad_frame", str(error))

    def _used(self, uuid: str, when: float) -> None:
        with self._lock:
            if uuid in self._sessions:
                self._sessions[uuid].used = when

    def _forget_images(self) -> None:
        """Forget the images of sessions that have been silent for long; one that speaks again goes on."""
        oldest = time.monotonic() - self.settings.forget_after
        with self._lock:
            silent = [session.state for session in self._sessions.values() if session.used < oldest]
        for session in silent:
            with session.lock:
                images = sum(map(len, session.frame_history.values()))
                for frames in session.frame_history.values():
                    frames.clear()
            images += self.driver.forget_history(session.uuid)
            if images:
                reason = f"the session was silent for {self.settings.forget_after:g} s, and nobody closed it"
                with suppress(DriverError):  # (it was closed meanwhile)
                    self.driver.report(session.uuid).count("images_forgotten", reason, images)
                logger.warning("session %s: %d images and frames forgotten: %s", session.uuid, images, reason)

    def _end(self, uuid: str, why: str) -> None:
        with self._lock:
            if self._sessions.pop(uuid, None) is None:
                return
        ended = self.driver.close(uuid)
        self.report.session_ended(uuid, ended, why)
        shout = logger.warning if ended.troubles else logger.info
        shout("session %s, %s: %d fallbacks, %s", uuid, why, ended.fallbacks, ended.to_dict())

    def _needed(self, declared: Mapping[str, Any]) -> dict[str, DeclaredCamera]:
        """The declared cameras that the planner's strip is made of, reduced as far as that allows."""
        cameras, problems = declared_cameras(declared)
        rig = self.driver.inputs.rig
        try:
            names = rig.needed({name: camera.unseen() for name, camera in cameras.items()})
        except StripError as error:
            said = "".join(f"; {name} {why}" for name, why in problems.items())
            raise DriverError(f"{error}{said}") from None
        finest = _SHARPNESS * rig.pixels_per_radian(max(self.driver.inputs.strip_widths))
        chosen = {}
        for name in names:
            camera = cameras[name]
            by = reduction_of(camera.lens, finest) if self.settings.reduce_images else 1
            chosen[name] = replace(camera, reduction=by)
        return chosen


def trajectory_of(poses: Floats, now_us: int) -> Trajectory:
    """A plan (8, 3) as poses of the rig at ``now_us`` with their stamps [us]."""
    stamps = [now_us + _INTERVAL_US * (index + 1) for index in range(len(poses))]
    # (by Pose.from_xyz_yaw, one by one, they take a third of the time of a small network)
    nothing, half = np.zeros(len(poses)), poses[:, 2] / 2
    places = np.stack([poses[:, 0], poses[:, 1], nothing], axis=1)
    turns = np.stack([nothing, nothing, np.sin(half), np.cos(half)], axis=1)
    return Trajectory(stamps, [Pose(place, turn) for place, turn in zip(places, turns, strict=True)])


def serve(
    driver: PlannerDriver,
    settings: AlpasimSettings,
    host: str,
    port: int,
    max_workers: int,
    about: Mapping[str, Any] | None = None,
    report_dir: Path | None = None,
) -> int:
    """Serve until the process is told to end; returns the exit code.

    Raises:
        DriverError: If the address cannot be had.
    """
    _refuse_taken(host, port)
    about = {"protocol": "alpasim", "settings": vars(settings), **(about or {})}
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    with RunReport(report_dir, about) as report:
        policy = AlpasimDriver(driver, settings, report)
        try:
            with serving(policy, port, host, max_workers, mode="alpasim") as bound:
                print(f"serving egodriver.EgodriverService at {host}:{bound}", flush=True)
                stop.wait()
        except RuntimeError as error:
            raise DriverError(f"--bind, --port: {error}") from error
        finally:
            policy.end_sessions("the server ended")
    print(report.headline(), flush=True)
    return 0


def _refuse_taken(host: str, port: int) -> None:
    """Refuse an address at which somebody listens: gRPC would share it, and each get some of the sessions."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:  # (which gRPC will say)
        return
    for family, kind, protocol, _, address in places:
        with socket.socket(family, kind, protocol) as probe:
            # (connections of before that are not quite over do not count)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise DriverError(
                        f"--bind, --port: somebody listens at {host}:{port}, maybe another driver; end it "
                        "or choose another port, 0 for a free one"
                    ) from error


def _motion_of(answer: Trajectory) -> Motion:
    """Where a runtime finds the ego 2 s after a plan, the rig turned by a quarter (ALPASIM, section 10)."""
    turned = Pose.from_xyz_yaw(10.0, -3.0, 0.2, np.pi / 2)
    reached = answer.transform(turned).interpolate(2_000_000)
    if reached is None:
        raise DriverError("the answer of the self-test ends before 2 s")
    # (to the left of a rig that looks along +y is -x)
    return Motion(10.0 - float(reached.position[0]), float(reached.position[1]) + 3.0)


def _is_finite(pose: Pose) -> bool:
    return bool(np.isfinite([*pose.position, *pose.quat_xyzw]).all())


def _flat(pose: Pose) -> Floats:
    return np.array([pose.position[0], pose.position[1], pose.yaw])


def _motion(stamps: list[int], poses: list[Pose], state: Any) -> EgoMotion:
    # (relative to the newest, in whole microseconds: of 1.6e15 a float would keep a quarter)
    times = [1e-6 * (stamp - stamps[-1]) for stamp in stamps]
    reported = None
    if state is not None:
        velocity, acceleration = state.linear_velocity, state.linear_acceleration
        reported = (np.array([velocity.x, velocity.y]), np.array([acceleration.x, acceleration.y]))
    return ego_motion(times, np.stack([_flat(pose) for pose in poses]), reported)


def _views(
    cameras: Mapping[str, DeclaredCamera], images: Mapping[str, list[Any]], now_us: int, oldest_us: int
) -> tuple[dict[str, CameraView], int]:
    """The newest images that all cameras have, not of the future and not older than a step, and their end.

    Raises:
        StripError: If there are none.
        FrameError: If one cannot be decoded.
    """
    if not cameras:
        return {}, now_us
    sets = []
    for name in cameras:
        sets.append([image for image in images.get(name, ()) if oldest_us <= image.frame_end_us <= now_us])
        if not sets[-1]:
            raise StripError("camera_missing", f"camera {name} has no image of this step")
    for first in sorted(sets[0], key=lambda image: -image.frame_end_us):
        matching = [
            [image for image in others if abs(image.frame_end_us - first.frame_end_us) <= _SAME_MOMENT_US]
            for others in sets
        ]
        if all(matching):
            views = {
                name: camera.view_of(found[-1].image_bytes)
                for (name, camera), found in zip(cameras.items(), matching, strict=True)
            }
            return views, first.frame_end_us
    raise StripError("camera_missing", f"the cameras {', '.join(cameras)} have no images of one moment")
