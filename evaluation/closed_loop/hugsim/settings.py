"""The switches by which HUGSIM results differ, and their published combinations (HUGSIM, section 0)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from beyonddrive.structures.errors import BeyondDriveError

Controller = Literal["first_release", "main", "pr57", "resampled"]
CONTROLLER_KEY = "controller"
"""Key of ``info`` in which our own simulator names the one that it has; HUGSIM's has no such key."""
ScorerBox = Literal["up", "down"]
PlanAnchor = Literal["post_step", "pre_step"]

CHOICES: dict[str, tuple[Any, ...]] = {
    "controller": get_args(Controller),
    "scorer_box": get_args(ScorerBox),
    "plan_anchor": get_args(PlanAnchor),
    "resets": (1, 2),
}
"""What switches may be; the others are positive numbers."""


class HugsimError(BeyondDriveError, ValueError):
    """A record, a scenario, a plan or a setting cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class HugsimSettings:
    """Everything that changes HUGSIM's numbers; report it with every result.

    Attributes:
        controller: How plans become commands (section 5.2); ``resampled`` is a community variant.
        comfort_lon_max: Largest comfortable acceleration [m/s2].
        plan_timestep: Seconds between the entries of a plan, as written into records.
        scorer_box: The scorer's ego box reaches ``up`` from the camera (official) or ``down`` to the road.
        plan_anchor: A plan is scored from the ego pose after (official) or before the step that it led to.
        resets: How often the loop resets before the first observation; agents move at each.

    Raises:
        HugsimError: If a value is not one of those.
    """

    controller: Controller = "pr57"
    comfort_lon_max: float = 2.40
    plan_timestep: float = 0.5
    scorer_box: ScorerBox = "up"
    plan_anchor: PlanAnchor = "post_step"
    resets: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in CHOICES:
                if value not in CHOICES[name]:
                    raise HugsimError(f"{name}: must be one of {_listed(CHOICES[name])}, got {value!r}")
            elif not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise HugsimError(f"{name}: must be a positive number, got {value!r}")

    def changed(self, **switches: Any) -> HugsimSettings:
        """The same settings with some switches set otherwise.

        Raises:
            HugsimError: If there is no such switch, or it cannot be that.

        >>> PRESETS['pr57'].changed(scorer_box='down').scorer_box
        'down'
        """
        for name in switches:
            _check_name(name)
        return replace(self, **switches)

    def named(self, preset_name: str, switches: Iterable[str] | None = None) -> str:
        """The name of a preset, with the switches that are not as it has them.

        Args:
            preset_name: The preset to start from.
            switches: Those to look at; all by default.

        Raises:
            HugsimError: If there is no such preset.

        >>> PRESETS['pr57'].changed(resets=1).named('pr57')
        'pr57 with resets=1'
        """
        usual = vars(preset(preset_name))
        other = [
            f"{name}={value}"
            for name, value in vars(self).items()
            if value != usual[name] and (switches is None or name in switches)
        ]
        return f"{preset_name} with {', '.join(other)}" if other else preset_name


def read_switches(texts: Iterable[str]) -> dict[str, Any]:
    """Switches as somebody types them, ``name=value``; the last of a name counts.

    Raises:
        HugsimError: If there is no such switch, or it cannot be that.

    >>> read_switches(["controller=resampled", "resets=1"])
    {'controller': 'resampled', 'resets': 1}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, typed = (part.strip() for part in text.partition("="))
        if not equals:
            raise HugsimError(f"{text}: a switch is NAME=VALUE; there are {_listed(_names())}")
        _check_name(name)
        value: Any = next((choice for choice in CHOICES.get(name, ()) if str(choice) == typed), typed)
        if name not in CHOICES:
            try:
                value = float(typed)
            except ValueError:
                value = typed
        HugsimSettings(**{name: value})  # (which refuses what it cannot be)
        found[name] = value
    return found


def _names() -> list[str]:
    return [field.name for field in fields(HugsimSettings)]


def _check_name(name: str) -> None:
    if name not in _names():
        raise HugsimError(f"{name}: no such switch; there are {_listed(_names())}")


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


PRESETS = {
    "paper_2024": HugsimSettings("first_release", comfort_lon_max=4.89),
    "mid_2025": HugsimSettings("first_release", comfort_lon_max=4.89, plan_timestep=0.25),
    "main": HugsimSettings("main"),
    "pr57": HugsimSettings("pr57"),
}
"""Combinations that published results were made with; ``pr57`` is the default of this suite.

The code of December 2024 also had no end off the route and another height of the ego (section 0), which no
preset brings back.
"""


def preset(name: str) -> HugsimSettings:
    """Settings by name.

    Raises:
        HugsimError: If there is no such preset.
    """
    if name not in PRESETS:
        raise HugsimError(f"preset: no {name!r}, choose from {', '.join(PRESETS)}")
    return PRESETS[name]
