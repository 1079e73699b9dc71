"""A NAVSIM split as mmdet3d reads it: info files of its version 2, points, and a database of agents to paste.

Boxes and names follow mmdet3d's nuScenes files: centres of gravity, the velocity apart, in the LiDAR frame,
which is NAVSIM's ego frame (:mod:`beyonddrive.structures.agent_boxes`). Nothing here needs mmdet3d.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.log_jobs import CacheReport, LogJob, log_jobs, missing_tokens
from beyonddrive.datasets.navsim.root import NavsimRoot, NavsimRootError, SceneRef, doubled_scene
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.sensors import LIDAR_ROWS, SensorError, camera_of, lidar_path_of, read_pcd
from beyonddrive.datasets.stores.fingerprints import fingerprint
from beyonddrive.datasets.transforms.agent_boxes import agent_boxes, inside_boxes
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.agent_boxes import AGENT_CLASSES
from beyonddrive.version import __version__

INFO_VERSION = "1.1"
"""Of the layout, as mmdet3d 1.x counts it."""
PREFIX = "navsim"
PARTS = ".parts"
POINTS = "points"
DATABASE = "gt_database"
_ROWS = [LIDAR_ROWS.index(name) for name in ("x", "y", "z", "intensity")]


class InfoJob(NamedTuple):
    """Where the files of a split go and what they are made of; the same for all logs."""

    root: NavsimRoot
    split: str
    scene_filter: SceneFilter
    out: Path


def write_info_files(
    root: NavsimRoot, split: str, out: Path, executor: Executor, scene_filter: SceneFilter | None = None
) -> CacheReport:
    """Write the files of one split; a killed run goes on where it was, and logs that have changed are redone.

    In ``out``: ``navsim_infos_<split>.pkl``, ``navsim_dbinfos_<split>.pkl`` with the points of each agent in
    ``gt_database/<split>``, and sweeps as float32 (N, 4) x, y, z [m], intensity / 255 in ``points/<split>``.

    Raises:
        NavsimRootError: If there is no such split, or a scene is in two of its logs.
        OSError: If something cannot be written.
    """
    scene_filter = scene_filter or SceneFilter()
    root.forget_problems()
    task = InfoJob(root, split, scene_filter, Path(out))
    jobs = log_jobs(root, split, scene_filter)
    report = CacheReport(problems=list(root.problems))
    infos: list[dict[str, Any]] = []
    database: dict[str, list[dict[str, Any]]] = {name: [] for name in AGENT_CLASSES}
    results = executor.map(_log_part, jobs, f"infos of {split}", initializer=_start, initargs=(task,))
    log_of: dict[str, Path] = {}
    for job, part in zip(jobs, results, strict=True):
        report.num_new_logs += part["new"]
        report.failures |= part["failures"]
        report.problems += part["problems"]
        for info in part["infos"]:
            if (other := log_of.setdefault(info["token"], job.path)) != job.path:
                raise NavsimRootError(doubled_scene(info["token"], other, job.path))
            _add(info, infos, database, split)
    report.problems += missing_tokens(scene_filter, {*(info["token"] for info in infos), *report.failures})
    report.num_scenes = len(infos)
    meta = {
        "categories": {name: label for label, name in enumerate(AGENT_CLASSES)},
        "dataset": PREFIX,
        "version": split,
        "info_version": INFO_VERSION,
    }
    content = {"metainfo": meta, "data_list": infos}
    write_atomically(task.out / f"{PREFIX}_infos_{split}.pkl", pickle.dumps(content))
    write_atomically(task.out / f"{PREFIX}_dbinfos_{split}.pkl", pickle.dumps(database))
    return report


def _add(info: dict[str, Any], infos: list[dict[str, Any]], database: Mapping[str, Any], split: str) -> None:
    """Number a scene, and enter its agents with points into the database."""
    info = {"sample_idx": len(infos), **info}
    infos.append(info)
    for row, agent in enumerate(info["instances"]):
        if not agent["num_lidar_pts"]:
            continue
        name = AGENT_CLASSES[agent["bbox_label_3d"]]
        box = np.array([*agent["bbox_3d"], *agent["velocity"]], np.float32)
        box[2] -= box[5] / 2  # mmdet3d's own boxes stand on the middle of their bottom
        database[name].append(
            {
                "name": name,
                "path": f"{DATABASE}/{split}/{info['token']}_{row}.bin",
                "image_idx": info["sample_idx"],
                "gt_idx": row,
                "box3d_lidar": box,
                "num_points_in_gt": agent["num_lidar_pts"],
                "difficulty": 0,
                "group_id": sum(len(entries) for entries in database.values()),
            }
        )


# ------------------------------------------------------------------ in a worker
_task: InfoJob | None = None


def _start(task: InfoJob) -> None:
    global _task
    _task = task


def _log_part(job: LogJob) -> dict[str, Any]:
    """Files of one log: what is known of its scenes, from an earlier run if nothing has changed since."""
    assert _task is not None, "the executor did not run the initializer"
    name = job.path.stem
    path = _task.out / PARTS / _task.split / f"{name}.json"
    try:
        log = fingerprint(job.path)
    except OSError as error:
        return _part(problems=[f"{job.path}: cannot be read ({error})"])
    # With max_scenes it depends on the logs before which scenes of this one are wanted.
    wanted = None if job.refs is None else [ref.token for ref in job.refs]
    release = [__version__, INFO_VERSION]
    made_of = _plain([log, _task.scene_filter.describe(), str(_task.root.root), wanted, release])
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text())
        if known["made_of"] == made_of and all(_has_size(*file) for file in _files_of(known, _task)):
            return {**known, "new": False}
    _task.root.forget_problems()
    refs = job.refs or tuple(_task.root.log_refs(job.path, _task.scene_filter))
    part = _part(problems=list(_task.root.problems))
    for ref in refs:
        try:
            info, part["sweeps"][ref.token] = _scene_info(_task, ref)
            part["infos"].append(info)
        except ValueError as error:
            part["failures"][ref.token] = str(error)
    if not part["failures"] and not part["problems"]:  # others are tried again in the next run
        write_atomically(path, json.dumps({**part, "made_of": made_of}).encode())
    whole: dict[str, Any] = _plain(part)  # so that the files are the same, to the byte, after a resumed run
    return whole


def _files_of(part: Mapping[str, Any], task: InfoJob) -> Iterator[tuple[Path, int | None]]:
    """Files of points that a part names, and how many points are in each; None if it does not say."""
    for info in part["infos"]:
        sweep = task.out / POINTS / task.split / info["lidar_points"]["lidar_path"]
        yield sweep, part.get("sweeps", {}).get(info["token"])
        for row, agent in enumerate(info["instances"]):
            if agent["num_lidar_pts"]:
                yield task.out / DATABASE / task.split / f"{info['token']}_{row}.bin", agent["num_lidar_pts"]


def _has_size(path: Path, points: int | None) -> bool:
    """Whether a file of points is whole: one that was written when the machine died may have lost its end."""
    size = np.dtype(np.float32).itemsize * len(_ROWS)
    return path.is_file() and points is not None and path.stat().st_size == points * size


def _part(**given: Any) -> dict[str, Any]:
    return {"new": True, "infos": [], "sweeps": {}, "failures": {}, "problems": [], **given}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _scene_info(task: InfoJob, ref: SceneRef) -> tuple[dict[str, Any], int]:
    """Write the points of a scene and of its agents; return what is known of it, and how many points."""
    scene = task.root.load(ref, task.split)
    sensors = task.root.sensor_root(task.split)
    source = lidar_path_of(scene.now, sensors)
    points = np.ascontiguousarray(read_pcd(source)[_ROWS].T, np.float32)
    points = points[np.isfinite(points[:, :3]).all(axis=1)]
    if not np.isfinite(points).all():
        raise SensorError(f"{source}: an intensity is NaN or infinite; restore the file from the data set")
    points[:, 3] /= 255.0
    sweep = Path(POINTS, task.split, f"{scene.token}.bin")
    write_atomically(task.out / sweep, points.tobytes(), sync=False)
    boxes, labels = agent_boxes(scene.objects(HISTORY - 1))
    agents = []
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        inside = points[inside_boxes(points, box)]
        if len(inside):
            bottom = np.array([*box[:2], box[2] - box[5] / 2, 0.0], np.float32)
            target = task.out / DATABASE / task.split / f"{scene.token}_{row}.bin"
            write_atomically(target, (inside - bottom).tobytes(), sync=False)
        agents.append(
            {
                "bbox_3d": box[:7].tolist(),
                "bbox_label_3d": int(label),
                "bbox_label": int(label),
                "velocity": box[7:].tolist(),
                "num_lidar_pts": len(inside),
                "num_radar_pts": 0,
                "bbox_3d_isvalid": len(inside) > 0,
            }
        )
    info = {
        "token": scene.token,
        "log_name": scene.log_name,
        "timestamp": scene.timestamp_us / 1e6,
        "ego2global": _pose(scene),
        "lidar_points": {
            "lidar_path": str(sweep.relative_to(Path(POINTS, task.split))),
            "num_pts_feats": points.shape[1],
            "lidar2ego": np.eye(4).tolist(),
        },
        "images": _images(scene, sensors),
        "instances": agents,
    }
    return info, len(points)


def _images(scene: Scene, sensors: Path) -> dict[str, Any]:
    """Cameras of a scene: path below the folder of the split's sensors, and both matrices of mmdet3d."""
    images = {}
    for name in sorted(scene.now["cams"]):
        camera = camera_of(scene.now, name, sensors)
        camera.check_calibration()
        to_lidar = np.eye(4)
        to_lidar[:3, :3], to_lidar[:3, 3] = camera.rotation, camera.translation
        images[name] = {
            "img_path": str(camera.path.relative_to(sensors)),
            "cam2img": camera.intrinsic.tolist(),
            "lidar2cam": np.linalg.inv(to_lidar).tolist(),
            "cam2ego": to_lidar.tolist(),
        }
    return images


def _pose(scene: Scene) -> Sequence[Sequence[float]]:
    """(4, 4) ego frame now -> global frame.

    Raises:
        SceneError: If the pose is not finite, or its rotation is zero.
    """
    position, rotation = (
        np.asarray(scene.now[key], np.float64) for key in ("ego2global_translation", "ego2global_rotation")
    )
    if not (np.isfinite(position).all() and np.isfinite(rotation).all() and rotation.any()):
        raise SceneError(
            f"scene {scene.token} of log {scene.log_name}: ego2global_translation or ego2global_rotation is "
            f"not finite, or the rotation is zero"
        )
    w, x, y, z = rotation
    pose: NDArray[np.float64] = np.eye(4)
    scale = 2.0 / (w * w + x * x + y * y + z * z)
    pose[:3, :3] -= scale * np.array(
        [
            [y * y + z * z, w * z - x * y, -w * y - x * z],
            [-w * z - x * y, x * x + z * z, w * x - y * z],
            [w * y - x * z, -w * x - y * z, x * x + y * y],
        ]
    )
    pose[:3, 3] = position
    matrix: Sequence[Sequence[float]] = pose.tolist()
    return matrix
