"""Comparison with arrays that HUGSIM's official code gave: one function per file of a golden directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim import attack
from beyonddrive.evaluation.closed_loop.hugsim.agents import (
    IntelligentDriver,
    Replay,
    forecasts,
    moved_straight,
)
from beyonddrive.evaluation.closed_loop.hugsim.episode import TRUNCATED, Episode
from beyonddrive.evaluation.closed_loop.hugsim.footprints import corners, touch
from beyonddrive.evaluation.closed_loop.hugsim.hd_score import MIN_CELLS, discomfort, score_run
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import command_of, plan_reference
from beyonddrive.evaluation.closed_loop.hugsim.points import (
    PointGrid,
    background,
    ground_and_scene,
    to_record_frame,
)
from beyonddrive.evaluation.closed_loop.hugsim.record import read_frames
from beyonddrive.evaluation.closed_loop.hugsim.route import Route, euler_of, plan_in_record, pose_matrix
from beyonddrive.evaluation.closed_loop.hugsim.scenario import read_scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import (
    PRESETS,
    Controller,
    HugsimError,
    HugsimSettings,
)
from beyonddrive.evaluation.closed_loop.hugsim.traffic import Traffic
from beyonddrive.evaluation.golden import Arrays, FileComparison, compared, read_arrays

FILES = (
    "overlap.npz",
    "footprint.npz",
    "comfort.npz",
    "frames.npz",
    "agents.npz",
    "controller.npz",
    "controller_resampled.npz",
    "records.json",
)
"""Files that are compared, beside ``episodes/*.npz``; ``points.npz``, ``variants.json`` belong to records."""
STABLE = 1e-6
"""Answers of the tracker that move more than this when its input moves by 1e-12 are not judged."""
CHAOTIC_INSIDE = "teleport"
"""Kind of calls whose answer is stable, but not the inputs after it."""
SUMMED, SINGLE = 1e-9, 1e-5
"""Tolerances of what is iterated, and of what goes through float32; the rest has to be equal to 1e-12."""
KEPT_AT_LIMIT = {"extreme-mixed": [(0, 0)], "extreme-two": [(0, 2)]}
"""Episodes in which the official float32 kept the manoeuvre at the limit of acceleration (section 5.5)."""
_VARIANTS: dict[str, dict[str, Any]] = {
    "lon_489": {"comfort_lon_max": 4.89},
    "box_down": {"scorer_box": "down"},
    "anchor_pre": {"plan_anchor": "pre_step"},
}


def is_golden(directory: Path) -> bool:
    """Whether a directory is laid out like HUGSIM's golden data."""
    return any((directory / name).is_file() for name in FILES) and not (directory / "recipe.py").exists()


def compare_directory(directory: Path) -> Iterator[FileComparison]:
    """Compare every file of a golden directory that is there."""
    for name in FILES:
        if (directory / name).is_file():
            yield compared(name, partial(_COMPARE[name], directory))
    for path in sorted((directory / "episodes").glob("*.npz")):
        yield compared(f"episodes/{path.name}", partial(_episode, path))


def _overlap(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "overlap.npz")
    a, b = z["a"], z["b"]
    found.add("corners", corners(a[:, [0, 1, 4]], a[:, 2:4]), z["corners"])
    found.add("intersects", touch(a[:, [0, 1, 4]], a[:, 2:4], b[:, [0, 1, 4]], b[:, 2:4]), z["intersects"])
    ends = np.cumsum(z["box_count"])
    counts = [
        PointGrid(points).count_in_boxes(box[None])[0]
        for points, box in zip(np.split(z["box_points"], ends[:-1]), z["box_ego"], strict=True)
    ]
    found.add("points in boxes", np.array(counts) <= 100, z["box_no_collision"])


def _footprint(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "footprint.npz")
    rows = np.split(z["traj"], np.cumsum(z["traj_count"])[:-1])
    grounds = np.split(z["ground"], np.cumsum(z["ground_count"])[:-1])
    ours = [
        (PointGrid(np.column_stack([g, np.zeros(len(g))])).filled_cells(r, 1.6, 3.0) >= MIN_CELLS).all()
        for r, g in zip(rows, grounds, strict=True)
    ]
    found.add("dac", ours, z["dac"])


def _comfort(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "comfort.npz")
    rows = np.split(z["traj"], np.cumsum(z["count"])[:-1])
    limit = PRESETS["main"].comfort_lon_max
    ours = [not discomfort(r, float(step), limit) for r, step in zip(rows, z["timestep"], strict=True)]
    found.add("comfortable", ours, z["comfortable"])


def _frames(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "frames.npz")
    poses = np.array([pose_matrix(e, t) for e, t in zip(z["euler"], z["translation"], strict=True)])
    found.add("pose", poses, z["pose"])
    found.add("euler", np.column_stack([euler_of(poses), poses[:, :3, 3]]), z["euler_translation_back"])
    placed = [plan_in_record(plan, box) for plan, box in zip(z["plan"], z["ego_box"], strict=True)]
    found.add("plan", placed, z["traj_global"])
    for key in sorted(key.removesuffix("_poses") for key in z if key.endswith("_poses")):
        route = Route(z[f"{key}_poses"], z[f"{key}_commands"], 0.0)
        found.add(f"{key} dense", route.poses, z[f"{key}_dense"])
        found.add(f"{key} commands", route.commands, z[f"{key}_dense_commands"])
        query = z[f"{key}_query"]
        found.add(f"{key} ego height", [route.ego_height(q) for q in query], z[f"{key}_ego_height"])
        heights = np.array([route.road_height(q) for q in query])
        # (the camera height of these is a constant that the file does not name)
        above = z[f"{key}_agent_height"] - heights
        found.add(f"{key} agent height", above, np.full_like(above, above[0]))
        found.add(f"{key} completion", [route.completion(q) for q in query], z[f"{key}_route_completion"])


def _agents(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "agents.npz")
    found.add("constant", [moved_straight(s.astype(float)) for s in z["state"]], z["constant"], SINGLE)
    found.add("forecast", forecasts(z["headaway"][:, 0].astype(float)), z["headaway"], SINGLE)
    found.add("idm", [_idm(z, i) for i in range(len(z["idm_state"]))], z["idm_out"], SINGLE)
    draws = attack.DrawNumbers()
    for limit in (2, 3, 5, 10):
        ours = [draws.below(limit) for _ in z[f"randint_{limit}"]]
        found.add(f"randint {limit}", ours, z[f"randint_{limit}"])
    for car, expected in zip(z["unicycle"], z["unicycle_out"], strict=True):
        replay = Replay(car[:, 0], car[:, [1, 2, 4, 3]])
        found.add("unicycle", [replay.at(time) for time in z["unicycle_query"]], expected, SINGLE)
    for i in np.flatnonzero(z["attack_unique"]):
        state, victim, others = (z[f"attack_{k}"][i].astype(float) for k in ("state", "victim", "neighbors"))
        rows = attack.choose(state, victim, others, 1, attack.DrawNumbers())
        assert rows is not None
        found.add("attack", rows[1 : 1 + len(z["attack_rows"][i])], z["attack_rows"][i], SINGLE)


def _idm(z: Arrays, i: int) -> NDArray[np.float64]:
    path = z["idm_path"][i]
    path = path[np.isfinite(path[:, 0])]
    try:
        return IntelligentDriver().step(
            z["idm_state"][i].astype(float), path, z["idm_neighbors"][i].astype(float)
        )
    except HugsimError:
        return np.full(4, np.nan)


def _controller(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "controller.npz")
    for version in get_args(Controller):
        if f"{version}_control" in z:
            for i in range(len(z["n"])):
                _call(z, i, version, found)


def _call(z: Arrays, i: int, version: Controller, found: FileComparison) -> None:
    n, what = int(z["n"][i]), f"{version} call {i}"
    plan = z["plan"][i, :n].astype(str(z["dtype"][i]))
    if z[f"{version}_error"][i]:
        return  # what official code cannot do, ours refuses or does: no number to compare
    if not z[f"{version}_sensitivity"][i] < STABLE:
        return
    answer = command_of(plan, z["state"][i, 0], z["state"][i, 1], version)
    found.add(f"{what} reference", plan_reference(plan, version), z[f"{version}_ref"][i, : n + 1])
    found.add(f"{what} command", answer.inputs[0], z[f"{version}_control"][i], SUMMED)
    if z["kind"][i] != CHAOTIC_INSIDE and f"{version}_inputs" in z:
        for name, ours in (("warm", answer.warm), ("first", answer.first), ("inputs", answer.inputs)):
            found.add(f"{what} {name}", ours, z[f"{version}_{name}"][i, :n], SUMMED)
        found.add(f"{what} states", answer.states, z[f"{version}_states"][i, : n + 1], SUMMED)


def _resampled(directory: Path, found: FileComparison) -> None:
    z, calls = read_arrays(directory / "controller_resampled.npz"), read_arrays(directory / "controller.npz")
    for i in np.flatnonzero(z["sensitivity"] < STABLE):
        n = int(calls["n"][i])
        plan = calls["plan"][i, :n].astype(str(calls["dtype"][i]))
        answer = command_of(plan, calls["state"][i, 0], calls["state"][i, 1], "resampled")
        found.add(f"call {i} reference", plan_reference(plan, "resampled"), z["ref"][i, : 2 * n + 1])
        found.add(f"call {i} command", answer.inputs[0], z["control"][i], SUMMED)


def _records(directory: Path, found: FileComparison) -> None:
    clouds = read_arrays(directory / "points.npz")
    records = json.loads((directory / "records.json").read_text())
    variants = _variants(directory)
    seen: dict[str, int] = {}
    for item in records:
        name, world = item["name"], item["world"]
        number = seen[name] = seen.get(name, -1) + 1
        ground, scene = (
            PointGrid(to_record_frame(clouds[f"{kind}_{world}"])) for kind in ("ground", "scene")
        )
        frames = read_frames(item["record"], name)
        stable = set(item["stable"])
        _scored(
            found, name, item["eval"], stable, score_run(frames, ground, scene, PRESETS["main"]).to_dict()
        )
        for variant, by_name in variants.items():
            if name in by_name.get("records", {}):
                score = score_run(frames, ground, scene, _changed(variant)).to_dict()
                _scored(found, f"{name} {variant}", by_name["records"][name][number], stable, score)


def _scored(
    found: FileComparison,
    what: str,
    golden: Mapping[str, Any],
    stable: set[str] | None,
    ours: Mapping[str, Any],
) -> None:
    """Compare an ``eval.json``; single frames that hang on the last bit of float32 are not judged."""
    if "error" in golden:
        found.add(f"{what}: unscored", float("unscored" in ours), 1.0)
        return
    details = golden.get("details", {})
    found.add(f"{what}: stamps", float(set(details) == set(ours["details"])) if details else 1.0, 1.0)
    for stamp, values in details.items():
        if stable is None or stamp in stable:
            pairs = [(ours["details"].get(stamp, {}).get(k, np.nan), v) for k, v in values.items()]
            found.add(f"{what} at {stamp}", *np.transpose(pairs))
    if stable is None or set(details) <= stable:
        names = [key for key in golden if key != "details"]
        found.add(what, [ours[name] for name in names], [golden[name] for name in names])


def _changed(variant: str) -> HugsimSettings:
    return PRESETS["main"].changed(**_VARIANTS[variant])


def _variants(directory: Path) -> dict[str, Any]:
    path = directory / "variants.json"
    variants: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return {name: value for name, value in variants.items() if name in _VARIANTS}


def _episode(path: Path, found: FileComparison) -> None:
    z = read_arrays(path)
    meta = json.loads(str(z["meta"]))
    ground, scene = (
        PointGrid(to_record_frame(points))
        for points in ground_and_scene(
            np.concatenate([z["points_xyz"], z["points_ground_xyz"]]),
            np.concatenate([z["points_label"], z["points_ground_label"]]),
        )
    )
    episode = _replayed(z, meta, PRESETS["main"], found)
    found.add("ends", float(set(episode.ends) - {TRUNCATED} == set(meta["ends"])), 1.0)
    for i, frame in enumerate(episode.frames):
        found.add("frame box", frame.ego_box, z["frame_ego_box"][i])
        found.add("frame agents", frame.obj_boxes, z["frame_obj_boxes"][i], SINGLE)
        found.add("frame plan", frame.traj, z["frame_traj"][i])
        rest = ("time_stamp", "timestep", "collision", "rc")
        ours = (frame.time, frame.timestep, frame.collision, frame.rc)
        found.add("frame", ours, [z[f"frame_{name}"][i] for name in rest])
    score = score_run(episode.frames, ground, scene, PRESETS["main"])
    found.add(
        "details",
        [[f.time, *f.values] for f in score.frames],
        np.column_stack([z["detail_time"], z["detail"]]),
    )
    _scored(found, "eval", meta["eval"], None, score.to_dict())
    for variant, by_name in _variants(path.parents[1]).items():
        golden = by_name["episodes"].get(meta["name"])
        if golden is not None:
            settings = _changed(variant)
            frames = _replayed(z, meta, settings).frames
            _scored(found, variant, golden, None, score_run(frames, ground, scene, settings).to_dict())


def _replayed(
    z: Arrays, meta: Mapping[str, Any], settings: HugsimSettings, found: FileComparison | None = None
) -> Episode:
    """Drive the stored plans; compare what the planner saw, if asked for."""
    scenario = read_scenario(meta["scenario"])
    route = Route(z["cam_poses"], z["commands"], float(z["cam_height"]))
    names = {key.split("_")[1] for key in z if key.startswith("unicycle_")}
    replays = {
        name: Replay(
            z[f"unicycle_{name}_t"], np.stack([z[f"unicycle_{name}_{k}"] for k in ("a", "b", "yaw", "v")], 1)
        )
        for name in names
    }
    traffic = Traffic(
        scenario, route, meta["cars"], replays, kept_at_limit=KEPT_AT_LIMIT.get(meta["name"], ())
    )
    solid = background(z["points_xyz"], z["points_label"], z["points_opacity"])
    episode = Episode(scenario, route, traffic, solid, settings)
    for i in range(meta["steps"]):
        seen = episode.observe()
        if found is not None:
            motion = (
                seen.speed,
                seen.steering,
                seen.acceleration,
                seen.steering_rate,
                seen.time,
                seen.command,
            )
            keys = ("ego_velo", "ego_steer", "accelerate", "steer_rate", "timestamp", "command")
            found.add(
                "seen pose", [*seen.position, *seen.euler], [*z["seen_ego_pos"][i], *z["seen_ego_rot"][i]]
            )
            found.add("seen motion", motion, [z[f"seen_{key}"][i] for key in keys])
            found.add("seen box", seen.ego_box, z["seen_ego_box"][i])
            found.add("seen agents", seen.obj_boxes, z["seen_obj_boxes"][i], SINGLE)
        if not episode.step(z["plan"][i].astype(str(z["plan_dtype"]))) and i + 1 < meta["steps"]:
            raise HugsimError(f"ended after {i + 1} of {meta['steps']} steps: {', '.join(episode.ends)}")
    return episode


_COMPARE: dict[str, Callable[[Path, FileComparison], None]] = {
    "overlap.npz": _overlap,
    "footprint.npz": _footprint,
    "comfort.npz": _comfort,
    "frames.npz": _frames,
    "agents.npz": _agents,
    "controller.npz": _controller,
    "controller_resampled.npz": _resampled,
    "records.json": _records,
}
