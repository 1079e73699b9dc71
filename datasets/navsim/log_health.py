"""What would break later in one log: its frames, its sensor files, its route on the map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from beyonddrive.datasets.maps.nuplan_map import MapError, NuPlanMap, open_map
from beyonddrive.datasets.navsim.blob_files import image_problem, sweep_problem
from beyonddrive.datasets.navsim.findings import Finding, FindingBook
from beyonddrive.datasets.navsim.logs import DOUBLED_TOKEN, Frame, LogError, read_log
from beyonddrive.datasets.navsim.scene import FUTURE, HISTORY
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.sensors import SensorError, camera_of, lidar_path_of
from beyonddrive.structures.boxes import OBJECT_TYPES

INTERVAL_US = 500_000
"""Time between frames (NAVSIM_FORMAT, section 2)."""
TOLERANCE_US = 50_000
"""From 0.55 s on two frames are no neighbours (EPDMS_V2, section 11)."""
ROAD_DISTANCE = 100.0
"""Farther from any road [m] the score sees no map at all (PDMS_V1, section 12.3)."""
_ROADS = ("lane_groups_polygons", "intersections", "carpark_areas")
_CALIBRATION = ("sensor2lidar_rotation", "sensor2lidar_translation", "cam_intrinsic", "distortion")
_SHOWN = 3


@dataclass(frozen=True)
class HealthSettings:
    """What is looked at.

    Attributes:
        maps_root: Folder of the maps.
        sensor_root: Folder of the sensor files of the split; None does not look at them.
        decode: Read images and sweeps whole, instead of a few places of them.
        needed_by: Only the sensor files that scenes of this filter see: of the current frame and the three
            before it. None looks at those of all frames.
    """

    maps_root: Path
    sensor_root: Path | None = None
    decode: bool = False
    needed_by: SceneFilter | None = None


@dataclass(frozen=True)
class LogHealth:
    """What was found in a log.

    Attributes:
        tokens: Of its frames.
        findings: What is wrong.
        num_blobs: Sensor files that were looked at.
        scenes: Tokens of the scenes of :attr:`HealthSettings.needed_by`.
    """

    tokens: tuple[str, ...]
    findings: tuple[Finding, ...]
    num_blobs: int = 0
    scenes: tuple[str, ...] = ()


def examine_log(path: Path, settings: HealthSettings) -> LogHealth:
    """Look at one log; whatever is wrong becomes a finding."""
    book = FindingBook(path.stem)
    try:
        frames = read_log(path)
    except LogError as error:
        kind, key = ("token-twice", "token") if DOUBLED_TOKEN in str(error) else ("log", "log")
        book.add(kind, key, str(error).removeprefix(f"{path}: ").rpartition(";")[0] or str(error))
        return LogHealth((), tuple(book.findings()))
    if len(frames) < HISTORY + FUTURE:
        book.add("short-log", "log", f"has {len(frames)} frames, a scene {HISTORY + FUTURE}")
    for index, frame in enumerate(frames):
        _examine_frame(book, index, frame)
        if frame["log_name"] != path.stem:
            book.add(
                "log-name", "log_name", f"is {frame['log_name']}, the file {path.name}", index, frame["token"]
            )
    _examine_times(book, frames)
    _examine_tracks(book, frames)
    _examine_places(book, frames, settings.maps_root)
    num_blobs = _examine_blobs(book, frames, settings) if settings.sensor_root is not None else 0
    starts = scene_starts(frames, settings.needed_by, path.stem) if settings.needed_by else []
    return LogHealth(
        tuple(frame["token"] for frame in frames),
        tuple(book.findings()),
        num_blobs,
        tuple(frames[start + HISTORY - 1]["token"] for start in starts),
    )


# ------------------------------------------------------------------ numbers
def _is_finite(value: Any) -> bool:
    return bool(np.isfinite(np.asarray(value, np.float64)).all())


def _examine_frame(book: FindingBook, index: int, frame: Frame) -> None:
    token = frame["token"]
    for key in ("ego2global_translation", "ego2global_rotation"):
        if not _is_finite(frame[key]):
            book.add("pose", key, "is not finite", index, token)
    if not np.any(np.asarray(frame["ego2global_rotation"])):
        book.add("pose", "ego2global_rotation", "is zero", index, token)
    if not _is_finite(frame["ego_dynamic_state"]):
        book.add("ego-state", "ego_dynamic_state", "is not finite", index, token)
    for name, camera in frame["cams"].items():
        for key in _CALIBRATION:
            if not _is_finite(camera[key]):
                book.add("camera", f"cams.{name}.{key}", "is not finite", index, token)
    annotations = frame.get("anns")
    if annotations is None:
        return
    tracks = [str(track) for track in annotations["track_tokens"]]
    for key in ("gt_boxes", "gt_velocity_3d"):
        rows = np.asarray(annotations[key], np.float64)
        for row in np.flatnonzero(~np.isfinite(rows).all(axis=1)):
            book.add("objects", f"anns.{key}", f"of track {tracks[row]} is not finite", index, token)
    sizes = np.asarray(annotations["gt_boxes"], np.float64)[:, 3:5]
    for row in np.flatnonzero((sizes < 0).any(axis=1)):
        book.add("objects", "anns.gt_boxes", f"of track {tracks[row]} has a negative size", index, token)
    for name in sorted(set(map(str, annotations["gt_names"])).difference(OBJECT_TYPES)):
        book.add("objects", "anns.gt_names", f"{name!r} is no class of NAVSIM", index, token)
    for track, count in Counter(tracks).items():
        if count > 1:
            book.add("objects", "anns.track_tokens", f"track {track} is there {count} times", index, token)
        if "red_light" in track:
            book.add("objects", "anns.track_tokens", f"{track}: 'red_light' is reserved", index, token)


def _examine_times(book: FindingBook, frames: Sequence[Frame]) -> None:
    stamps = np.array([int(frame["timestamp"]) for frame in frames], np.int64)
    for index in (np.flatnonzero(np.abs(np.diff(stamps) - INTERVAL_US) > TOLERANCE_US) + 1).tolist():
        step = (stamps[index] - stamps[index - 1]) * 1e-6
        book.add(
            "time-gap",
            "timestamp",
            f"{step:.2f} s after the frame before",
            index,
            frames[index]["token"],
        )


def _examine_tracks(book: FindingBook, frames: Sequence[Frame]) -> None:
    """Objects that are seen in one frame and never again, although the log goes on."""
    seen: dict[str, list[int]] = {}
    for index, frame in enumerate(frames):
        for track in (frame.get("anns") or {}).get("track_tokens", ()):
            seen.setdefault(str(track), []).append(index)
    single = [(track, at[0]) for track, at in seen.items() if len(at) == 1 and at[0] + 1 < len(frames)]
    for index in sorted({at for _, at in single}):
        names = [track for track, at in single if at == index]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        message = f"{', '.join(names[:_SHOWN])}{more}: in this frame only"
        book.add("no-future", "anns.track_tokens", message, index, frames[index]["token"])


# ------------------------------------------------------------------ places
def _examine_places(book: FindingBook, frames: Sequence[Frame], maps_root: Path) -> None:
    maps: dict[str, NuPlanMap | None] = {}
    for index, frame in enumerate(frames):
        location = frame["map_location"]
        if location not in maps:
            maps[location] = None
            try:
                nuplan_map = open_map(maps_root, location)
                for layer in (*_ROADS, "lane_group_connectors"):
                    nuplan_map.layer(layer)
                maps[location] = nuplan_map
            except MapError as error:
                book.add(
                    "map", "map_location", str(error).rpartition(";")[0] or str(error), index, frame["token"]
                )
        if (known := maps[location]) is not None:
            _examine_place(book, index, frame, known)


def _examine_place(book: FindingBook, index: int, frame: Frame, nuplan_map: NuPlanMap) -> None:
    blocks = [nuplan_map.layer(name) for name in ("lane_groups_polygons", "lane_group_connectors")]
    ids = [str(block) for block in frame["roadblock_ids"]]
    off = [
        id for id in dict.fromkeys(ids) if not (id.isdigit() and any(int(id) in layer for layer in blocks))
    ]
    if off:
        more = f" and {len(off) - _SHOWN} more" if len(off) > _SHOWN else ""
        message = f"{', '.join(off[:_SHOWN])}{more} not in {nuplan_map.path}"
        book.add("route-off-map", "roadblock_ids", message, index, frame["token"])
    position = np.asarray(frame["ego2global_translation"], np.float64)[:2]
    if not np.isfinite(position).all():
        return
    point = shapely.Point(position)
    layers = [nuplan_map.layer(name) for name in _ROADS]
    if not any(len(layer.tree.query(point, "dwithin", ROAD_DISTANCE)) for layer in layers if len(layer)):
        message = f"no road of {nuplan_map.path} within {ROAD_DISTANCE:g} m"
        book.add("ego-off-map", "ego2global_translation", message, index, frame["token"])


# ------------------------------------------------------------------ sensor files
def scene_starts(frames: Sequence[Frame], scene_filter: SceneFilter, log: str) -> list[int]:
    """First frames of the windows that are scenes of a filter.

    Args:
        frames: Of one log.
        scene_filter: Which windows are scenes.
        log: Name of the log's file without its ending, by which filters know it.
    """
    tokens = None if scene_filter.tokens is None else frozenset(scene_filter.tokens)
    if scene_filter.log_names is not None and log not in scene_filter.log_names:
        return []
    starts = scene_filter.window_starts(len(frames))
    return [start for start in starts if scene_filter.keeps(frames[start + HISTORY - 1], tokens)]


def needed_frames(frames: Sequence[Frame], scene_filter: SceneFilter | None, log: str) -> list[int]:
    """Frames whose sensor files scenes see: the current one and those before it; all without a filter.

    The arguments are those of :func:`scene_starts`.
    """
    if scene_filter is None:
        return list(range(len(frames)))
    starts = scene_starts(frames, scene_filter, log)
    return sorted({start + step for start in starts for step in range(HISTORY)})


def _examine_blobs(book: FindingBook, frames: Sequence[Frame], settings: HealthSettings) -> int:
    root = settings.sensor_root
    assert root is not None
    count = 0
    for index in needed_frames(frames, settings.needed_by, book.log):
        frame = frames[index]
        for name in frame["cams"]:
            key = f"cams.{name}.data_path"
            try:
                problem = image_problem(camera_of(frame, name, root).path, settings.decode)
            except SensorError as error:
                problem = str(error).rpartition(": ")[2]
            count += 1
            if problem:
                book.add("image", key, problem, index, frame["token"])
        if frame.get("lidar_path"):
            try:
                problem = sweep_problem(lidar_path_of(frame, root), settings.decode)
            except SensorError as error:
                problem = str(error).rpartition(": ")[2]
            count += 1
            if problem:
                book.add("sweep", "lidar_path", problem, index, frame["token"])
    return count
