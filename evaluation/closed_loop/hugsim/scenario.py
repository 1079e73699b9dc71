"""Scenario files: who is there, where, and how the ego starts (HUGSIM, section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.evaluation.closed_loop.hugsim.agents import IntelligentDriver
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

DIFFICULTIES = ("easy", "medium", "hard", "extreme")
"""Of scenarios, from easy on."""
PLANNERS = ("ConstantPlanner", "UnicyclePlanner", "IDM", "AttackPlanner")
"""What moves agents."""
_ARGUMENTS = {
    "ConstantPlanner": {"max_t"},  # some published files have it, and nothing reads it
    "UnicyclePlanner": {"uc_id", "speed"},
    "IDM": {item.name for item in fields(IntelligentDriver)},
    "AttackPlanner": {"pred_steps", "ATTACK_FREQ", "best_k"},
}
_NO_NUMBERS = {"uc_id", "max_t"}
"""A name, and what nothing reads; all other arguments are numbers."""
_COUNTS = {"ATTACK_FREQ", "best_k"}


@dataclass(frozen=True)
class Agent:
    """Another road user.

    Attributes:
        start: a, b [m], yaw [rad, positive to the left], speed [m/s].
        height: Added to that of the road, y down [m].
        car: Id of its model, which tells its size.
        planner: One of :data:`PLANNERS`.
        arguments: Of the planner.
    """

    start: tuple[float, float, float, float]
    height: float
    car: str
    planner: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """A scenario.

    Attributes:
        scene: Name of the recorded scene.
        mode: Difficulty and number, such as ``'easy_00'``.
        agents: Other road users.
        needs_map: Whether agents follow the lanes of a map.
        euler: XYZ Euler angles of the ego [deg].
        start: a, b of the ego [m].
        speed: [m/s]
        steering: [rad]
    """

    scene: str
    mode: str
    agents: tuple[Agent, ...]
    needs_map: bool
    euler: tuple[float, float, float]
    start: tuple[float, float]
    speed: float
    steering: float

    @property
    def difficulty(self) -> str:
        """The mode without its number."""
        return self.mode.partition("_")[0]


def read_scenario(source: Path | Mapping[str, Any]) -> Scenario:
    """Read a scenario from a YAML file or its contents; keys that nothing reads are passed over.

    Raises:
        HugsimError: If it cannot be read, or a value is missing or makes no sense; names file and key.
    """
    where = str(source) if isinstance(source, Path) else "scenario"
    if isinstance(source, Path):
        try:
            source = yaml.safe_load(source.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise HugsimError(f"{where}: cannot be read ({error})") from error
    if not isinstance(source, Mapping):
        raise HugsimError(f"{where}: holds no keys")
    try:
        agents = tuple(
            _agent(item, f"{where}: plan_list[{i}]") for i, item in enumerate(source["plan_list"] or [])
        )
        steering = _numbers([source["start_steer"]], 1, f"{where}: start_steer")[0]
        if abs(steering) >= math.pi / 2:
            raise HugsimError(
                f"{where}: start_steer: wheels turn by less than a quarter turn, in radians; got {steering:g}"
            )
        return Scenario(
            str(source["scene_name"]),
            _mode(str(source["mode"]), where),
            agents,
            bool(source["load_HD_map"]),
            _numbers(source["start_euler"], 3, f"{where}: start_euler"),
            _numbers(source["start_ab"], 2, f"{where}: start_ab"),
            _numbers([source["start_velo"]], 1, f"{where}: start_velo")[0],
            steering,
        )
    except KeyError as error:
        raise HugsimError(f"{where}: lacks the key {error}") from None
    except TypeError as error:
        raise HugsimError(f"{where}: {error}") from error


def _mode(text: str, where: str) -> str:
    if text.partition("_")[0] not in DIFFICULTIES:
        raise HugsimError(
            f"{where}: mode: expected a difficulty and a number, such as easy_00, got {text!r}; difficulties "
            f"are {', '.join(DIFFICULTIES)}"
        )
    return text


def _agent(item: Any, where: str) -> Agent:
    if not isinstance(item, (list, tuple)) or len(item) != 8:
        raise HugsimError(
            f"{where}: expected [a, b, height, yaw, v, car id, planner, arguments], got {item!r}"
        )
    a, b, height, yaw, speed = _numbers(item[:5], 5, where)
    car, planner, arguments = str(item[5]), str(item[6]), item[7] or {}
    if not isinstance(arguments, Mapping):
        raise HugsimError(f"{where}: arguments: expected keys, got {arguments!r}")
    if planner not in PLANNERS:
        raise HugsimError(f"{where}: no planner {planner!r}, known are {', '.join(PLANNERS)}")
    known = _ARGUMENTS[planner]
    if unknown := sorted(arguments.keys() - known):
        raise HugsimError(f"{where}: {planner} takes no {unknown}; it takes {sorted(known)}")
    required = {"AttackPlanner": ("ATTACK_FREQ",), "UnicyclePlanner": ("uc_id", "speed")}.get(planner, ())
    for name in required:
        if name not in arguments:
            raise HugsimError(f"{where}: {planner} needs {name}")
    for name in sorted(arguments.keys() - _NO_NUMBERS):
        value = _numbers([arguments[name]], 1, f"{where}: {name}")[0]
        if name in _COUNTS and value < 1:
            raise HugsimError(f"{where}: {name}: must be 1 or more, got {arguments[name]!r}")
    return Agent((a, b, yaw, speed), height, car, planner, dict(arguments))


def _numbers(values: Any, count: int, where: str) -> tuple[Any, ...]:
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e9]
    if len(numbers) != count or len(values) != count:
        raise HugsimError(f"{where}: expected {count} finite number(s), got {values!r}")
    return tuple(float(number) for number in numbers)
