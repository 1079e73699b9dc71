"""Follow-up scenes of the two-stage evaluation: generated, one pickle each (EPDMS_TWO_STAGE, section 1.3).

The files hold instances of nuPlan's classes; none of them is imported, and nothing in a file is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.plain_pickle import PlainObject, PlainPickleError, load_plain_pickle
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError, WorldObjects
from beyonddrive.structures.boxes import OBJECT_TYPES

_ACTOR, _MAPS = "nuplan.common.actor_state", "nuplan.common.maps.maps_datatypes"
CLASSES = (
    ("nuplan.planning.simulation.observation.observation_type", "DetectionsTracks"),
    (f"{_ACTOR}.tracked_objects", "TrackedObjects"),
    (f"{_ACTOR}.agent", "Agent"),
    (f"{_ACTOR}.static_object", "StaticObject"),
    (f"{_ACTOR}.oriented_box", "OrientedBox"),
    (f"{_ACTOR}.state_representation", "StateSE2"),
    (f"{_ACTOR}.state_representation", "StateVector2D"),
    (f"{_ACTOR}.state_representation", "TimePoint"),
    (f"{_ACTOR}.scene_object", "SceneObjectMetadata"),
    (f"{_ACTOR}.tracked_objects_types", "TrackedObjectType"),
    (_MAPS, "TrafficLightStatuses"),
    (_MAPS, "TrafficLightStatusData"),
    (_MAPS, "TrafficLightStatusType"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    # A box whose corners were once asked for keeps its outline, of shapely 2 or 1, which nobody reads here.
    ("shapely.io", "from_wkb"),
    ("shapely.geometry.polygon", "Polygon"),
)
"""Classes whose instances may be in a file."""
RED = 2
"""nuPlan's number of a red light."""
TOKEN_LENGTH = 17
"""Characters of the token of a follow-up scene; those of original scenes have 16."""
REQUIRED = ("token", "timestamp", "roadblock_ids", "traffic_lights", "annotations", "ego_status")
_EXTENDED = ("extended_detections_tracks", "extended_traffic_light_data")


@dataclass(frozen=True, eq=False)
class SyntheticScene(Scene):
    """A follow-up scene, whose future is known for traffic and lights only.

    Attributes:
        later_objects: What is there every 0.5 s after the last stored frame.
        later_lights: (lane connector id, is red) at these times; shorter if unknown, which is no red.
        origin: Token of the last frame of the original scene's window.
        original: Token of the original scene.
    """

    later_objects: Sequence[WorldObjects] = field(default=(), repr=False)
    later_lights: Sequence[list[tuple[str, bool]]] = field(default=(), repr=False)
    origin: str = ""
    original: str = ""

    @property
    def num_samples(self) -> int:
        """Stored frames and later samples of objects."""
        return len(self.frames) + len(self.later_objects)

    def remedy_if_short(self, num_after: int) -> str:
        """What to do if the surroundings are known at fewer than ``num_after`` times after now."""
        return (
            f"extended_detections_tracks of {self.token}.pkl has {len(self.later_objects)} samples and "
            f"should have {num_after - (len(self.frames) - HISTORY)}: get the file again"
        )

    @cached_property
    def ego_poses(self) -> NDArray[np.float64]:
        """(frames, 3) global x [m], y [m], heading [rad] of the rear axle in every stored frame."""
        poses = np.array([frame["ego_pose"] for frame in self.frames], dtype=np.float64)
        self._check_finite("ego_status.ego_pose", poses)
        poses.setflags(write=False)
        return poses

    def world_objects(self, frame_index: int) -> WorldObjects:
        """Objects of a frame or, after the last one, of a later sample.

        Raises:
            SceneError: If there is no such sample.
        """
        later = frame_index - len(self.frames)
        if later < 0:
            return super().world_objects(frame_index)
        if later >= len(self.later_objects):
            raise SceneError(
                f"scene {self.token}: objects are known for {len(self.later_objects)} samples after its "
                f"{len(self.frames)} frames, sample {later + 1} is missing (extended_detections_tracks)"
            )
        return self.later_objects[later]

    def lights(self, frame_index: int) -> list[tuple[str, bool]]:
        """(lane connector id, is red) of a frame or a later sample; none where nothing is known."""
        later = frame_index - len(self.frames)
        if later < 0:
            return super().lights(frame_index)
        return list(self.later_lights[later]) if later < len(self.later_lights) else []


def read_synthetic_scene(path: Path) -> SyntheticScene:
    """Read a follow-up scene.

    Raises:
        SceneError: If the file is missing or damaged, holds anything beyond data and the known classes, or
            lacks something; names file and key. Nothing in it was run.
        OSError: If it cannot be read.
    """
    try:
        content = load_plain_pickle(path, CLASSES)
        return _scene(content)
    except FileNotFoundError:
        raise SceneError(
            f"{path}: there is no such follow-up scene; get it again, or give the folder that has it "
            f"(--synthetic-scenes)"
        ) from None
    except PlainPickleError as error:
        raise SceneError(f"{path}: {error}") from error
    except KeyError as error:
        raise SceneError(f"{path}: lacks the key {error}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise SceneError(f"{path}: {error}") from error


def _scene(content: Any) -> SyntheticScene:
    if not isinstance(content, dict) or not isinstance(content["frames"], list):
        raise SceneError("is no follow-up scene: expected a dictionary with a list 'frames'")
    meta = content["scene_metadata"]
    if meta["num_history_frames"] != HISTORY or len(content["frames"]) < HISTORY:
        raise SceneError(
            f"has {len(content['frames'])} frames, {meta['num_history_frames']} of them history; "
            f"{HISTORY} are needed"
        )
    frames = [_frame(frame, str(meta["map_name"])) for frame in content["frames"]]
    token = str(frames[HISTORY - 1]["token"])
    if token != meta["initial_token"]:
        raise SceneError(f"initial_token is {meta['initial_token']!r}, but the current frame is {token!r}")
    objects, lights = (content[key] or [] for key in _EXTENDED)
    return SyntheticScene(
        str(meta["log_name"]),
        "synthetic",
        frames,
        later_objects=[_later_objects(sample) for sample in objects],
        later_lights=[_later_lights(sample) for sample in lights],
        origin=str(meta["corresponding_original_scene"]),
        original=str(meta["corresponding_original_initial_token"]),
    )


def _frame(frame: dict[str, Any], location: str) -> dict[str, Any]:
    """A frame under the names that logs use."""
    token, stamp, blocks, lights, anns, ego = (frame[key] for key in REQUIRED)
    pose = np.asarray(ego["ego_pose"], dtype=np.float64)
    motion = [np.asarray(ego[key], dtype=np.float32) for key in ("ego_velocity", "ego_acceleration")]
    if pose.shape != (3,) or any(part.shape != (2,) for part in motion):
        raise SceneError(f"frame {token}: ego_status: expected a pose of 3 and a velocity of 2 numbers")
    return {
        "token": str(token),
        "timestamp": int(stamp),
        "map_location": location,
        "roadblock_ids": [str(block) for block in blocks],
        "traffic_lights": [(connector, bool(red)) for connector, red in lights],
        "anns": _annotations(anns, f"frame {token}: annotations"),
        "ego_pose": pose,
        "ego_dynamic_state": np.concatenate(motion),
        "driving_command": np.asarray(ego["driving_command"]),
        "cams": {str(name).upper(): _camera(cam) for name, cam in _cameras(frame) if cam},
        "lidar_path": _path_text(frame.get("lidar_path")),
    }


def _annotations(anns: dict[str, Any], where: str) -> dict[str, Any]:
    """Objects of a frame, under the names that logs use."""
    names, tokens = list(anns["names"]), list(anns["track_tokens"])
    if len(tokens) != len(names):
        raise SceneError(f"{where}: track_tokens has {len(tokens)} entries, but names has {len(names)}")
    arrays = {}
    for key, columns in (("boxes", 7), ("velocity_3d", 3)):
        values, wanted = np.asarray(anns[key]), (len(names), columns)
        if values.shape != wanted and (values.size or names):  # (no objects come in any shape)
            raise SceneError(f"{where}: {key} has the shape {values.shape}, wanted {wanted}, a row per name")
        arrays[key] = values.reshape(wanted)
    return {
        "gt_boxes": arrays["boxes"],
        "gt_names": names,
        "gt_velocity_3d": arrays["velocity_3d"],
        "track_tokens": tokens,
    }


def _cameras(frame: dict[str, Any]) -> Any:
    return dict(frame.get("camera_dict") or {}).items()


def _camera(camera: dict[str, Any]) -> dict[str, Any]:
    return {**camera, "data_path": _path_text(camera.get("data_path"))}


def _path_text(value: Any) -> Any:
    """A path as text; files may hold instances of pathlib's."""
    if isinstance(value, PlainObject) and value.name.startswith("pathlib."):
        return str(PurePosixPath(*(str(part) for part in value.args)))
    return value


def _of(value: Any, name: str) -> dict[str, Any]:
    """Attributes of an instance of a known class."""
    if not isinstance(value, PlainObject) or value.name.rpartition(".")[2] != name:
        raise SceneError(f"expected a {name}, got {getattr(value, 'name', type(value).__name__)}")
    return value.attributes()


def _enum(value: Any, name: str) -> int:
    if not isinstance(value, PlainObject) or value.name.rpartition(".")[2] != name or len(value.args) != 1:
        raise SceneError(f"expected a {name}")
    return int(value.args[0])


def _later_objects(sample: Any) -> WorldObjects:
    listed = _of(_of(sample, "DetectionsTracks")["tracked_objects"], "TrackedObjects")["tracked_objects"]
    tokens, types, poses, sizes, velocities = [], [], [], [], []
    for item in listed:
        kind = "Agent" if isinstance(item, PlainObject) and item.name.endswith(".Agent") else "StaticObject"
        of = _of(item, kind)
        number = _enum(of["_tracked_object_type"], "TrackedObjectType")
        box = _of(of["_box"], "OrientedBox")
        center = _of(box["_center"], "StateSE2")
        tokens.append(str(_of(of["_metadata"], "SceneObjectMetadata")["track_token"]))
        types.append(OBJECT_TYPES[number])  # (in nuPlan's order)
        poses.append([center["x"], center["y"], center["heading"]])
        sizes.append([box["_length"], box["_width"]])
        velocity = (0.0, 0.0)
        if kind == "Agent":
            moves = _of(of["_velocity"], "StateVector2D")
            velocity = (moves["_x"], moves["_y"])
        velocities.append(velocity)
    arrays = [np.array(values, dtype=np.float64) for values in (poses, sizes, velocities)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise SceneError("extended_detections_tracks: a box or velocity is not finite")
    return WorldObjects(
        tokens, types, arrays[0].reshape(-1, 3), arrays[1].reshape(-1, 2), arrays[2].reshape(-1, 2)
    )


def _later_lights(sample: Any) -> list[tuple[str, bool]]:
    found = []
    for light in _of(sample, "TrafficLightStatuses")["traffic_lights"]:
        of = _of(light, "TrafficLightStatusData")
        is_red = _enum(of["status"], "TrafficLightStatusType") == RED
        found.append((str(int(of["lane_connector_id"])), is_red))
    return found
