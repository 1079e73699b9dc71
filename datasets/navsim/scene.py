"""A scene: fourteen frames of a log, seen from the fourth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.datasets.navsim.logs import Frame
from beyonddrive.structures.boxes import OBJECT_TYPES
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.se2 import rotate, to_local, wrap_angle

HISTORY = 4
"""Frames up to and including now (NAVSIM_FORMAT, section 2)."""
FUTURE = 10
"""Frames after now."""


class SceneError(BeyondDriveError, ValueError):
    """A scene holds a value that cannot be used; the message names the scene, the frame and the key."""


@dataclass(frozen=True)
class FrameObjects:
    """What is annotated in one frame, in the order of the log.

    Attributes:
        tokens: Track tokens: the identity of an object over frames.
        types: Classes, out of :data:`beyonddrive.structures.boxes.OBJECT_TYPES`.
        boxes: (N, 7) float64 x, y, z, length, width, height [m], heading [rad], in the ego frame of the frame
            (origin rear axle, x forward).
        velocity: (N, 2) float64 ground velocity along the ego axes of the frame [m/s].
    """

    tokens: list[str]
    types: list[str]
    boxes: NDArray[np.float64]
    velocity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class WorldObjects:
    """What is around at one time, in the global frame.

    Attributes:
        tokens: Track tokens.
        types: Classes, out of :data:`beyonddrive.structures.boxes.OBJECT_TYPES`.
        poses: (N, 3) centre x, y [m] and heading [rad].
        sizes: (N, 2) length and width [m].
        velocity: (N, 2) [m/s].
    """

    tokens: list[str]
    types: list[str]
    poses: NDArray[np.float64]
    sizes: NDArray[np.float64]
    velocity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """Frames of one log around now, which is index ``HISTORY - 1`` (NAVSIM_FORMAT, section 2).

    A scene has ``HISTORY`` frames and usually ``FUTURE`` more; a split made for inference only may have fewer
    future frames, and then whatever needs them raises :class:`SceneError`.

    Attributes:
        log_name: Name of the log, as its frames give it.
        split: Name of the split it was read from.
        frames: The frames, oldest first.
    """

    log_name: str
    split: str
    frames: Sequence[Frame]

    def __post_init__(self) -> None:
        if len(self.frames) < HISTORY:
            raise SceneError(f"log {self.log_name}: a scene needs {HISTORY} frames, got {len(self.frames)}")

    @property
    def num_samples(self) -> int:
        """Times, 0.5 s apart, at which the surroundings are known."""
        return len(self.frames)

    def remedy_if_short(self, num_after: int) -> str:
        """What to do if the surroundings are known at fewer than ``num_after`` times after now."""
        return f"use a split with num_future_frames >= {num_after}"

    @property
    def now(self) -> Frame:
        """The current frame."""
        return self.frames[HISTORY - 1]

    @property
    def token(self) -> str:
        """Token of the current frame: the name of the scene."""
        return self.now["token"]

    @property
    def map_location(self) -> str:
        """Which map the scene lies on."""
        return self.now["map_location"]

    @property
    def timestamp_us(self) -> int:
        """Time of the current frame [us]."""
        return int(self.now["timestamp"])

    @property
    def roadblock_ids(self) -> list[str]:
        """Route: ids of roadblocks and roadblock connectors in driving order; may repeat or have gaps."""
        return [str(block) for block in self.now["roadblock_ids"]]

    @property
    def traffic_lights(self) -> list[tuple[str, bool]]:
        """(lane connector id, is red) of the current frame."""
        return self.lights(HISTORY - 1)

    def lights(self, frame_index: int) -> list[tuple[str, bool]]:
        """(lane connector id, is red) of one frame; 0 is the oldest, ``HISTORY - 1`` is now."""
        lights = self.frames[frame_index]["traffic_lights"]
        return [(str(_as_integer(connector)), bool(red)) for connector, red in lights]

    @cached_property
    def ego_poses(self) -> NDArray[np.float64]:
        """(frames, 3) global x [m], y [m], heading [rad] of the rear axle in every frame.

        Raises:
            SceneError: If a pose is not finite or a quaternion is zero.
        """
        translation = np.stack([np.asarray(f["ego2global_translation"], np.float64) for f in self.frames])
        rotation = np.stack([np.asarray(f["ego2global_rotation"], np.float64) for f in self.frames])
        self._check_finite("ego2global_translation", translation)
        self._check_finite("ego2global_rotation", rotation)
        if (np.abs(rotation).max(axis=1) == 0).any():
            raise SceneError(f"scene {self.token} of log {self.log_name}: ego2global_rotation is zero")
        poses = np.column_stack([translation[:, :2], ego_yaw(rotation)])
        poses.setflags(write=False)
        return poses

    @property
    def ego_pose(self) -> NDArray[np.float64]:
        """(3,) global x [m], y [m], heading [rad] of the rear axle now."""
        return self.ego_poses[HISTORY - 1]

    @property
    def ego_dynamic(self) -> NDArray[np.float32]:
        """(4,) float32 vx, vy [m/s], ax, ay [m/s2] now, along the ego axes."""
        state = np.asarray(self.now["ego_dynamic_state"], dtype=np.float32)
        if not np.isfinite(state).all():
            raise SceneError(f"scene {self.token} of log {self.log_name}: ego_dynamic_state is not finite")
        return state

    @property
    def driving_command(self) -> NDArray[np.int64]:
        """(4,) one-hot: left, forward, right, unknown."""
        return np.asarray(self.now["driving_command"]).astype(np.int64)

    @property
    def expert_plan(self) -> NDArray[np.float64]:
        """(8, 3) what the driver did: poses of the next eight frames in the ego frame now.

        Raises:
            SceneError: If the scene has fewer than eight future frames.
        """
        future = self.ego_poses[HISTORY : HISTORY + NUM_POSES]
        if len(future) < NUM_POSES:
            raise SceneError(
                f"scene {self.token} of log {self.log_name} has {len(future)} future frames, an expert plan "
                f"needs {NUM_POSES}; use a split with num_future_frames >= {NUM_POSES}"
            )
        return to_local(future, self.ego_pose)

    def objects(self, frame_index: int) -> FrameObjects:
        """Annotated objects of one frame, in that frame's own ego frame.

        Args:
            frame_index: 0 is the oldest frame, ``HISTORY - 1`` is now.

        Raises:
            SceneError: If the frame has none, a box or velocity is not finite, or a class or track token is
                not allowed.
        """
        annotations = self.frames[frame_index].get("anns")
        if annotations is None:
            raise SceneError(
                f"scene {self.token} of log {self.log_name}: frame {frame_index} has no annotations (anns), "
                f"as in private tests: it can be planned for, but neither scored nor trained on"
            )
        boxes = np.asarray(annotations["gt_boxes"], dtype=np.float64)
        velocity = np.asarray(annotations["gt_velocity_3d"], dtype=np.float64)[:, :2]
        types = [str(name) for name in annotations["gt_names"]]
        tokens = [str(token) for token in annotations["track_tokens"]]
        where = f"scene {self.token} of log {self.log_name}: frame {frame_index}: anns"
        for key, values in (("gt_boxes", boxes), ("gt_velocity_3d", velocity)):
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                raise SceneError(f"{where}.{key}: object {row} ({tokens[row]}) is not finite")
        if unknown := set(types).difference(OBJECT_TYPES):
            raise SceneError(
                f"{where}.gt_names: unknown classes {sorted(unknown)}; allowed are {list(OBJECT_TYPES)}"
            )
        if any("red_light" in token for token in tokens):
            raise SceneError(f"{where}.track_tokens: 'red_light' is reserved for traffic lights")
        return FrameObjects(tokens, types, boxes, velocity)

    def world_objects(self, frame_index: int) -> WorldObjects:
        """Objects of one frame in the global frame; as :meth:`objects` otherwise."""
        objects, pose = self.objects(frame_index), self.ego_poses[frame_index]
        xy = rotate(objects.boxes[:, :2], pose[2]) + pose[:2]
        return WorldObjects(
            objects.tokens,
            objects.types,
            np.column_stack([xy, wrap_angle(objects.boxes[:, 6] + pose[2])]),
            objects.boxes[:, 3:5],
            rotate(objects.velocity, pose[2]),
        )

    def _check_finite(self, key: str, values: NDArray[np.float64]) -> None:
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise SceneError(
                f"scene {self.token} of log {self.log_name}: frame {bad[0]}: {key} is not finite"
            )


def ego_yaw(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Heading [rad] of quaternions (..., 4) w, x, y, z as NAVSIM reads it.

    It is the yaw of Rx(roll) Ry(pitch) Rz(yaw), not of the usual z-y-x order: the sign of x y differs, which
    shows as soon as the road has slope and camber (NAVSIM_FORMAT, section 2, "Ego heading").

    >>> float(ego_yaw([0.0, 0.0, 0.0, 1.0]).round(6))
    3.141593
    >>> float(ego_yaw([0.6, 0.0, 0.0, 0.8]).round(6))
    1.85459
    """
    q = np.asarray(quaternion, dtype=np.float64)
    square = np.einsum("...i,...i->...", q, q)[..., None]
    q = np.where(np.abs(1.0 - square) < 1e-14, q, q / np.sqrt(square))
    w, x, y, z = np.moveaxis(q, -1, 0)
    return np.arctan2(2.0 * (w * z - x * y), 1.0 - 2.0 * (y * y + z * z))


def _as_integer(value: Any) -> Any:
    """1024.0, from an array of mixed columns, back to 1024."""
    return int(value) if isinstance(value, (float, np.floating, np.integer)) else value
