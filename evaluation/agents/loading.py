"""An agent from the name of its class, or from the yaml file that hydra would make it from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.evaluation.agents.devkit import Devkit
from beyonddrive.evaluation.agents.inputs import AgentError
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL

YAML_SUFFIXES = (".yaml", ".yml")
"""Of a file that hydra would make an agent from."""
_METHODS = ("get_sensor_config", "initialize", "compute_trajectory")


def build_agent(
    target: str, devkit: Devkit, checkpoint: str | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Make an agent and load its weights.

    Args:
        target: ``package.module:Class``, or a yaml file with ``_target_`` and arguments.
        devkit: Where the sampling is from that its constructor may ask for.
        checkpoint: Given as ``checkpoint_path``.
        options: Other arguments of the constructor.

    Raises:
        AgentError: If there is no such class, it takes no such argument, or has not the methods of an agent.
    """
    given = dict(options or {})
    if target.endswith(YAML_SUFFIXES):
        values = _read_yaml(Path(target))
        target = str(values.pop("_target_"))
        given = {**{key: _instantiate(value, target) for key, value in values.items()}, **given}
    kind = _find(target)
    accepted = _parameters(kind)
    if checkpoint is not None:
        if accepted is not None and "checkpoint_path" not in accepted:
            raise AgentError(
                f"{target}: its constructor has no checkpoint_path ({', '.join(accepted) or 'none at all'}); "
                f"name the argument for the checkpoint by --agent-options"
            )
        given["checkpoint_path"] = checkpoint
    if accepted is not None:
        if unknown := sorted(given.keys() - accepted.keys()):
            raise AgentError(
                f"{target}: its constructor has no {', '.join(unknown)}; it has {', '.join(accepted)}"
            )
        if "trajectory_sampling" in accepted and "trajectory_sampling" not in given:
            given["trajectory_sampling"] = devkit.sampling(
                time_horizon=NUM_POSES * POSE_INTERVAL, interval_length=POSE_INTERVAL
            )
    try:
        agent = kind(**given)
    except Exception as error:  # whatever somebody else's constructor raises
        raise AgentError(f"{target}: cannot be made ({type(error).__name__}: {error})") from error
    _check(agent, target)
    try:
        agent.initialize()
    except Exception as error:
        raise AgentError(f"{target}: initialize failed ({type(error).__name__}: {error})") from error
    return agent


def named_files(target: str, options: Mapping[str, Any]) -> list[str]:
    """Files that are there among the arguments of an agent, such as a checkpoint of another name.

    Raises:
        AgentError: If the agent is a yaml file that cannot be read.
    """
    given = {**(_read_yaml(Path(target)) if target.endswith(YAML_SUFFIXES) else {}), **options}
    return sorted({text for text in _texts(given) if Path(text).is_file()})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str) and 0 < len(value) < 1024 and "\0" not in value:
        yield value


def _check(agent: Any, target: str) -> None:
    if lacking := [name for name in _METHODS if not callable(getattr(agent, name, None))]:
        raise AgentError(f"{target}: is no agent of the devkit: it has no {', '.join(lacking)}")
    if getattr(agent, "requires_scene", False):
        raise AgentError(
            f"{target}: asks for the scene itself (requires_scene), which the leaderboards refuse; agents "
            f"that plan from their input are run here"
        )


def _parameters(kind: Any) -> dict[str, inspect.Parameter] | None:
    """Arguments of a constructor by name; None if it takes any."""
    found = dict(inspect.signature(kind).parameters)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found.values()):
        return None
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    }


def _find(target: str) -> Any:
    module, colon, name = target.partition(":")
    if not colon:
        module, _, name = target.rpartition(".")
    if not module or not name:
        raise AgentError(f"{target!r} names no agent: write package.module:Class, or give a yaml file")
    try:
        found: Any = import_module(module)
    except Exception as error:  # whatever somebody else's module raises
        raise AgentError(
            f"{target}: module {module} cannot be imported ({type(error).__name__}: {error}); put its folder "
            f"on PYTHONPATH and install what it needs"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise AgentError(f"{target}: {module} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise AgentError(f"{target}: is no class")
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise AgentError(f"{path}: cannot be read as yaml ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("_target_"), str):
        raise AgentError(f"{path}: an agent is a mapping with the key _target_")
    values.pop("_convert_", None)
    return values


def _instantiate(value: Any, where: str) -> Any:
    """What hydra would make of a value."""
    if isinstance(value, str) and "${" in value:
        raise AgentError(f"{where}: {value!r} refers to hydra's own settings; give it by --agent-options")
    if isinstance(value, list):
        return [_instantiate(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _instantiate(item, where) for key, item in value.items() if key != "_convert_"}
    if "_target_" not in made:
        return made
    inner = str(made.pop("_target_"))
    try:
        return _find(inner)(**made)
    except AgentError:
        raise
    except Exception as error:
        raise AgentError(f"{where}: {inner} cannot be made ({type(error).__name__}: {error})") from error
