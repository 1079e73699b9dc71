"""How long a scene of the two-stage EPDMS takes: CPU time on one thread, warm, with its reactive traffic.

``python benchmarks/two_stage.py`` measures the golden scenes of the tests, original and follow-up ones, from
log frames or pickle to the sub-scores of one plan, and of 64 plans, in about a minute.

NAVSIM states no time of its own, so the ratio is to a stated one. Its traffic is restated step by step with
shapely in ``benchmarks/restated_traffic.py``, measured in the same run, and must put every vehicle at the
same place. What else the devkit does for a scene, metric cache and one plan, is what NAVSIM v1.1 took on an
AMD EPYC virtual machine, with logged traffic and without human filter, so less than two stages take.
``--official-seconds S`` puts in place of both what the devkit takes per scene on the same machine. ``--json``
ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.synthetic import read_synthetic_scene
from beyonddrive.datasets.navsim.two_stage_split import NUM_FUTURE_FRAMES
from beyonddrive.evaluation.pdm.cache.two_stage import TwoStageScene, build_two_stage_scene
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.reference.reactive import react

sys.path.insert(0, str(Path(__file__).parent))
import restated_traffic

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden"
SPLIT = "two_stage"
NUM_PLANS = 64
OFFICIAL_ONE_STAGE_MS = 242.0 + 23.0
"""Metric cache and one plan of a light scene, devkit v1.1; ``OFFICIAL`` of ``benchmarks/pdm_score.py``."""
SAME_PLACE = 1e-6
"""Restated and compiled traffic are at the same place [m]."""
GOAL = 20.0
"""Times as fast as the devkit at least."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--official-seconds", type=float, metavar="S", help="the devkit's time per scene here"
    )
    parser.add_argument("--repeat", type=int, default=3, help="of which the median counts")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser.parse_args(argv)


def cpu_ms(function: Callable[[], Any], repeat: int) -> float:
    """Median CPU milliseconds of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def golden_scenes() -> list[tuple[str, Callable[[], Scene]]]:
    """Token of each scene whose plans are recorded, and how it is read."""
    root = NavsimRoot(GOLDEN / SPLIT / "data", GOLDEN / "pdms" / "data" / "maps")
    tokens = {path.stem for path in (GOLDEN / SPLIT / "scenes").glob("*.npz")}
    found: list[tuple[str, Callable[[], Scene]]] = []
    for log in root.log_paths(SPLIT):
        for token, scene in root.log_scenes(log, SPLIT, tokens, NUM_FUTURE_FRAMES):
            if isinstance(scene, Exception):
                raise scene
            found.append((token, lambda scene=scene: scene))
    for path in sorted((root.root / "synthetic_scene_pickles").glob("*.pkl")):
        if path.stem in tokens:
            found.append((path.stem, lambda path=path: read_synthetic_scene(path)))
    return found


def measure(repeat: int) -> dict[str, dict[str, float]]:
    """Mean milliseconds by kind of scene and stage."""
    root = NavsimRoot(GOLDEN / SPLIT / "data", GOLDEN / "pdms" / "data" / "maps")
    with np.load(GOLDEN / SPLIT / "two_stage.npz") as data:
        plans = dict(zip(map(str, data["token"]), data["poses"].swapaxes(0, 1), strict=True))
    rows: dict[str, list[dict[str, float]]] = {"original": [], "follow-up": []}
    for token, read in golden_scenes():
        scene = read()
        nuplan_map = root.map(scene.map_location)
        built = build_two_stage_scene(scene, nuplan_map)
        one = plans[token][:1].astype(np.float64)
        many = np.repeat(one, NUM_PLANS, axis=0)
        many[:, :, 0] *= np.linspace(0.6, 1.1, NUM_PLANS)[:, None]  # (all differ, so does their traffic)
        row = {
            "read": cpu_ms(read, repeat) if built.is_synthetic else 0.0,
            "build": cpu_ms(lambda s=scene, m=nuplan_map: build_two_stage_scene(s, m).traffic, repeat),
            "plan": cpu_ms(lambda b=built, p=one: b.sub_scores(p), repeat),
            "human": 0.0 if built.is_synthetic else _human_ms(scene, nuplan_map, repeat),
            "of 64 plans": cpu_ms(lambda b=built, p=many: b.sub_scores(p), repeat) / NUM_PLANS,
        }
        row |= _traffic_ms(built, one, repeat)
        row["scene"] = row["read"] + row["build"] + row["plan"] + row["human"]
        rows["follow-up" if built.is_synthetic else "original"].append(row)
    return {
        kind: {stage: statistics.mean(row[stage] for row in measured) for stage in measured[0]}
        | {"scenes": float(len(measured))}
        for kind, measured in rows.items()
    }


def _traffic_ms(built: TwoStageScene, plan: Floats, repeat: int) -> dict[str, float]:
    """The traffic alone, here and restated; once more for the driver of an original scene.

    Raises:
        RuntimeError: If the restated vehicles drive elsewhere.
    """
    plans = plan if built.is_synthetic else np.concatenate([plan, built.extended.human[None]])
    taken = {"traffic": 0.0, "restated": 0.0}
    for states in built.sub_scores(plans)[1]:
        taken["traffic"] += cpu_ms(lambda s=states: react(built.traffic, s), repeat)
        start = time.process_time()
        poses = restated_traffic.drive(built.traffic, states)
        taken["restated"] += 1e3 * (time.process_time() - start)
        rows = [vehicle.row for vehicle in built.traffic.vehicles]
        apart = np.abs(react(built.traffic, states).boxes[1:, rows, :2] - poses[..., :2])
        if not np.nanmax(apart, initial=0.0) < SAME_PLACE:
            raise RuntimeError(f"scene {built.token}: the restated traffic is {np.nanmax(apart)} m elsewhere")
    return taken


def _human_ms(scene: Scene, nuplan_map: Any, repeat: int) -> float:
    """The driver in traffic of their own; of a scene built anew each time, because it is kept."""
    times = []
    for _ in range(repeat):
        built = build_two_stage_scene(scene, nuplan_map)
        assert built.traffic is not None  # (made here, as it is a part of building)
        start = time.process_time()
        built.human_scores("reactive")
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the goal is missed."""
    args = parse_args(argv)
    rows = measure(args.repeat)
    stages = list(rows["original"])
    print(f"{'CPU ms, mean':<14}" + "".join(f"{stage:>13}" for stage in stages))
    for kind, row in rows.items():
        print(f"{kind:<14}" + "".join(f"{row[stage]:13.3f}" for stage in stages))
    count = sum(row["scenes"] for row in rows.values())
    ours = sum(row["scene"] * row["scenes"] for row in rows.values()) / count
    restated, traffic = (
        sum(row[stage] * row["scenes"] for row in rows.values()) / count for stage in ("restated", "traffic")
    )
    print(f"traffic: {traffic:.2f} ms, restated {restated:.0f} ms: ratio {restated / traffic:.0f}")
    if args.official_seconds is not None:
        what, official = "the devkit's two stages, as given", 1e3 * args.official_seconds
    else:
        what = "the devkit's one stage, measured elsewhere, and its traffic, restated"
        official = OFFICIAL_ONE_STAGE_MS + restated
    ratio = official / ours
    print(
        f"scene with one plan: {ours:.2f} ms, {what}: {official:.0f} ms: ratio {ratio:.1f} (goal {GOAL:.0f})"
    )
    if args.json:
        print(json.dumps({"stages": rows, "scene_ms": ours, "against_ms": official, "ratio": ratio}))
    return int(ratio < GOAL)


if __name__ == "__main__":
    sys.exit(main())
