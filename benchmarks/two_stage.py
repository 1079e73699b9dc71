"""How long a scene of the two-stage EPDMS takes: CPU time on one thread, warm, with its reactive traffic.

``python benchmarks/two_stage.py`` measures the golden scenes of the tests, original and follow-up ones, from
log frames or pickle to the sub-scores of one plan, and of 64 plans.

``--official-seconds S`` is what the devkit takes per scene on the same machine, from a run of its own; the
ratio is then to that. Without it the ratio is to what the devkit takes for less, measured for this project
on an AMD EPYC virtual machine: metric cache and one plan of NAVSIM v1.1, logged traffic, no human filter, so
that it is a lower bound. ``--json`` ends with one JSON line.
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
from beyonddrive.evaluation.pdm.cache.two_stage import build_two_stage_scene

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden"
SPLIT = "two_stage"
NUM_PLANS = 64
OFFICIAL_ONE_STAGE_MS = 242.0 + 23.0
"""Metric cache and one plan of a light scene, devkit v1.1; ``OFFICIAL`` of ``benchmarks/pdm_score.py``."""
GOAL = 20.0
"""Times as fast as the devkit at least."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--official-seconds", type=float, metavar="S", help="the devkit's time per scene here"
    )
    parser.add_argument("--repeat", type=int, default=5, help="of which the median counts")
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
            "build": cpu_ms(lambda s=scene, m=nuplan_map: build_two_stage_scene(s, m), repeat),
            "plan": cpu_ms(lambda b=built, p=one: b.sub_scores(p), repeat),
            "human": 0.0 if built.is_synthetic else _human_ms(scene, nuplan_map, repeat),
            "of 64 plans": cpu_ms(lambda b=built, p=many: b.sub_scores(p), repeat) / NUM_PLANS,
        }
        row["scene"] = row["read"] + row["build"] + row["plan"] + row["human"]
        rows["follow-up" if built.is_synthetic else "original"].append(row)
    return {
        kind: {stage: statistics.mean(row[stage] for row in measured) for stage in measured[0]}
        | {"scenes": float(len(measured))}
        for kind, measured in rows.items()
    }


def _human_ms(scene: Scene, nuplan_map: Any, repeat: int) -> float:
    """The driver in traffic of their own; of a scene built anew each time, because it is kept."""
    times = []
    for _ in range(repeat):
        built = build_two_stage_scene(scene, nuplan_map)
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
    official = OFFICIAL_ONE_STAGE_MS if args.official_seconds is None else 1e3 * args.official_seconds
    ratio = official / ours
    what = (
        "the devkit's one stage with logged traffic, which does less"
        if args.official_seconds is None
        else "the devkit's two stages, as given"
    )
    print(
        f"{ours:.2f} ms per scene with one plan; {what}: {official:.0f} ms; "
        f"ratio {ratio:.1f} (goal {GOAL:.0f})"
    )
    if args.json:
        print(json.dumps({"stages": rows, "scene_ms": ours, "against_ms": official, "ratio": ratio}))
    return int(ratio < GOAL)


if __name__ == "__main__":
    sys.exit(main())
