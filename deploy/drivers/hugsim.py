"""HUGSIM's observations as frames, and plans as its answers (HUGSIM, sections 1 to 3, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from beyonddrive.deploy.drivers.core import PlannerDriver
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.fallbacks import USUAL_STEP, Whereabouts
from beyonddrive.deploy.drivers.frame_inputs import FrameError
from beyonddrive.deploy.drivers.self_test import Motion, check_convention
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import SHORT_STEP, command_of, directions
from beyonddrive.evaluation.closed_loop.hugsim.settings import CONTROLLER_KEY, Controller
from beyonddrive.evaluation.closed_loop.hugsim.tracker import WHEELBASE
from beyonddrive.structures.errors import describe_error, shown
from beyonddrive.structures.frame import PLANNER, CameraView, Command, DrivenPlan, Floats, Frame
from beyonddrive.structures.lenses import LensError, Pinhole
from beyonddrive.structures.plan import POSE_INTERVAL

Commands = Literal["faithful", "always_forward"]
Sweep = Literal["absent", "depth"]
_COMMANDS = {0: Command.RIGHT, 1: Command.LEFT, 2: Command.STRAIGHT}
FRONT_CAMERA = "CAM_FRONT"
"""The ego's pose is this camera's."""
STANDING = 0.1
"""A plan that stays nearer than this stands [m]."""
_CREEP = 1e-3
"""Length of a step that is too short to be one [m]."""
POINT_AT_EGO = "point_at_ego"
_POINT_AT_EGO = (
    "the planner's plan has a point exactly at the ego, sent as it is (--as-released), and controller "
    "first_release fails at it; without --as-released it is written so that it can be tracked"
)
_DEPTH_STRIDE = 4
_DEPTH_RANGE = 80.0
"""Depths beyond this are guesses of the renderer [m]."""


@dataclass(frozen=True)
class HugsimConventions:
    """How a planner is put behind HUGSIM.

    Attributes:
        commands: ``faithful`` gives the planner the simulator's command, ``always_forward`` none but straight
            on, as the published LTF client does.
        as_released: Ego motion and plans as the published LTF client has them: velocity and acceleration
            turned by the steering angle, points as the planner has them. So a point at the ego, at which
            ``first_release`` fails, is sent, too; it is counted as ``point_at_ego``. The client knows no
            fallbacks: those are steadied all the same.
        sweep: Where LiDAR points come from: ``absent``, or the ``depth`` of the cameras, which pipes have.
        dtype: Of the plan that is sent; HUGSIM's controllers compute in it.
        controller: Which one tracks the plan, so how one that stands has to be written; None: that of a
            release of HUGSIM, ``first_release`` or ``main``.
    """

    commands: Commands = "faithful"
    as_released: bool = False
    sweep: Sweep = "absent"
    dtype: Literal["float64", "float32"] = "float64"
    controller: Controller | None = None

    def told_by(self, info: Any) -> HugsimConventions:
        """These with a controller: their own, else the one that ``info`` names, as our own simulator does."""
        named = info.get(CONTROLLER_KEY) if isinstance(info, Mapping) else None
        known = next((own for own in get_args(Controller) if isinstance(named, str) and own == named), None)
        return replace(self, controller=self.controller or known)

    @classmethod
    def released(cls) -> HugsimConventions:
        """As the published LTF client."""
        return cls("always_forward", True, "absent", "float32")


def planned(
    driver: PlannerDriver, obs: Any, info: Any, session: str, conventions: HugsimConventions
) -> tuple[DrivenPlan, float]:
    """The plan for an observation, whatever it holds, and the moment that it is for (NaN if nobody knows)."""
    try:
        frame = frame_of(obs, info, session, conventions)
    except Exception as error:  # (what a simulator sends can make nearly anything raise)
        known = whereabouts_of(info)
        plan = driver.plan_without_frame(session, "bad_frame", describe_error(error), known)
        return plan, float("nan") if known.time is None else known.time
    plan = driver.plan(frame)
    if plan.source == PLANNER and _fails_as_released(plan.poses, conventions.told_by(info)):
        driver.report(session).count(POINT_AT_EGO, _POINT_AT_EGO)
    return plan, frame.time


def _fails_as_released(poses: Floats, conventions: HugsimConventions) -> bool:
    """Whether the first release fails at a plan that is sent as the planner has it."""
    if not conventions.as_released or conventions.controller not in (None, "first_release"):
        return False
    return not answer_of(poses, conventions).any(axis=1).all()


def whereabouts_of(info: Any) -> Whereabouts:
    """When and where the ego is, as far as that much of ``info`` can be read."""
    if not isinstance(info, Mapping):
        return Whereabouts()
    pose: Floats | None = None
    with suppress(FrameError):
        pose = _pose(info)
    return Whereabouts.of(info.get("timestamp"), pose, info.get("ego_velo"))


def frame_of(obs: Any, info: Any, session: str, conventions: HugsimConventions) -> Frame:
    """A frame of an observation.

    Args:
        obs: ``rgb`` images by camera and, if points come from it, ``depth``.
        info: As HUGSIM gives it.
        session: Its name.
        conventions: How to read them.

    Raises:
        FrameError: If something is missing or of another kind; names the key.
    """
    if not isinstance(obs, Mapping) or not isinstance(info, Mapping):
        raise FrameError(f"obs, info: must be dictionaries, got {type(obs).__name__}, {type(info).__name__}")
    speed, steering = _number(info, "ego_velo"), -_number(info, "ego_steer")
    ahead = _number(info, "accelerate")
    if conventions.as_released:
        direction = np.array([np.cos(steering), np.sin(steering)])
        velocity, acceleration = speed * direction, ahead * direction
    else:
        # The ego moves as its rear axle would: it does not slip, and a bend accelerates it to its inside.
        velocity = np.array([speed, 0.0])
        acceleration = np.array([ahead, speed**2 * np.tan(steering) / WHEELBASE])
    cameras = _cameras(obs, info)
    if not conventions.as_released:
        cameras = _ahead_is_the_front_cameras(cameras)
    lidar = _points(obs, cameras) if conventions.sweep == "depth" else None
    return Frame(
        session=session,
        time=_number(info, "timestamp"),
        cameras=cameras,
        velocity=velocity,
        acceleration=acceleration,
        command=_command(info, conventions),
        pose=_pose(info),
        steering=steering,
        lidar=lidar,
    )


def answer_of(poses: Floats, conventions: HugsimConventions, source: str = PLANNER) -> NDArray[np.floating]:
    """A plan as HUGSIM takes it: (8, 2) right, ahead [m].

    Its controllers read directions from the distance of points, so that millimetres to the side would turn
    the wheels of a car that stands. A plan that stands becomes what turns none: points just to the right in
    the releases, which read directions from there (in the first one zeros fail), and zeros elsewhere. Steps
    too short to have a direction go on in that of the step before. A planner's own plan that goes
    ``as_released`` stays as it is.

    Args:
        poses: (8, 3) the plan.
        conventions: How it is written.
        source: Where it comes from, as in :class:`~beyonddrive.structures.frame.DrivenPlan`.

    >>> answer_of(np.array([[1.0, 0.5, 0.1]] * 8), HugsimConventions())[0].tolist()
    [-0.5, 1.0]
    """
    points = np.stack([-poses[:, 1], poses[:, 0]], axis=1)
    if not conventions.as_released or source != PLANNER:
        points = _steadied(points, conventions.controller)
    return points.astype(conventions.dtype)


def _steadied(points: Floats, controller: Controller | None) -> Floats:
    if np.abs(points).max() < STANDING:
        standing = np.zeros_like(points)
        if controller not in ("pr57", "resampled"):
            standing[:, 0] = _CREEP * np.arange(1, len(points) + 1)
        return standing
    steps = np.diff(points, axis=0, prepend=0.0)
    lengths = np.hypot(*steps.T)
    if lengths.min() >= SHORT_STEP:
        return points
    ahead = directions(points)
    onward = np.maximum(lengths, _CREEP)[:, None] * np.column_stack([-np.sin(ahead), np.cos(ahead)])
    steps = np.where((lengths < SHORT_STEP)[:, None], onward, steps)
    steadied: Floats = np.cumsum(steps, axis=0)
    return steadied


def garage_answer(
    poses: Floats, speed: float, step: float, conventions: HugsimConventions, source: str = PLANNER
) -> dict[str, Any]:
    """A plan for the 2026 garage variant with the ego's own motion along it, in place of a tracker's.

    Args:
        poses: (8, 3) the plan.
        speed: Of the ego [m/s].
        step: Until the next observation [s].
        conventions: Of the plan that is scored.
        source: Where the plan comes from.
    """
    if not 0 < step <= POSE_INTERVAL:
        raise DriverError(f"dt: a step must be longer than 0 and at most {POSE_INTERVAL} s, got {step}")
    share = step / POSE_INTERVAL
    forward, left, turn = (float(value) for value in share * poses[0])
    length = float(np.hypot(forward, left)) * (1.0 if forward >= 0 else -1.0)
    steering = float(np.arctan(WHEELBASE * turn / length)) if abs(length) > _CREEP else 0.0
    return {
        "plan": answer_of(poses, conventions, source),
        "pose_delta": [forward, left, turn],
        "velo": length / step,
        "steer": -steering,
        "acc": (length / step - speed) / step,
    }


def self_test(conventions: HugsimConventions, follow_plan: bool = False) -> None:
    """Does the simulator's tracker turn and accelerate as a plan says, and with ``follow_plan`` the ego.

    The tracker is that of ``pr57``, the version whose headings are right, whatever the conventions name.

    Raises:
        DriverError: If not.
    """

    def motion(points: Any) -> Motion:
        acceleration, steering_rate = command_of(points, 5.0, 0.0).inputs[0]
        return Motion(-float(steering_rate), float(acceleration))

    def own(poses: Floats) -> dict[str, Any]:
        return garage_answer(poses, 5.0, USUAL_STEP, conventions)

    check_convention(lambda poses: answer_of(poses, conventions), motion)
    if follow_plan:
        # The garage does what it is told: forward, left and turn; its steering is positive to the right.
        check_convention(own, lambda told: Motion(told["pose_delta"][1], told["pose_delta"][0]))
        check_convention(own, lambda told: Motion(told["pose_delta"][2], told["velo"]))
        check_convention(own, lambda told: Motion(-told["steer"], told["acc"]))


def step_of(info: Mapping[str, Any]) -> float:
    """Seconds until the next observation: ``dt`` of the garage variant, 0.25 of the release."""
    return _number(info, "dt") if "dt" in info else USUAL_STEP


def _pose(info: Mapping[str, Any]) -> Floats:
    # (the record frame is x ahead, y left, and its yaw is counter-clockwise)
    return _numbers(info, "ego_box", 7)[[0, 1, 6]]


def _command(info: Mapping[str, Any], conventions: HugsimConventions) -> Command:
    value = _number(info, "command")
    if conventions.commands == "always_forward":
        return Command.STRAIGHT
    if value not in _COMMANDS:
        raise FrameError(f"info.command: must be 0 right, 1 left or 2 forward, got {value:g}")
    return _COMMANDS[int(value)]


def _cameras(obs: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, CameraView]:
    images, parameters = obs.get("rgb"), info.get("cam_params")
    if not isinstance(images, Mapping) or not isinstance(parameters, Mapping):
        raise FrameError("obs.rgb, info.cam_params: must be dictionaries by camera")
    cameras = {}
    for name, image in images.items():
        key = f"info.cam_params.{name}"
        if name not in parameters:
            raise FrameError(f"{key}: is missing, obs.rgb has {sorted(map(str, images))}")
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            raise FrameError(f"obs.rgb.{name}: must be uint8 (H, W, 3)")
        if image.shape[2] != 3 or 0 in image.shape:
            raise FrameError(f"obs.rgb.{name}: must be uint8 (H, W, 3), got {image.shape}")
        try:
            intrinsic = parameters[name]["intrinsic"]
            width, height = float(intrinsic["W"]), float(intrinsic["H"])
            fields = [float(intrinsic[part]) for part in ("fovx", "fovy", "cx", "cy")]
            to_camera = np.array(parameters[name]["v2c"], dtype=np.float64)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise FrameError(f"{key}: cannot be read ({type(error).__name__}: {error})") from None
        if to_camera.shape != (4, 4) or not np.isfinite(to_camera).all():
            raise FrameError(f"{key}: v2c must be a finite (4, 4)")
        if not all(1 <= size < np.inf for size in (width, height)):
            raise FrameError(f"{key}.intrinsic: H and W must be finite and positive, got {height}, {width}")
        try:
            lens = Pinhole.of_fields_of_view(int(width), int(height), *fields)
        except LensError as error:
            raise FrameError(f"{key}.intrinsic: {error}") from None
        turn = to_camera[:3, :3].T
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
            raise FrameError(f"{key}.v2c: is no rigid motion")
        lens = lens.scaled(image.shape[1] / width, image.shape[0] / height)
        cameras[str(name)] = CameraView(image, lens, turn, -turn @ to_camera[:3, 3])
    return cameras


def _ahead_is_the_front_cameras(cameras: dict[str, CameraView]) -> dict[str, CameraView]:
    """The cameras as a car has them that drives to where its front camera looks.

    HUGSIM moves its ego by the pose of that camera (section 1), which on the recorded cars looks half a
    degree to the side: plans of a planner whose images were placed by the recorded car would be off by that.
    """
    front = cameras.get(FRONT_CAMERA)
    if front is None:
        return cameras
    ahead, left, _ = front.rotation[:, 2]
    length = float(np.hypot(ahead, left))
    cos, sin = ahead / length, left / length
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return {
        name: replace(view, rotation=turn @ view.rotation, translation=turn @ view.translation)
        for name, view in cameras.items()
    }


def _points(obs: Mapping[str, Any], cameras: Mapping[str, CameraView]) -> NDArray[np.float32]:
    """Points (4, N) where the cameras see surfaces, in the ego frame, intensity 0."""
    depths = obs.get("depth")
    if not isinstance(depths, Mapping):
        raise FrameError("obs.depth: is missing; leave --lidar depth out (HUGSIM has it over pipes alone)")
    found = [np.empty((0, 3), np.float32)]
    for name, view in cameras.items():
        depth = depths.get(name)
        if not isinstance(depth, np.ndarray) or depth.shape != view.image.shape[:2]:
            raise FrameError(f"obs.depth.{name}: must be {view.image.shape[:2]}, as the image")
        assert isinstance(view.lens, Pinhole)
        rows, columns = (np.arange(0, size, _DEPTH_STRIDE) for size in depth.shape)
        pixels = np.stack(np.meshgrid(columns + 0.5, rows + 0.5), axis=-1)
        values = depth[::_DEPTH_STRIDE, ::_DEPTH_STRIDE].astype(np.float64)
        near = np.isfinite(values) & (values > 0.1) & (values < _DEPTH_RANGE)
        rays = view.lens.rays(pixels)[near] * values[near][:, None]
        found.append((rays @ view.rotation.T + view.translation).astype(np.float32))
    xyz = np.concatenate(found)
    return np.vstack([xyz.T, np.zeros((1, len(xyz)), np.float32)])


def _number(info: Mapping[str, Any], key: str) -> float:
    return float(_numbers({key: [info[key]]} if key in info else {}, key, 1)[0])


def _numbers(info: Mapping[str, Any], key: str, count: int) -> Floats:
    if key not in info:
        raise FrameError(f"info.{key}: is missing")
    try:
        values: Floats = np.array(info[key], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise FrameError(f"info.{key}: must be numbers, got {shown(info[key])}") from None
    if values.shape != (count,) or not np.isfinite(values).all():
        raise FrameError(f"info.{key}: must be {count} finite number(s), got {shown(info[key])}")
    return values
