"""Our scores of recorded runs, and our episodes, beside HUGSIM's official ones (sections 5 and 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import Replay
from beyonddrive.evaluation.closed_loop.hugsim.episode import TRUNCATED, Episode
from beyonddrive.evaluation.closed_loop.hugsim.golden_controller import (
    COMMAND_FLOAT32,
    FLOAT32_NOTE,
    has_headings_in_float32,
)
from beyonddrive.evaluation.closed_loop.hugsim.hd_score import score_run
from beyonddrive.evaluation.closed_loop.hugsim.points import (
    PointGrid,
    background,
    ground_and_scene,
    to_record_frame,
)
from beyonddrive.evaluation.closed_loop.hugsim.record import read_frames
from beyonddrive.evaluation.closed_loop.hugsim.route import Route
from beyonddrive.evaluation.closed_loop.hugsim.scenario import read_scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS, HugsimError, HugsimSettings
from beyonddrive.evaluation.closed_loop.hugsim.tracker import Floats
from beyonddrive.evaluation.closed_loop.hugsim.traffic import Traffic
from beyonddrive.evaluation.golden import Arrays, FileComparison, read_arrays

EXACT, SINGLE = 1e-12, 1e-5
"""Tolerances of what is computed in float64, and of what goes through float32."""
KEPT_AT_LIMIT = {"extreme-mixed": [(0, 0)], "extreme-two": [(0, 2)]}
"""Episodes in which the official float32 kept the manoeuvre at the limit of acceleration (section 5.5)."""
_VARIANTS: dict[str, dict[str, Any]] = {
    "lon_489": {"comfort_lon_max": 4.89},
    "box_down": {"scorer_box": "down"},
    "anchor_pre": {"plan_anchor": "pre_step"},
}


def compare_records(directory: Path, found: FileComparison) -> None:
    """Compare ``records.json``: figures of every record and frame, and of the variants of the scorer."""
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


def compare_episode(path: Path, found: FileComparison) -> None:
    """Compare one of ``episodes/*.npz``: what the planner saw, the record, the ends and the figures."""
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
    last = len(episode.frames) - 1
    for i, frame in enumerate(episode.frames):
        # (the file does not hold the last command, so ours leads to the last frame)
        tolerance = SINGLE if i == last and isinstance(episode, _CommandedEpisode) else EXACT
        found.add("frame box", frame.ego_box, z["frame_ego_box"][i], tolerance)
        found.add("frame agents", frame.obj_boxes, z["frame_obj_boxes"][i], SINGLE)
        found.add("frame plan", frame.traj, z["frame_traj"][i], tolerance)
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


@dataclass
class _CommandedEpisode(Episode):
    """Driven by the commands that the official code gave; ours are compared with them, step by step.

    Tiny differences of float32 between processors would grow from step to step otherwise.

    Attributes:
        golden: (T - 1, 2) official commands; the last step takes ours.
        found: Where to compare.
    """

    golden: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    found: FileComparison | None = None

    def command(self, points: NDArray[np.floating]) -> Floats:
        ours, step = super().command(points), len(self.frames)
        if step >= len(self.golden):
            return ours
        if self.found is not None:
            self.found.note(FLOAT32_NOTE)
            self.found.add("command", ours, self.golden[step], COMMAND_FLOAT32)
        return self.golden[step]


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
    if has_headings_in_float32(settings.controller, str(z["plan_dtype"])):
        commands = np.stack([z["seen_accelerate"], z["seen_steer_rate"]], axis=1)[1:]
        episode = _CommandedEpisode(scenario, route, traffic, solid, settings, golden=commands, found=found)
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
