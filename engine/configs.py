"""Configs: read with other values in them, and refused if they contradict themselves."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.config_files import find_config
from beyonddrive.structures.errors import BeyondDriveError

_READ_IF_THERE = (
    *("activation_checkpointing", "compile", "efficient_conv_bn_eval", "find_unused_parameters"),
    *("model_wrapper_cfg", "negative_mining", "negative_selection", "num_threads", "sync_bn"),
)
"""Settings that a config may have besides those that mmengine's runner names."""


class ConfigError(BeyondDriveError, ValueError):
    """A config or a command line asks for something that cannot be done; the message says what to change."""


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and change values in it.

    Args:
        path: Config file, or a name as :func:`~beyonddrive.engine.config_files.find_config` takes it.
        options: Values by dotted key, as ``--cfg-options`` gives them. A folder that the config defines at
            its top (a name that ends in ``_root`` or ``_dir``, such as ``data_root``) is changed wherever the
            config uses it.

    Raises:
        ConfigNameError: If there is no such config, or more than one.
        ConfigError: If it redefines a folder that its base has already used, or an option names no setting.
    """
    mmengine_compat.apply()
    path = find_config(path)
    config = Config.fromfile(str(path))
    init_default_scope(config.get("default_scope", "beyonddrive"))
    _check_folders(config, path)
    options = {key: os.fspath(v) if isinstance(v, Path) else v for key, v in (options or {}).items()}
    _check_options(config, options)
    for key, value in options.items():
        old = config.get(key) if "." not in key else None
        if isinstance(old, str) and isinstance(value, str) and key.endswith(("_root", "_dir")):
            _replace_folder(config._cfg_dict, old.rstrip("/"), value.rstrip("/") or "/")
    config.merge_from_dict(options)
    return config


def _check_folders(config: Config, path: Path) -> None:
    """Refuse a config that sets a folder of its base anew: the base has put the old one into its paths."""
    text = path.read_text() if path.suffix == ".py" else ""
    body = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    own = {target.id for node in body for target in node.targets if isinstance(target, ast.Name)}
    for name in ("data_root", "pool_dir"):
        folder = config.get(name) if {"_base_", name} <= own else None
        if isinstance(folder, str) and not any(
            _uses_folder(value, folder.rstrip("/")) for value in config.values() if not isinstance(value, str)
        ):
            raise ConfigError(
                f"{config.filename}: nothing in it reads {name} = {folder!r}, because its _base_ has already "
                f"put its own {name} into its paths; leave it out here and give --cfg-options "
                f"{name}={folder}, or set every path that shall change"
            )


def _check_options(config: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that nothing would read."""
    known = {*config, *inspect.signature(Runner.__init__).parameters, *_READ_IF_THERE} - {"self", "cfg"}
    for key in options:
        if key.partition(".")[0] not in known:
            close = difflib.get_close_matches(key.partition(".")[0], known, 1)
            raise ConfigError(
                f"--cfg-options {key}: {config.filename} has no such setting"
                + (
                    f"; did you mean {close[0]}?"
                    if close
                    else "; give the full key, such as train_cfg.max_epochs"
                )
            )


def _is_below(value: Any, folder: str) -> bool:
    return isinstance(value, str) and (value == folder or value.startswith(folder + "/"))


def _uses_folder(node: Any, folder: str) -> bool:
    """Whether a string in it is the folder or a path below it."""
    if isinstance(node, (dict, list, tuple)):
        return any(_uses_folder(v, folder) for v in (node.values() if isinstance(node, dict) else node))
    return _is_below(node, folder)


def _replace_folder(node: Any, old: str, new: str) -> None:
    """Change every string that is the folder ``old`` or a path below it, in place."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if _is_below(value, old):
            node[key] = new + value[len(old) :]
        elif isinstance(value, (dict, list)):
            _replace_folder(value, old, new)


def check_selection(config: Config) -> None:
    """Refuse a validation on the test split (METHOD, section 6, fault 3)."""
    val, test = ((config.get(f"{part}_dataloader") or {}).get("dataset", {}) for part in ("val", "test"))
    if val.get("split") is None or val.get("split") != test.get("split"):
        return
    roots = [Path(dataset.get("data_root", "")).resolve() for dataset in (val, test)]
    if roots[0] == roots[1]:
        raise ConfigError(
            f"val_dataloader reads the split '{val.get('split')}' that test_dataloader reads, so the best "
            "checkpoint would be selected on the test split; give val_dataloader.dataset another split"
        )
