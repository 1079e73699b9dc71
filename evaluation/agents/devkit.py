"""The devkit if it can be imported, or else modules of its names that hold look-alikes."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from beyonddrive.evaluation.agents import abstract_agent, lookalikes
from beyonddrive.structures.errors import BeyondDriveError

_DATA = "navsim.common.dataclasses"
_SAMPLING = "nuplan.planning.simulation.trajectory.trajectory_sampling"
_STAND_INS = {
    _DATA: (
        lookalikes,
        ("AgentInput", "EgoStatus", "Camera", "Cameras", "Lidar", "SensorConfig", "Trajectory"),
    ),
    _SAMPLING: (lookalikes, ("TrajectorySampling",)),
    "navsim.agents.abstract_agent": (abstract_agent, ("AbstractAgent",)),
    "navsim.planning.training.abstract_feature_target_builder": (
        abstract_agent,
        ("AbstractFeatureBuilder", "AbstractTargetBuilder"),
    ),
}


class DevkitError(BeyondDriveError, ImportError):
    """A devkit is there, but cannot be imported whole."""


class Devkit(NamedTuple):
    """The classes that inputs are made of.

    Attributes:
        data: Module with AgentInput and its parts.
        sampling: Class TrajectorySampling.
        is_real: Whether they are the devkit's own.
    """

    data: Any
    sampling: Any
    is_real: bool


def find_devkit() -> Devkit:
    """The devkit of this interpreter; without one, its modules are stood in for from now on.

    A package ``navsim`` that is another project (there is one on the package index) counts as none.

    Raises:
        DevkitError: If there is a devkit whose own imports fail.
    """
    try:
        data = import_module(_DATA)
        return Devkit(data, import_module(_SAMPLING).TrajectorySampling, not hasattr(data, _MARK))
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if missing not in _prefixes(_DATA):
            raise DevkitError(
                f"{_DATA} is there, but needs {missing}, which is not: install what the devkit needs into "
                f"this environment, or take the devkit off PYTHONPATH to run the agent without it"
            ) from error
    for name, (source, classes) in _STAND_INS.items():
        _install(name, {cls: getattr(source, cls) for cls in classes})
    return Devkit(lookalikes, lookalikes.TrajectorySampling, False)


_MARK = "_stands_in_for_the_devkit"


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _install(name: str, content: dict[str, Any]) -> None:
    """Put a module, and the packages around it, where imports look first."""
    parent: ModuleType | None = None
    for full in _prefixes(name):
        module = sys.modules.get(full)
        if module is None or not hasattr(module, _MARK):
            module = ModuleType(full, "Stands in for the devkit's module of this name.")
            setattr(module, _MARK, True)
            module.__path__ = []
            sys.modules[full] = module
        if parent is not None:
            setattr(parent, full.rpartition(".")[2], module)
        parent = module
    assert parent is not None
    vars(parent).update(content)
