"""What a planner takes for granted of its targets, held against the transforms that make them.

A class of the model says it in ``target_settings(settings)``: by type of transform, the settings that it
needs. Otherwise a map of other cells, or agents out of reach, would be learned without a word.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from beyonddrive import registry as own
from beyonddrive.engine.config_readers import find
from beyonddrive.engine.config_values import ConfigError

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_GROUND = (0, 1, 3, 4)
"""Places of the bounds of x and y in x, y, z from, x, y, z to."""


def check_geometry(config: Mapping[str, Any]) -> None:
    """Refuse a config whose model and transforms, or whose LiDAR encoder and detector, differ in geometry.

    Raises:
        ConfigError: Names both settings and their values.
    """
    model = config.get("model")
    transforms = [node for key in _LOADERS for node in _nodes(key, config.get(key))]
    for path, node in _nodes("model", model):
        wanted = getattr(find(node["type"], own.MODELS), "target_settings", None)
        for name, settings in (wanted(node) if wanted is not None else {}).items():
            for key, value in settings.items():
                _check_transforms(path, node, transforms, (name, key, value))
    if isinstance(model, Mapping):
        _check_detector(model)


def _check_transforms(
    path: str,
    node: Mapping[str, Any],
    transforms: list[tuple[str, Mapping[str, Any]]],
    wanted: tuple[str, str, Any],
) -> None:
    name, key, value = wanted
    for place, transform in transforms:
        if transform["type"] == name and (given := _setting(transform, key, own.TRANSFORMS)) != value:
            raise ConfigError(
                f"{place}.{key}={given}: {path} ({node['type']}) is made for {key}={value} of {name}; set "
                f"{place}.{key} to that"
            )


def _check_detector(model: Mapping[str, Any]) -> None:
    """A detector that reads the map of the pillars sees the ground that they cover."""
    head, backbone = model.get("detection_head"), model.get("backbone")
    if not isinstance(head, Mapping) or not isinstance(backbone, Mapping) or head.get("reads") == "bev":
        return
    if head.get("type") != "CenterPointHead" or backbone.get("type") != "PillarTransFuserBackbone":
        return
    pillars = {"type": "PointPillarsEncoder", **(backbone.get("pillars") or {})}
    seen, covered = (
        _setting(part, key, own.MODELS) for part, key in ((pillars, "point_range"), (head, "map_range"))
    )
    if len(seen) != 6 or len(covered) != 6:
        return  # each is refused by its class
    if any(seen[place] != covered[place] for place in _GROUND):
        raise ConfigError(
            f"model.detection_head.map_range={tuple(covered)} and "
            f"model.backbone.pillars.point_range={tuple(seen)} differ in x or y, but the detector reads the "
            f"map of the pillars: make them agree"
        )


def _setting(node: Mapping[str, Any], key: str, registry: Any) -> Any:
    """A setting of a node, given or by default."""
    if key in node:
        return node[key]
    for cls in inspect.getmro(find(node["type"], registry)):
        parameter = inspect.signature(vars(cls).get("__init__", object.__init__)).parameters.get(key)
        if parameter is not None:
            return parameter.default
    raise KeyError(key)


def _nodes(path: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Path and node of everything with a type, at any depth."""
    if isinstance(value, Mapping):
        if isinstance(value.get("type"), str):
            yield path, value
        for key, part in value.items():
            yield from _nodes(f"{path}.{key}", part)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _nodes(f"{path}.{index}", part)
