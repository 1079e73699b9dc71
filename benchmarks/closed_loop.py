"""Steps per second of the live world on one core: ``python benchmarks/closed_loop.py``.

One town is made in a temporary folder, and the tiny LTF, weights as they are initialised, which costs the
same, plans in every step of its scenarios: cameras painted, plan, SUMO, tracker and kinematics. What is
driven is the path at 7 m/s, because an untrained planner leaves the road at once. Printed: steps per second
with and without the set-up of scenarios, for the planner as it is and for its fast copy, and where the time
goes. Then the seconds that HUGSIM's scorer needs for a record of 400 frames, in memory, and from files as
``hugsim-score`` does, with as many points as a reconstructed scene may have (``--points``). ``--cpu-time``
counts processor time, for a machine where other programs run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from beyonddrive.apis import load_config
from beyonddrive.deploy import ExportedPlanner
from beyonddrive.deploy.drivers import FrameInputs, ModuleEngine, PlannerDriver
from beyonddrive.deploy.drivers.hugsim import HugsimConventions, answer_of
from beyonddrive.deploy.drivers.self_test import warm_up
from beyonddrive.evaluation.closed_loop.hugsim.episode import MAX_STEPS
from beyonddrive.evaluation.closed_loop.hugsim.messages import write_message
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame as RecordFrame
from beyonddrive.evaluation.closed_loop.hugsim.run_files import GROUND, RECORD, SCENE
from beyonddrive.evaluation.closed_loop.hugsim.scenario import DIFFICULTIES
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS
from beyonddrive.registry import MODELS
from beyonddrive.structures.frame import DrivenPlan, DriverReport, Frame
from beyonddrive.structures.se2 import to_local
from beyonddrive.synth.live.choose import scenarios_of
from beyonddrive.synth.live.drive import Clock, LiveSettings, Outcome, Stage, drive, score_of
from beyonddrive.synth.live.episode_files import write_points
from beyonddrive.synth.live.points import Points
from beyonddrive.synth.live.town import build_live_town
from beyonddrive.tools.hugsim_score import score_record

SPEED = 7.0
"""At which the path is driven [m/s]."""
GOAL = 10.0
"""Steps per second that the live world has to reach."""


class Guided:
    """Plans with a planner, and drives along the path of the scenario."""

    def __init__(self, planner: PlannerDriver) -> None:
        self.planner = planner

    def attach(self, stage: Stage) -> None:
        """Be told the path."""
        self.place = stage.place

    def reset(self, session: str, seed: int | None = None) -> None:
        """Begin a session."""
        self.planner.reset(session, seed)

    def plan(self, frame: Frame) -> DrivenPlan:
        """The planner's work, and the path."""
        made = self.planner.plan(frame)
        rear = self.place.to_town(frame.pose)
        along = self.place.progress(rear[:2]) + 0.5 * SPEED * np.arange(1, 9)
        return DrivenPlan(to_local(self.place.poses_at(along), rear), made.source)

    def close(self, session: str) -> DriverReport:
        """End a session."""
        return self.planner.close(session)


def driver_of(config: str, exported: bool) -> Guided:
    """A planner with weights as they are initialised."""
    loaded = load_config(config)
    planner: Any = MODELS.build(loaded.model).eval()
    engine = ModuleEngine(ExportedPlanner(planner) if exported else planner)
    made = PlannerDriver(engine, FrameInputs.from_config(loaded))
    warm_up(made)
    return Guided(made)


def measured(name: str, outcomes: list[Outcome], seconds: float) -> float:
    """Print a row; returns its steps per second."""
    steps = sum(len(outcome.frames) for outcome in outcomes)
    parts: Counter[str] = Counter()
    for outcome in outcomes:
        parts.update(outcome.seconds)
    shares = ", ".join(f"{part} {100 * value / seconds:.0f} %" for part, value in parts.most_common())
    driving = seconds - parts["set up"] - parts["score"]
    fallbacks = sum(outcome.report.fallbacks for outcome in outcomes)
    print(
        f"{name}: {steps / seconds:.1f} steps/s in {len(outcomes)} scenarios of {steps} steps "
        f"({steps / driving:.1f} without set-up and score; {parts['set up'] / len(outcomes):.2f} s of set-up "
        f"each; {fallbacks} fallbacks)\n    {shares}"
    )
    return steps / seconds


def seconds_from_files(
    frames: Sequence[RecordFrame], clouds: Sequence[Points], count: int, timer: Callable[[], float]
) -> float:
    """Seconds that a record and its points take from files to score.

    Args:
        frames: The record.
        clouds: Points of the road and of what stands, world frame.
        count: So many points each file gets, drawn near those [m].
        timer: Tells the time [s].
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / RECORD
        content = [{"type": "closeloop", "frames": [frame.to_dict() for frame in frames]}]
        record.write_bytes(write_message(content))
        for name, points in zip((GROUND, SCENE), clouds, strict=True):
            near = points[rng.integers(len(points), size=count)] + rng.normal(0.0, 0.05, (count, 3))
            write_points(record.with_name(name), near)
        started = timer()
        score_record(record, PRESETS["pr57"])
        return timer() - started


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="beyonddrive::ltf/ltf_tiny_1xb16-12e_synth.py")
    parser.add_argument("--kinds", nargs="+", choices=DIFFICULTIES, default=DIFFICULTIES, metavar="KIND")
    parser.add_argument("--per-kind", type=int, default=2, help="scenarios of each difficulty")
    parser.add_argument("--steps", type=int, default=MAX_STEPS, help="most of a scenario, and of the record")
    parser.add_argument("--points", type=int, default=2_000_000, help="of the road, and of what stands")
    parser.add_argument("--cpu-time", action="store_true", help="count the time of this process alone")
    args = parser.parse_args(argv)
    settings = LiveSettings(max_steps=args.steps)
    torch.set_num_threads(1)
    timer = time.process_time if args.cpu_time else time.perf_counter
    Clock.timer = staticmethod(timer)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        town = build_live_town(Path(folder), 0, 1)
        found = list(scenarios_of(town, dict.fromkeys(args.kinds, args.per_kind)))
        rates = []
        outcomes: list[Outcome] = []
        for exported in (False, True):
            driver = driver_of(args.config, exported)

            def driven(scenario: Any, driver: Guided = driver) -> Outcome:
                conventions = HugsimConventions()
                return drive(
                    scenario,
                    Path(folder),
                    driver,
                    lambda poses: answer_of(poses, conventions),
                    settings,
                )

            driven(found[0])  # (kernels, and what a town keeps)
            started = timer()
            outcomes = [driven(scenario) for scenario in found]
            name = f"{driver.planner.engine.name}{', fast copy' if exported else ''}"
            rates.append(measured(name, outcomes, timer() - started))
    print(
        f"fast copy / planner: {rates[1] / rates[0]:.2f}; goal: {rates[0] / GOAL:.1f} times {GOAL:g} steps/s"
    )

    longest = max(outcomes, key=lambda outcome: len(outcome.frames))
    frames = [
        replace(longest.frames[i % len(longest.frames)], time=0.25 * (i + 1)) for i in range(args.steps)
    ]
    started = timer()
    score_of(frames, longest.ground, longest.solid, settings.hugsim)
    seconds = timer() - started
    boxes = np.mean([len(frame.obj_boxes) for frame in frames])
    print(
        f"score: {seconds:.2f} s for a record of {len(frames)} frames with {boxes:.0f} road users each, "
        f"{len(longest.ground)} points of road and {len(longest.solid)} of what stands"
    )
    seconds = seconds_from_files(frames, (longest.ground, longest.solid), args.points, timer)
    print(f"score from files: {seconds:.2f} s with {args.points} points of road and as many of what stands")


if __name__ == "__main__":
    main()
