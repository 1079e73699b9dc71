"""The switches by which HUGSIM results differ, and their published combinations (HUGSIM, section 0)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from beyonddrive.structures.errors import BeyondDriveError

Controller = Literal["first_release", "main", "pr57", "resampled"]
ScorerBox = Literal["up", "down"]
PlanAnchor = Literal["post_step", "pre_step"]


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
        allowed = {"controller": Controller, "scorer_box": ScorerBox, "plan_anchor": PlanAnchor}
        for name, kind in allowed.items():
            if getattr(self, name) not in get_args(kind):
                raise HugsimError(f"{name}: must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        if not self.comfort_lon_max > 0 or not self.plan_timestep > 0 or self.resets not in (1, 2):
            raise HugsimError(
                f"comfort_lon_max and plan_timestep must be positive, resets 1 or 2; got {asdict(self)}"
            )

    def changed(self, **switches: Any) -> HugsimSettings:
        """The same settings with some switches set otherwise.

        Raises:
            HugsimError: If there is no such switch.

        >>> PRESETS['pr57'].changed(scorer_box='down').scorer_box
        'down'
        """
        known = [field.name for field in fields(self)]
        for name in switches:
            if name not in known:
                raise HugsimError(f"{name}: no such switch; there are {', '.join(known)}")
        return replace(self, **switches)


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
