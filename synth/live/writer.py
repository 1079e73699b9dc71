"""A folder of scenarios: towns that no planner was trained on, and scenarios in them.

::

    <out>/towns/<town>/                      the towns
    <out>/points/<scene>_<mode>/             road and what stands, as HUGSIM's scorer wants them
    <out>/<difficulty>/<scene>-<mode>.yaml   the scenarios
    <out>/scenarios.json                     settings and counts; written last
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import write_atomically
from beyonddrive.evaluation.closed_loop.hugsim.run_files import GROUND, SCENE
from beyonddrive.evaluation.closed_loop.hugsim.scenario import DIFFICULTIES
from beyonddrive.structures.errors import describe_error
from beyonddrive.synth.live.choose import scenarios_of
from beyonddrive.synth.live.drive import LiveSettings, staged
from beyonddrive.synth.live.episode_files import write_points
from beyonddrive.synth.live.run_folder import LOCK, alone_in
from beyonddrive.synth.live.scenario import POINTS, TOWNS
from beyonddrive.synth.live.town import LiveError, build_live_town
from beyonddrive.synth.sumo import sumo_home
from beyonddrive.version import __version__

LIST = "scenarios.json"


@dataclass(frozen=True)
class ListPlan:
    """What a folder of scenarios holds.

    Attributes:
        per_kind: Scenarios of each difficulty.
        towns: Towns that they are in, as many of each.
        seed: Towns and scenarios follow from it.

    Raises:
        LiveError: If a number makes no sense.
    """

    per_kind: int = 40
    towns: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_kind < 1 or not 1 <= self.towns <= self.per_kind or self.seed < 0:
            raise LiveError(
                f"per_kind, towns, seed: expected one scenario per town or more, got {self.per_kind} of each "
                f"kind in {self.towns} towns, seed {self.seed}"
            )

    def counts(self, town: int) -> dict[str, int]:
        """Scenarios of each difficulty in a town.

        >>> [ListPlan(per_kind=5, towns=2).counts(town)['easy'] for town in range(2)]
        [3, 2]
        """
        share = self.per_kind // self.towns + (town < self.per_kind % self.towns)
        return dict.fromkeys(DIFFICULTIES, share)


def _write_town(item: tuple[Path, ListPlan, int]) -> dict[str, int]:
    out, plan, number = item
    town = build_live_town(out / TOWNS, plan.seed, number)
    written: dict[str, int] = {}
    for scenario in scenarios_of(town, plan.counts(number)):
        difficulty = scenario.hugsim.difficulty
        path = out / difficulty / f"{scenario.hugsim.scene}-{scenario.hugsim.mode.replace('_', '-')}.yaml"
        points = out / POINTS / scenario.name
        if not path.exists():
            with staged(scenario, out / TOWNS, LiveSettings()) as stage:
                write_points(points / GROUND, stage.ground)
                write_points(points / SCENE, stage.solid)
            text = yaml.safe_dump(scenario.to_dict(), sort_keys=False, default_flow_style=None, width=110)
            write_atomically(path, text.encode(), sync=False)
        written[difficulty] = written.get(difficulty, 0) + 1
    return written


def write_scenarios(out: Path, plan: ListPlan, executor: Executor, progress: bool = True) -> dict[str, Any]:
    """Write a folder of scenarios, or go on where it was left; returns what ``scenarios.json`` says.

    Raises:
        LiveError: If the folder holds something else, another process is at work in it, or a town does not
            have so many ways.
        SumoError: If SUMO is missing or fails.
    """
    sumo_home()
    with alone_in(out):
        return _write_all(out, plan, executor, progress)


def _write_all(out: Path, plan: ListPlan, executor: Executor, progress: bool) -> dict[str, Any]:
    settings = {**vars(plan), "version": __version__}
    path = out / LIST
    started = out / f".{LIST}"
    for there in (path, started):
        if there.exists():
            _refuse_other(there, _read_list(there)["settings"], settings)
    if path.exists():
        return _read_list(path)
    if any(there.name != LOCK for there in out.iterdir()) and not started.exists():
        raise LiveError(f"{out}: is not empty and holds no scenarios; choose another folder")
    write_atomically(started, json.dumps({"settings": settings}).encode())
    items = [(out, plan, number) for number in range(plan.towns)]
    counts: dict[str, int] = dict.fromkeys(DIFFICULTIES, 0)
    for written in executor.map(_write_town, items, desc="towns" if progress else ""):
        for difficulty, count in written.items():
            counts[difficulty] += count
    summary = {"settings": settings, "scenarios": counts}
    write_atomically(path, json.dumps(summary, indent=1).encode())
    started.unlink()
    return summary


def _read_list(path: Path) -> dict[str, Any]:
    """What ``scenarios.json`` says, or what was written when it was begun."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found["settings"], dict):
            raise TypeError("settings are no keys")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiveError(
            f"{path}: does not say what the scenarios there were made with ({describe_error(error)}); choose "
            "another folder, or remove this one"
        ) from error
    read: dict[str, Any] = found
    return read


def _refuse_other(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = sorted(key for key in set(there) | set(wanted) if there.get(key) != wanted.get(key))
    if differing:
        raise LiveError(
            f"{path}: the scenarios there have another {', '.join(differing)}; choose another folder"
        )
