"""References in configs: ``'${data_root}/maps'`` stands for what ``data_root`` is in the end.

A config that builds on another, or ``--cfg-options``, may so change a value that many places use. They are
replaced when the config has been merged. A string that is nothing but a reference may stand for any value,
``'${feature_pipeline}'`` for a list; ``'${train_dataloader.dataset.split}'`` names a value inside another.
"""

from __future__ import annotations

import copy
import difflib
import operator
import re
from typing import Any

from mmengine.config import Config, ConfigDict

from beyonddrive.structures.errors import BeyondDriveError

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")


class ConfigReferenceError(BeyondDriveError, ValueError):
    """A config refers to something that it does not set, or to itself."""


def resolve_references(config: Config) -> None:
    """Replace all references of a config, in place; does nothing the second time.

    Raises:
        ConfigReferenceError: If a reference names nothing, stands for itself, or is part of a string and
            names no string.

    >>> config = Config(dict(root='a', maps='${root}/maps', part=dict(maps='${maps}', all='${steps}')))
    >>> config.steps = [1]
    >>> resolve_references(config)
    >>> config.part
    {'maps': 'a/maps', 'all': [1]}
    """
    top = config._cfg_dict
    file = config.filename or "config"
    for key, value in list(dict.items(top)):
        if (new := _resolved(value, top, (), f"{file}: {key}")) is not value:
            top[key] = new


def leads_through_a_reference(config: Config, key: str) -> bool:
    """Whether a dotted key meets a reference on its way, so that setting it changes a copy.

    >>> config = Config(dict(step=dict(size=1), part=dict(step='${step}')))
    >>> leads_through_a_reference(config, 'part.step.size'), leads_through_a_reference(config, 'part.step')
    (True, False)
    """
    node: Any = config._cfg_dict
    for part in key.split(".")[:-1]:
        try:
            node = node[int(part) if isinstance(node, (list, tuple)) else part]
        except (KeyError, IndexError, TypeError, ValueError):
            return False  # whoever sets the key says what is wrong with it
        if isinstance(node, str):
            return _REFERENCE.fullmatch(node) is not None
    return False


def is_referred_to(node: Any, name: str) -> bool:
    """Whether a string in it refers to a setting.

    >>> is_referred_to({'maps': ['${data_root}/maps']}, 'data_root')
    True
    """
    if isinstance(node, (dict, list, tuple)):
        values = dict.values(node) if isinstance(node, dict) else node
        return any(is_referred_to(value, name) for value in values)
    return isinstance(node, str) and name in _REFERENCE.findall(node)


def _resolved(value: Any, top: ConfigDict, through: tuple[str, ...], where: str) -> Any:
    if isinstance(value, (dict, list)):
        # The plain items: those of a ConfigDict would import what a config in pure Python names.
        for key, item in list(dict.items(value) if isinstance(value, dict) else enumerate(value)):
            if (new := _resolved(item, top, through, f"{where}.{key}")) is not item:
                value[key] = new
        return value
    if isinstance(value, tuple):
        items = [_resolved(item, top, through, f"{where}.{i}") for i, item in enumerate(value)]
        return value if all(map(operator.is_, items, value)) else tuple(items)
    if not isinstance(value, str):
        return value
    if whole := _REFERENCE.fullmatch(value):
        return _followed(whole[1], top, through, where)

    def text(match: re.Match[str]) -> str:
        part = _followed(match[1], top, through, where)
        if not isinstance(part, str):
            raise ConfigReferenceError(
                f"{where} = {value!r}: {match[1]} is {part!r}, no text that could be a part of it"
            )
        return part

    return _REFERENCE.sub(text, value)


def _followed(name: str, top: ConfigDict, through: tuple[str, ...], where: str) -> Any:
    if name in through:
        raise ConfigReferenceError(f"{where}: {' -> '.join([*through, name])} stands for itself")
    return _resolved(copy.deepcopy(_named(name, top, where)), top, (*through, name), where)


def _named(name: str, top: ConfigDict, where: str) -> Any:
    node: Any = top
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            close = difflib.get_close_matches(name, list(top), 1)
            raise ConfigReferenceError(
                f"{where}: refers to {name}, which this config does not set"
                + (f"; did you mean {close[0]}?" if close else f"; set {name}, or write the value itself")
            )
        node = node[part]
    return node
