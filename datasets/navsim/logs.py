"""NAVSIM logs: pickles read by an allow-list, so that a file can only ever become data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.plain_pickle import PlainPickleError, load_plain_pickle
from beyonddrive.structures.errors import BeyondDriveError

Frame = dict[str, Any]
"""One frame of a log as NAVSIM_FORMAT, section 2 lists it."""

CAMERA_NAMES = ("CAM_F0", "CAM_L0", "CAM_L1", "CAM_L2", "CAM_R0", "CAM_R1", "CAM_R2", "CAM_B0")
"""The eight cameras that every frame names."""
DOUBLED_TOKEN = "is also the token of frame"
"""What the error of a log says in which a token is there twice."""

_REMEDY = "restore the file from the data set or generate it again"


class LogError(BeyondDriveError, ValueError):
    """A log cannot be read, or does not hold what a NAVSIM log holds; the message names the file."""


def read_log(path: Path, in_time_order: bool = True) -> list[Frame]:
    """Read one log: its frames in time order, 0.5 s apart (NAVSIM_FORMAT, section 2).

    Only plain Python values and numpy arrays are built from the pickle; whatever else it asks for is refused
    before it runs. Keys, types, shapes and equal lengths are checked here, finite values where they are used
    (:mod:`beyonddrive.datasets.navsim.scene`), so that one bad number costs one scene and not the log. Frames
    of private tests may be without annotations (``anns``) and LiDAR.

    Args:
        path: ``<root>/navsim_logs/<split>/<log_name>.pkl``.
        in_time_order: Whether frames must be in time order; a file of several logs has them in any.

    Raises:
        LogError: If the file is missing, truncated, corrupt, asks for code, or lacks a key; the message names
            file, frame index, key and remedy.
    """
    path = Path(path)
    try:
        frames = load_plain_pickle(path)
    except FileNotFoundError:
        raise LogError(f"{path}: there is no such log; check the data root and the split") from None
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
    except PlainPickleError as error:
        raise LogError(f"{path}: {error}; {_REMEDY}") from error
    _check_log(path, frames, in_time_order)
    return frames


def _check_log(path: Path, frames: Any, in_time_order: bool) -> None:
    if not isinstance(frames, list):
        raise LogError(f"{path}: a log is a list of frames, this is a {type(frames).__name__}; {_REMEDY}")
    seen: dict[str, int] = {}
    last_stamp = -1
    for index, frame in enumerate(frames):
        try:
            _check_frame(frame)
        except LogError as error:
            raise LogError(f"{path}: frame {index}: {error}; {_REMEDY}") from None
        token, stamp = frame["token"], int(frame["timestamp"])
        if token in seen:
            raise LogError(
                f"{path}: frame {index}: key 'token': {token} {DOUBLED_TOKEN} {seen[token]}; {_REMEDY}"
            )
        if in_time_order and stamp <= last_stamp:
            raise LogError(
                f"{path}: frame {index}: key 'timestamp': {stamp} us is not after the frame before it "
                f"({last_stamp} us); {_REMEDY}"
            )
        seen[token], last_stamp = index, stamp


_TYPES: dict[str, type | tuple[type, ...]] = {
    "token": str,
    "timestamp": (int, float, np.integer, np.floating),
    "log_name": str,
    "scene_token": str,
    "map_location": str,
    "roadblock_ids": (list, tuple, np.ndarray),
    "traffic_lights": (list, tuple, np.ndarray),
    "cams": dict,
}
_OPTIONAL: dict[str, type] = {"lidar_path": str, "anns": dict}
"""What logs of private tests lack."""
_SHAPES: dict[str, tuple[int, ...]] = {
    "ego2global_translation": (3,),
    "ego2global_rotation": (4,),
    "ego_dynamic_state": (4,),
    "driving_command": (4,),
}
_CAMERA_SHAPES: dict[str, tuple[int, ...]] = {
    "sensor2lidar_rotation": (3, 3),
    "sensor2lidar_translation": (3,),
    "cam_intrinsic": (3, 3),
    "distortion": (5,),
}


def _check_frame(frame: Any) -> None:
    if not isinstance(frame, dict):
        raise LogError(f"a frame is a dict, this is a {type(frame).__name__}")
    for key, kind in _TYPES.items():
        if not isinstance(_get(frame, key), kind):
            raise LogError(f"key {key!r}: a {type(frame[key]).__name__} is not what a log holds there")
    for key, kind in _OPTIONAL.items():
        if not isinstance(frame.get(key), (kind, type(None))):
            raise LogError(f"key {key!r}: a {type(frame[key]).__name__} is not what a log holds there")
    if not frame["token"] or "/" in frame["token"]:  # (files are named after it)
        raise LogError(f"key 'token': {frame['token']!r} is no token")
    if not np.isfinite(frame["timestamp"]):
        raise LogError(f"key 'timestamp': {frame['timestamp']} is no time")
    for key, shape in _SHAPES.items():
        _check_shape(key, _get(frame, key), shape)
    _length("roadblock_ids", frame["roadblock_ids"])
    _check_lights(frame["traffic_lights"])
    _check_command(np.asarray(frame["driving_command"]))
    if frame.get("anns") is not None:
        _check_annotations(frame["anns"])
    for name in dict.fromkeys((*CAMERA_NAMES, *frame["cams"])):
        camera = _get(frame["cams"], name, "cams.")
        if not isinstance(camera, dict) or not isinstance(_get(camera, "data_path", f"cams.{name}."), str):
            raise LogError(f"key 'cams.{name}.data_path': must be a path")
        for key, shape in _CAMERA_SHAPES.items():
            _check_shape(f"cams.{name}.{key}", _get(camera, key, f"cams.{name}."), shape)


def _check_lights(lights: Any) -> None:
    _length("traffic_lights", lights)
    for light in lights:
        if not isinstance(light, (list, tuple, np.ndarray)) or len(light) != 2:
            raise LogError("key 'traffic_lights': each entry is (lane connector id, is red)")
        connector = light[0]
        # Columns of one array share a type, so that an id may come as 1024.0.
        fraction = isinstance(connector, (float, np.floating)) and not float(connector).is_integer()
        if fraction or not isinstance(connector, (int, float, str, np.integer, np.floating)):
            raise LogError(f"key 'traffic_lights': {connector!r} is no lane connector id")


def _check_command(command: NDArray[Any]) -> None:
    if not np.isin(command, (0, 1)).all():
        raise LogError(f"key 'driving_command': must hold zeros and ones, got {command.tolist()}")


def _check_annotations(anns: dict[str, Any]) -> None:
    count = _length("anns.gt_names", _get(anns, "gt_names", "anns."))
    for key, columns in (("gt_boxes", 7), ("gt_velocity_3d", 3)):
        _check_shape(f"anns.{key}", _get(anns, key, "anns."), (count, columns))
    for key in ("instance_tokens", "track_tokens"):
        found = _length(f"anns.{key}", _get(anns, key, "anns."))
        if found != count:
            raise LogError(f"key 'anns.{key}': {found} entries, but 'anns.gt_names' has {count}")


def _length(key: str, value: Any) -> int:
    if not isinstance(value, (list, tuple, np.ndarray)) or getattr(value, "ndim", 1) == 0:
        raise LogError(f"key {key!r}: must be a list, got a {type(value).__name__}")
    return len(value)


def _get(mapping: dict[str, Any], key: str, prefix: str = "") -> Any:
    try:
        return mapping[key]
    except KeyError:
        raise LogError(f"key '{prefix}{key}' is missing") from None


def _check_shape(key: str, value: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(value)
        except ValueError:
            raise LogError(f"key {key!r}: the rows differ in length") from None
    if value.shape != shape or value.dtype.kind not in "fiub":
        raise LogError(
            f"key {key!r}: must be numbers of shape {shape}, got {value.dtype} of shape {value.shape}"
        )
