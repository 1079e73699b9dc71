"""Options of a command line, put into a config at the depth that their keys say."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from beyonddrive.engine.config_check import top_reader
from beyonddrive.engine.config_readers import Reader, find, reader_of
from beyonddrive.engine.config_references import leads_through_a_reference
from beyonddrive.engine.config_values import ConfigError, OptionText, is_folder, members, nearest, read_text

_PLACEHOLDER = re.compile(r"\$\{([\w.]+)\}")
_DEFAULT_TYPES = {"optim_wrapper": "OptimWrapper", "log_processor": "LogProcessor"}


def apply_options(config: Config, options: Mapping[str, Any]) -> None:
    """Change values of a config in place.

    Args:
        config: As read from its file.
        options: Values by dotted key; steps into a list are numbers. Texts of a command line are read as
            :func:`~beyonddrive.engine.config_values.read_text` says. A folder that the config defines at its
            top (a name that ends in ``_root`` or ``_dir``, such as ``data_root``) is changed wherever the
            config uses it.

    Raises:
        ConfigError: If a key leads nowhere, or nothing would read it.
    """
    # What a placeholder stands for is set first: a key that leads through one changes a copy of it.
    for key, given in sorted(options.items(), key=lambda item: leads_through_a_reference(config, item[0])):
        value = os.fspath(given) if isinstance(given, Path) else given
        _check_top(config, key)
        _check_tool_option(key, value)
        old = config.get(key) if "." not in key else None
        _set(config, config._cfg_dict, key.split("."), value, key)
        new = config.get(key) if "." not in key else None
        if isinstance(old, str) and is_folder(key):
            if not isinstance(new, str):
                raise ConfigError(f"--cfg-options {key}={new!r}: it is a text, the name of a folder")
            config[key] = new.rstrip("/") or "/"
            replace_folder(config._cfg_dict, old.rstrip("/"), config[key], keep=key)


def _check_top(config: Config, key: str) -> None:
    """Refuse a key whose first part nothing reads."""
    name = key.partition(".")[0]
    read = {*top_reader().keys, "work_dir"}
    if name in read or _is_used(config, name):
        return
    if name not in config:
        hint = nearest(name, {*read, *config})
        if not hint.startswith("did you mean"):
            hint = "give the full key, such as train_cfg.max_epochs"
        raise ConfigError(f"--cfg-options {key}: {config.filename} has no such setting; {hint}")
    copies = _places_of(config._cfg_dict, config[name])
    raise ConfigError(
        f"--cfg-options {key}: nothing reads {name} any more once {config.filename} is read"
        + (f"; its value is in {', '.join(copies)}, which can be set" if copies else "")
    )


def _check_tool_option(key: str, value: Any) -> None:
    """Refuse what a tool has its own option for, which would win."""
    if key == "launcher":
        raise ConfigError(
            f"--cfg-options launcher={value}: is not read from a config; give --launcher {value}"
        )
    if key == "resume" and str(value).lower() not in ("true", "false", "none"):
        raise ConfigError(
            f"--cfg-options resume={value}: it is true or false; to go on from a checkpoint, "
            f"give --resume {value}"
        )


def _is_used(config: Config, name: str) -> bool:
    """Whether a variable of the config still decides something: as a folder of paths, or a placeholder."""
    if name not in config:
        return False
    value = config[name]
    rest = [other for key, other in config.items() if key != name]
    folder = isinstance(value, str) and is_folder(name)
    return any(_holds(item, name, value.rstrip("/") if folder else None) for item in rest)


def _holds(node: Any, name: str, folder: str | None) -> bool:
    if isinstance(node, (dict, list, tuple)):
        return any(_holds(item, name, folder) for item in (node.values() if isinstance(node, dict) else node))
    if not isinstance(node, str):
        return False
    named = any(found.partition(".")[0] == name for found in _PLACEHOLDER.findall(node))
    return named or (folder is not None and is_below(node, folder))


def _places_of(node: Any, value: Any, path: str = "") -> list[str]:
    """Keys below the top of a config whose value is this one."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    places = []
    for key, item in items:
        where = f"{path}.{key}" if path else str(key)
        if path and item == value:
            places.append(where)
        elif isinstance(item, (dict, list, tuple)):
            places += _places_of(item, value, where)
    return places


def is_below(value: Any, folder: str) -> bool:
    """Whether a value is this folder or a path in it."""
    return isinstance(value, str) and (value == folder or value.startswith(folder + "/"))


def replace_folder(node: Any, old: str, new: str, keep: str | None = None) -> None:
    """Change every string that is the folder ``old`` or a path below it, in place."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if key != keep and is_below(value, old):
            node[key] = new + value[len(old) :]
        elif isinstance(value, (dict, list)):
            replace_folder(value, old, new)


def _set(config: Config, node: Any, keys: list[str], value: Any, option: str, part_of: Any = None) -> None:
    """Set what is at ``keys`` below a mapping or a list.

    Args:
        config: The whole, for placeholders.
        node: Where to begin.
        keys: Steps that are left.
        value: What to set.
        option: The whole key, for messages.
        part_of: What reads ``node`` if it has no type.
    """
    step: Any = keys[0]
    reader: Reader | None = None
    if isinstance(node, list):
        step = _index(node, step, option)
        old = node[step]
    else:
        old = node.get(step)
        is_top = node is config._cfg_dict
        reader = top_reader() if is_top else _reader(node, option.split(".")[-len(keys) - 1], part_of)
    if len(keys) == 1:
        node[step] = _value(value, old, reader.keys.get(step) if reader else None, option)
        return
    node[step] = _opened(config, old, keys, option, reader)
    part = reader.parts.get(step) if reader is not None else None
    _set(config, node[step], keys[1:], value, option, part if isinstance(part, type) else None)
    if isinstance(old, tuple):
        node[step] = tuple(node[step])


def _value(value: Any, old: Any, annotation: Any, option: str) -> Any:
    if isinstance(value, OptionText):
        try:
            value = read_text(value, old, annotation)
        except ConfigError as error:
            raise ConfigError(f"--cfg-options {option}={error}") from None
    if isinstance(value, Mapping):
        if not isinstance(old, dict) or value.get("_delete_"):
            return ConfigDict({key: item for key, item in value.items() if key != "_delete_"})
        return Config._merge_a_into_b(dict(value), old)
    if isinstance(value, str) and isinstance(old, (bool, int, float)) and str not in members(annotation):
        raise ConfigError(f"--cfg-options {option}={value}: the config has the number {old!r} here")
    return value


def _opened(config: Config, old: Any, keys: list[str], option: str, reader: Reader | None) -> Any:
    """The node that the next step leads into."""
    if isinstance(old, (dict, list)):
        return old
    if isinstance(old, tuple):
        return list(old)
    if isinstance(old, str) and (name := _PLACEHOLDER.fullmatch(old)) is not None:
        found: Any = config._cfg_dict
        for part in name[1].split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return _opened(config, copy.deepcopy(found), keys, option, reader)
    if old is None:
        return ConfigDict()
    if isinstance(old, str) and reader is not None and "path" in reader.part_keys(keys[0]):
        return ConfigDict(path=old)  # a file, with some of its settings changed
    done = ".".join(option.split(".")[: -len(keys) + 1])
    raise ConfigError(f"--cfg-options {option}: {done} is {old!r}, and has no settings below it")


def _index(node: list[Any], step: str, option: str) -> int:
    if not step.lstrip("-").isdigit() or not -len(node) <= int(step) < len(node):
        raise ConfigError(
            f"--cfg-options {option}: '{step}' is no item of a list of {len(node)}; give a number from 0 to "
            f"{len(node) - 1}"
        )
    return int(step)


def _reader(node: Mapping[str, Any], name: str, part_of: Any = None) -> Reader | None:
    target = find(node.get("type", part_of or _DEFAULT_TYPES.get(name)), None)
    return None if target is None else reader_of(target)
