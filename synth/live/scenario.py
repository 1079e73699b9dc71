"""Scenario files of the live world: HUGSIM's keys, and what makes a town live.

HUGSIM's readers pass over the keys that they do not know, so the files are scenarios of HUGSIM too; here a
key that nobody knows is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from beyonddrive.evaluation.closed_loop.hugsim.scenario import Scenario, read_scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.synth.live.place import SPACING
from beyonddrive.synth.live.sumo_world import PERSON_SIZE, SIZES
from beyonddrive.synth.live.town import LiveError

TOWNS, POINTS = "towns", "points"
"""Folders beside the scenarios: their towns, and what HUGSIM's scorer wants to know of each scene."""
HUGSIM_KEYS = (
    "scene_name",
    "mode",
    "plan_list",
    "load_HD_map",
    "start_euler",
    "start_ab",
    "start_velo",
    "start_steer",
    "iteration",
)
LIVE_KEYS = (
    "town",
    "lanes",
    "start_station",
    "length",
    "vehicles_per_km",
    "pedestrians_per_km",
    "start_time",
    "seed",
    "events",
)
EVENT_KEYS = ("kind", "car", "trigger", "path", "speed", "acceleration", "then")
KINDS = ("lead", "jaywalk", "cut_in", "late_turn")
STAY, JOIN = "stay", "join"
"""What somebody does at the end of a path: stay there, or join the traffic of SUMO."""
CARS = {**SIZES, "pedestrian": PERSON_SIZE}
"""Car id -> length, width, height [m]."""


@dataclass(frozen=True)
class Event:
    """Somebody waits, and drives or walks along a path once the ego has come so far.

    Attributes:
        kind: One of :data:`KINDS`.
        car: Id of its model.
        trigger: The ego's progress along its own path at which it starts [m].
        path: (N, 2) a, b of its middle [m].
        speed: That it reaches [m/s].
        acceleration: With which it does [m/s2].
        then: :data:`STAY` or :data:`JOIN`.
    """

    kind: str
    car: str
    trigger: float
    path: tuple[tuple[float, float], ...]
    speed: float
    acceleration: float
    then: str = STAY

    def to_dict(self) -> dict[str, Any]:
        """As in a file."""
        return {
            "kind": self.kind,
            "car": self.car,
            "trigger": round(self.trigger, 2),
            "path": [[round(a, 3), round(b, 3)] for a, b in self.path],
            "speed": self.speed,
            "acceleration": self.acceleration,
            "then": self.then,
        }


@dataclass(frozen=True)
class LiveScenario:
    """A scenario of the live world.

    Attributes:
        hugsim: What HUGSIM knows of it.
        town: Name of the town.
        lanes: Lanes of the ego's path.
        station: Where it starts on the first [m].
        length: Of the path [m].
        vehicles_per_km: Traffic, per kilometre of car lane.
        pedestrians_per_km: Pedestrians, per kilometre of road.
        start_time: How long SUMO has run when the ego appears [s].
        seed: Of the traffic.
        events: What happens on the way.
    """

    hugsim: Scenario
    town: str
    lanes: tuple[str, ...]
    station: float
    length: float
    vehicles_per_km: float
    pedestrians_per_km: float
    start_time: float
    seed: int
    events: tuple[Event, ...] = field(default=())

    @property
    def name(self) -> str:
        """Folder of its results, as HUGSIM names it."""
        return f"{self.hugsim.scene}_{self.hugsim.mode}"

    def to_dict(self) -> dict[str, Any]:
        """As in a file."""
        ego = self.hugsim
        agents = [
            [
                *agent.start[:2],
                agent.height,
                *agent.start[2:],
                agent.car,
                agent.planner,
                dict(agent.arguments),
            ]
            for agent in ego.agents
        ]
        return {
            "scene_name": ego.scene,
            "mode": ego.mode,
            "plan_list": agents,
            "load_HD_map": ego.needs_map,
            "start_euler": list(ego.euler),
            "start_ab": list(ego.start),
            "start_velo": ego.speed,
            "start_steer": ego.steering,
            "iteration": 0,
            "town": self.town,
            "lanes": list(self.lanes),
            "start_station": self.station,
            "length": self.length,
            "vehicles_per_km": self.vehicles_per_km,
            "pedestrians_per_km": self.pedestrians_per_km,
            "start_time": self.start_time,
            "seed": self.seed,
            "events": [event.to_dict() for event in self.events],
        }


def read_live_scenario(path: Path) -> LiveScenario:
    """Read a scenario file.

    Raises:
        LiveError: If it cannot be read, has a key that nobody knows, lacks one, or a value makes no sense.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LiveError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, Mapping):
        raise LiveError(f"{path}: holds no keys")
    return scenario_of(content, str(path))


def scenario_of(content: Mapping[str, Any], where: str) -> LiveScenario:
    """A scenario of the contents of a file; ``where`` names it. Raises as :func:`read_live_scenario`."""
    known = (*HUGSIM_KEYS, *LIVE_KEYS)
    if unknown := sorted(set(map(str, content)) - set(known)):
        raise LiveError(f"{where}: does not know the key {unknown[0]!r}; it knows {', '.join(known)}")
    if missing := [key for key in LIVE_KEYS if key not in content]:
        raise LiveError(
            f"{where}: lacks the key {missing[0]!r}: the live world has generated towns only; scenarios for "
            "it are written by beyonddrive closed-loop scenarios"
        )
    try:
        hugsim = read_scenario(content)
    except HugsimError as error:
        raise LiveError(f"{where}: {error}") from error
    for i, agent in enumerate(hugsim.agents):
        if agent.planner not in ("ConstantPlanner", "AttackPlanner"):
            raise LiveError(
                f"{where}: plan_list[{i}]: {agent.planner} does not drive here, SUMO moves the traffic; use "
                "vehicles_per_km, ConstantPlanner or AttackPlanner"
            )
        _car(agent.car, f"{where}: plan_list[{i}]")
    for key in ("scene_name", "mode", "town"):
        # (they name folders)
        if not re.fullmatch(r"\w[\w.-]*", str(content[key])):
            raise LiveError(
                f"{where}: {key}: expected letters, digits, '_', '-' and '.', got {content[key]!r}"
            )
    lanes = content["lanes"]
    if not isinstance(lanes, list) or not lanes or not all(isinstance(lane, str) for lane in lanes):
        raise LiveError(f"{where}: lanes: expected a list of lane ids, got {lanes!r}")
    events = content["events"] or []
    if not isinstance(events, list):
        raise LiveError(f"{where}: events: expected a list, got {events!r}")
    seed = content["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise LiveError(f"{where}: seed: expected a whole number from 0 on, got {seed!r}")
    return LiveScenario(
        hugsim,
        str(content["town"]),
        tuple(lanes),
        _number(content, "start_station", where),
        # (a shorter path is one pose, which leads nowhere)
        _number(content, "length", where, SPACING),
        _number(content, "vehicles_per_km", where),
        _number(content, "pedestrians_per_km", where),
        _number(content, "start_time", where),
        seed,
        tuple(_event(event, f"{where}: events[{i}]") for i, event in enumerate(events)),
    )


def _event(content: Any, where: str) -> Event:
    if not isinstance(content, Mapping):
        raise LiveError(f"{where}: expected keys, got {content!r}")
    if unknown := sorted(set(map(str, content)) - set(EVENT_KEYS)):
        raise LiveError(f"{where}: does not know the key {unknown[0]!r}; it knows {', '.join(EVENT_KEYS)}")
    if missing := [key for key in EVENT_KEYS if key not in content]:
        raise LiveError(f"{where}: lacks the key {missing[0]!r}")
    kind, then = str(content["kind"]), str(content["then"])
    if kind not in KINDS or then not in (STAY, JOIN):
        raise LiveError(f"{where}: kind must be one of {', '.join(KINDS)} and then {STAY} or {JOIN}")
    if content["car"] == "pedestrian" and then == JOIN:
        raise LiveError(f"{where}: then: a pedestrian cannot join the vehicles of SUMO; say {STAY}")
    try:
        path = np.array(content["path"], dtype=np.float64)
    except (TypeError, ValueError):
        path = np.zeros(0)
    if path.ndim != 2 or path.shape[1] != 2 or len(path) < 2 or not np.isfinite(path).all():
        raise LiveError(f"{where}: path: expected two or more points [a, b], got {content['path']!r}")
    return Event(
        kind,
        _car(content["car"], where),
        _number(content, "trigger", where),
        tuple((float(a), float(b)) for a, b in path),
        _number(content, "speed", where),
        _number(content, "acceleration", where),
        then,
    )


def _car(value: Any, where: str) -> str:
    if not isinstance(value, str) or value not in CARS:
        raise LiveError(f"{where}: no car {value!r}; there are {', '.join(CARS)}")
    return value


def _number(content: Mapping[str, Any], key: str, where: str, least: float = 0.0) -> float:
    value = content[key]
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < 1e6
    if not good:
        raise LiveError(f"{where}: {key}: expected a number from {least:g} on, got {value!r}")
    return float(value)
