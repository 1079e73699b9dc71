"""How long the PDM score takes: CPU time per scene and per plan, by stage, on one thread, warm.

``python benchmarks/pdm_score.py`` measures the golden scenes of the tests, those with many objects filled up
to 120, ``--data-root R [--split S]`` every scene of a root in NAVSIM's layout. ``--json`` ends with one JSON
line of means over scenes. What a fresh process pays for importing and for loading compiled kernels, and what
compiling them takes once per installation, is measured apart, in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import MapError
from beyonddrive.datasets.navsim.root import NavsimRoot, NavsimRootError
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.metric_caches import KIND
from beyonddrive.evaluation.pdm import MetricCache, MetricCacheError, build_metric_cache, score
from beyonddrive.evaluation.pdm.cache.build import ego_state
from beyonddrive.evaluation.pdm.cache.prepare import scene_map
from beyonddrive.evaluation.pdm.inputs.centerline import route_centerline, starting_lane
from beyonddrive.evaluation.pdm.inputs.drivable_map import drivable_map
from beyonddrive.evaluation.pdm.inputs.map_index import map_index
from beyonddrive.evaluation.pdm.inputs.route import find_route, route_lanes
from beyonddrive.evaluation.pdm.inputs.tracks import tracks_of
from beyonddrive.evaluation.pdm.kernels.areas import POINTS, AreaMasks, ego_areas
from beyonddrive.evaluation.pdm.kernels.collision import (
    Traffic,
    nearby,
    no_at_fault_collision,
    time_to_collision,
)
from beyonddrive.evaluation.pdm.kernels.comfort import comfort
from beyonddrive.evaluation.pdm.kernels.grid import Grid
from beyonddrive.evaluation.pdm.kernels.plan_states import plan_knots, plan_references
from beyonddrive.evaluation.pdm.kernels.simulate import simulate
from beyonddrive.evaluation.pdm.reference.forecast import forecast
from beyonddrive.evaluation.pdm.reference.pdm_closed import reference_trajectories
from beyonddrive.structures.plan import POSE_INTERVAL, PlanError

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden" / "pdms" / "data"
DENSE_OBJECTS = 60
"""Scenes with so many objects or more are compared with the official figures for dense scenes."""
DENSE_NOW = 40
"""Golden scenes with so many objects in the current frame are filled up."""
CROWD = 120
"""Objects that those official figures were measured with."""
OFFICIAL = {
    "light": {
        "metric_cache_ms": 242.0,
        "single_plan_ms": 23.0,
        "batch64_ms_per_plan": 3.3,
        "batch256_ms_per_plan": 2.9,
    },
    "dense": {
        "metric_cache_ms": 454.0,
        "single_plan_ms": 21.0,
        "batch64_ms_per_plan": 3.4,
        "batch256_ms_per_plan": 3.15,
    },
}
"""NAVSIM devkit v1.1, CPU milliseconds on one thread of an AMD EPYC virtual machine, map warm: light scenes
of 20 objects and 26 map polygons, dense ones of 120 and 96. Measured for this project."""
GOALS = {
    kind: {
        "metric_cache_ms": cache,
        "load_cache_ms": 1.0,
        "single_plan_ms": 0.6,
        "batch64_ms_per_plan": batch,
    }
    for kind, cache, batch in (("light", 12.0, 0.10), ("dense", 25.0, 0.15))
}
FIGURES = (
    "metric_cache_ms",
    "load_cache_ms",
    "single_plan_ms",
    "batch64_ms_per_plan",
    "batch256_ms_per_plan",
    "load_cache_v2_ms",
    "single_plan_v2_ms",
    "batch64_v2_ms_per_plan",
)


def cpu_ms(function: Callable[[], Any], repeat: int) -> float:
    """Median CPU time of a call [ms], after one that is not counted."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def variations(expert: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Plans (count, 8, 3) around an expert plan (8, 3): slower and faster, drifting to either side."""
    rng = np.random.default_rng(0)
    share = np.arange(1, 9) / 8.0
    plans = np.repeat(expert[None], count, axis=0)
    plans[..., :2] *= rng.uniform(0.3, 1.4, (count, 1, 1))
    drift = rng.normal(0.0, 1.5, (count, 1)) * share**2
    normal = np.stack([-np.sin(plans[..., 2]), np.cos(plans[..., 2])], axis=-1)
    plans[..., :2] += drift[..., None] * normal
    steps = np.diff(plans[..., :2], axis=1, prepend=0.0)
    moving = np.hypot(steps[..., 0], steps[..., 1]) > 0.2 * POSE_INTERVAL
    plans[..., 2] = np.where(moving, np.arctan2(steps[..., 1], steps[..., 0]), plans[..., 2])
    plans[0] = expert
    return plans


# ------------------------------------------------------------------ stages of the score
@kernel
def _directions(states: NDArray[Any], motion: NDArray[Any]) -> None:
    for t in range(41):
        motion[t, 0], motion[t, 1] = math.cos(states[t, 2]), math.sin(states[t, 2])
        motion[t, 2] = math.hypot(states[t, 3], states[t, 4])


@kernel
def _all_areas(grid: Grid, masks: AreaMasks, states: NDArray[Any], flags: NDArray[Any]) -> None:
    points = np.empty((POINTS * 41, 2))
    found = np.empty((POINTS * 41, grid.inside.shape[1]), np.int64)
    motion = np.empty((41, 3))
    for n in range(len(states)):
        _directions(states[n], motion)
        ego_areas(grid, masks, states[n], motion, points, found, flags[n])


@kernel
def _all_collisions(traffic: Traffic, states: NDArray[Any], flags: NDArray[Any]) -> float:
    near = np.empty(len(traffic.bounds), np.int64)
    ignored = np.empty(len(traffic.bounds), np.bool_)
    motion = np.empty((41, 3))
    total = 0.0
    for n in range(len(states)):
        _directions(states[n], motion)
        close = near[: nearby(states[n], motion, traffic, near)]
        total += no_at_fault_collision(states[n], motion, flags[n], traffic, close, ignored)[0]
        total += time_to_collision(states[n], motion, flags[n], traffic, close, ignored, 41)[0]
    return total


@kernel
def _all_comfort(states: NDArray[Any]) -> float:
    signals = np.empty((8, 41))
    total = 0.0
    for n in range(len(states)):
        total += comfort(states[n], signals)
    return total


def score_stages(cache: MetricCache, plans: NDArray[np.float64], repeat: int) -> dict[str, float]:
    """Milliseconds per plan of each stage of a batch."""
    scene = cache.prepared
    result = score(cache, plans)

    def references() -> NDArray[np.float64]:
        return plan_references(plan_knots(plans, scene.ego), scene.interval, scene.time)

    flags, world = result.areas.copy(), scene.world
    stages: dict[str, Callable[[], Any]] = {
        "score: references": references,
        "score: simulation": lambda: simulate(references(), scene.ego),
        "score: areas": lambda: _all_areas(world.grid, world.masks, result.simulated, flags),
        "score: collisions, TTC": lambda: _all_collisions(world.traffic, result.simulated, flags),
        "score: comfort": lambda: _all_comfort(result.simulated),
    }
    times = {name: cpu_ms(call, repeat) / len(plans) for name, call in stages.items()}
    times["score: simulation"] -= times["score: references"]
    return times


# ------------------------------------------------------------------ stages of the metric cache
def cache_stages(scene: Scene, root: NavsimRoot, repeat: int) -> dict[str, float]:
    """Milliseconds of each stage of a metric cache."""
    index = map_index(root.map(scene.map_location))
    current = HISTORY - 1
    ego = ego_state(scene)
    pose = ego[:3]
    local = drivable_map(index, pose[0], pose[1])
    route = find_route(index, scene.roadblock_ids, pose)
    lanes = route_lanes(index, route)
    start = starting_lane(index, lanes, local, pose)
    line = route_centerline(index, route, lanes, start)
    expected = forecast(scene, current, index, lanes, pose)
    on_route = np.isin(local.ids, index.lane_ids[lanes])
    grid, masks = scene_map(ego, local.polygons, local.types, on_route)
    stages: dict[str, Callable[[], Any]] = {
        "cache: observation": lambda: tracks_of(scene, current),
        "cache: drivable map": lambda: drivable_map(index, pose[0], pose[1]),
        "cache: route": lambda: route_lanes(index, find_route(index, scene.roadblock_ids, pose)),
        "cache: centre line": lambda: route_centerline(
            index, route, lanes, starting_lane(index, lanes, local, pose)
        ),
        "cache: forecast": lambda: forecast(scene, current, index, lanes, pose),
        "cache: grid": lambda: scene_map(ego, local.polygons, local.types, on_route),
        "cache: PDM-Closed": lambda: reference_trajectories(ego, line, 12.0, expected, grid, masks),
    }
    return {name: cpu_ms(call, repeat) for name, call in stages.items()}


# ------------------------------------------------------------------ scenes
def crowded(scene: Scene, count: int) -> Scene:
    """The scene with copies of its objects, moved sideways, until there are ``count`` tracks."""
    tokens = {token for frame in scene.frames for token in frame["anns"]["track_tokens"]}
    rounds = math.ceil(count / max(len(tokens), 1)) - 1
    left = count - len(tokens)
    frames = [{**frame, "anns": dict(frame["anns"])} for frame in scene.frames]
    for r in range(max(rounds, 0)):
        chosen = sorted(tokens)[: max(left - r * len(tokens), 0)]
        for frame in frames:
            old = frame["anns"]
            rows = [
                i for i, token in enumerate(old["track_tokens"][: len(old["gt_boxes"])]) if token in chosen
            ]
            boxes = np.asarray(old["gt_boxes"], dtype=np.float64)[rows]
            boxes[:, 1] += 7.0 * (r + 1)
            frame["anns"] = {
                "gt_boxes": np.concatenate([old["gt_boxes"], boxes]),
                "gt_velocity_3d": np.concatenate(
                    [old["gt_velocity_3d"], np.asarray(old["gt_velocity_3d"])[rows]]
                ),
                "gt_names": [*old["gt_names"], *(old["gt_names"][i] for i in rows)],
                "track_tokens": [
                    *old["track_tokens"],
                    *(f"{old['track_tokens'][i]}-{r}" for i in rows),
                ],
                "instance_tokens": [
                    *old["instance_tokens"],
                    *(f"{old['instance_tokens'][i]}-{r}" for i in rows),
                ],
            }
    return Scene(scene.log_name, scene.split, frames)


def measure(scene: Scene, root: NavsimRoot, repeat: int) -> dict[str, float]:
    """All figures of one scene."""
    nuplan_map = root.map(scene.map_location)
    # A scene remembers what it has read; every call gets a new one.
    cache_ms = cpu_ms(
        lambda: build_metric_cache(Scene(scene.log_name, scene.split, scene.frames), nuplan_map), repeat
    )
    cache = build_metric_cache(scene, nuplan_map)
    plans = variations(scene.expert_plan, 256)
    with tempfile.TemporaryDirectory() as folder:
        ShardWriter(folder, KIND, {}, "benchmark").write("0", {scene.token: cache.to_arrays()})
        store = ShardStore(folder, KIND)
        load_ms = cpu_ms(lambda: MetricCache.from_arrays(store[scene.token]).prepared, repeat)
        load_v2_ms = cpu_ms(lambda: MetricCache.from_arrays(store[scene.token]).prepared_extended, repeat)
    return {
        "objects": len(cache.tracks),
        "polygons": len(cache.polygons),
        "metric_cache_ms": cache_ms,
        "load_cache_ms": load_ms,
        "load_cache_v2_ms": load_v2_ms,
        "single_plan_v2_ms": cpu_ms(lambda: score(cache, plans[:1], version="v2"), 10 * repeat),
        "batch64_v2_ms_per_plan": cpu_ms(lambda: score(cache, plans[:64], version="v2"), repeat) / 64,
        "single_plan_ms": cpu_ms(lambda: score(cache, plans[:1]), 10 * repeat),
        "batch64_ms_per_plan": cpu_ms(lambda: score(cache, plans[:64]), repeat) / 64,
        "batch256_ms_per_plan": cpu_ms(lambda: score(cache, plans), repeat) / 256,
        **cache_stages(scene, root, repeat),
        **score_stages(cache, plans[:64], repeat),
    }


def fresh_process_seconds(scene: Scene, root: NavsimRoot, compiled: Path | None = None) -> dict[str, float]:
    """CPU seconds that a fresh process spends on imports, and on the kernels of its first scene.

    Args:
        scene: The scene.
        root: Where it is.
        compiled: Folder of compiled kernels, if it is not the usual one; an empty one gives the time that
            compiling takes.
    """
    script = (
        "import json, sys, time; from pathlib import Path\n"
        "t0 = time.process_time()\n"
        "from beyonddrive.datasets.navsim.root import NavsimRoot\n"
        "from beyonddrive.datasets.navsim.scene import Scene\n"
        "from beyonddrive.evaluation.pdm import build_metric_cache, score\n"
        "from beyonddrive.evaluation.pdm.inputs.map_index import map_index\n"
        "t1 = time.process_time()\n"
        "root = NavsimRoot(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "scene = root.find(sys.argv[3], [sys.argv[4]])[0][sys.argv[4]]\n"
        "nuplan_map = root.map(scene.map_location); map_index(nuplan_map).polygons\n"
        "def once():\n"
        "    start = time.process_time()\n"
        "    again = Scene(scene.log_name, scene.split, scene.frames)\n"
        "    score(build_metric_cache(again, nuplan_map), scene.expert_plan[None])\n"
        "    return time.process_time() - start\n"
        "first, second = once(), once()\n"
        "print(json.dumps({'imports': t1 - t0, 'kernels': first - second}))\n"
    )
    arguments = (root.root, root.maps_root, scene.split, scene.token)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = dict(os.environ)
    if compiled is not None:
        environment["NUMBA_CACHE_DIR"] = str(compiled)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def print_table(rows: Sequence[dict[str, float]], kind: str, of_golden: bool) -> None:
    """Means over scenes of one kind, with goal and, of the golden scenes, ratio to the official figure.

    The official code was timed on these scenes alone; on others a ratio would compare scenes, too.
    """
    official, goals = OFFICIAL[kind] if of_golden else {}, GOALS[kind]
    means = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    objects, polygons = means["objects"], means["polygons"]
    print(f"\n{len(rows)} {kind} scenes: {objects:.0f} objects, {polygons:.0f} polygons on average")
    print(f"{'':28}{'mean':>10}{'worst':>10}{'goal':>8}{'official':>10}{'ratio':>8}")
    for name in FIGURES:
        goal = f"{goals[name]:g}" if name in goals else ""
        reference = f"{official[name]:g}" if name in official else ""
        ratio = f"{official[name] / means[name]:.0f}x" if name in official else ""
        worst = max(row[name] for row in rows)
        print(f"{name:28}{means[name]:10.3f}{worst:10.3f}{goal:>8}{reference:>10}{ratio:>8}")
    for name in means:
        if ":" in name:
            print(f"  {name + (' [us/plan]' if name.startswith('score') else ' [ms]'):34}", end="")
            print(f"{means[name] * (1e3 if name.startswith('score') else 1.0):10.3f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the PDM score.")
    parser.add_argument("--data-root", type=Path, default=GOLDEN)
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--split", help="default: all of them")
    parser.add_argument("--max-scenes", type=int, help="default: all")
    parser.add_argument("--frame-interval", type=int, help="default: windows that do not overlap")
    parser.add_argument("--repeat", type=int, default=7, help="calls per figure, of which the median counts")
    parser.add_argument("--no-compile", action="store_true", help="do not measure how long compiling takes")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of means over scenes")
    args = parser.parse_args(argv)
    scene_filter = SceneFilter(frame_interval=args.frame_interval, max_scenes=args.max_scenes)
    rows, failed, some = [], 0, None
    try:
        root = NavsimRoot(args.data_root, args.maps_root)
        splits = [args.split] if args.split else root.splits()
        for scene in (scene for split in splits for scene in root.scenes(split, scene_filter)):
            if args.data_root == GOLDEN and len(scene.objects(HISTORY - 1)) >= DENSE_NOW:
                scene = crowded(scene, CROWD)
            try:
                rows.append(measure(scene, root, args.repeat))
            except (MetricCacheError, MapError, SceneError, PlanError) as error:
                failed += 1
                print(f"left out: {error}", file=sys.stderr)
            else:
                some = scene
    except NavsimRootError as error:
        print(error, file=sys.stderr)
        return 1
    for problem in root.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if some is None:
        print(f"no scene of {args.data_root} can be scored", file=sys.stderr)
        return 1
    for kind in ("light", "dense"):
        members = [row for row in rows if (row["objects"] >= DENSE_OBJECTS) == (kind == "dense")]
        if members:
            print_table(members, kind, args.data_root == GOLDEN)
    fresh = fresh_process_seconds(some, root)
    print(f"\nfresh process: imports {fresh['imports']:.2f} s, compiled kernels {fresh['kernels']:.2f} s")
    extra = {"fresh_process_s": sum(fresh.values()), "kernel_load_s": fresh["kernels"]}
    if not args.no_compile:
        with tempfile.TemporaryDirectory() as folder:
            extra["compile_s"] = fresh_process_seconds(some, root, Path(folder))["kernels"]
        print(f"compiling all kernels, once per installation: {extra['compile_s']:.1f} s")
    if args.json:
        means = {name: statistics.fmean(row[name] for row in rows) for name in FIGURES}
        print(json.dumps({**means, "scenes": len(rows), "failed": failed, **extra}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
