"""Configs: read with other values in them, and refused if they contradict themselves."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from beyonddrive.engine import config_bases, mmengine_compat
from beyonddrive.engine.config_check import check_config
from beyonddrive.engine.config_files import find_config
from beyonddrive.engine.config_options import apply_options, is_below
from beyonddrive.engine.config_references import is_referred_to, resolve_references
from beyonddrive.engine.config_values import ConfigError, is_folder
from beyonddrive.engine.wrapped_datasets import unwrapped_settings

__all__ = ["ConfigError", "check_selection", "load_config"]


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and change values in it; then ``'${name}'`` becomes the value of ``name``.

    Args:
        path: Config file, or a name as :func:`~beyonddrive.engine.config_files.find_config` takes it. Its
            bases may set the same things; the last one wins.
        options: Values by dotted key, as ``--cfg-options`` gives them; see
            :func:`~beyonddrive.engine.config_options.apply_options`.

    Raises:
        ConfigNameError: If there is no such config, or more than one.
        ConfigError: If it cannot be read, it redefines a folder that its base has already used, or a key or
            value in it or in the options is not what its reader takes.
    """
    mmengine_compat.apply()
    config_bases.apply()
    path = find_config(path)
    config = _read(path)
    init_default_scope(config.get("default_scope", "beyonddrive"))
    _check_folders(config, path)
    change_config(config, options or {})
    return config


def change_config(config: Config, options: Mapping[str, Any]) -> None:
    """Change values in a config; then ``'${name}'`` becomes the value of ``name``, and all of it is checked.

    Args:
        config: The config, changed in place.
        options: Values by dotted key, as for :func:`load_config`.

    Raises:
        ConfigError: If a key or value in it or in the options is not what its reader takes.
    """
    apply_options(config, options)
    resolve_references(config)
    check_config(config)


def _read(path: Path) -> Config:
    try:
        return Config.fromfile(str(path))
    except SyntaxError as error:
        where = error.filename if error.filename and Path(error.filename).is_file() else path
        raise ConfigError(f"{where}: line {error.lineno} is no Python ({error.msg})") from error
    except Exception as error:  # whatever the file does
        raise ConfigError(f"{path}: cannot be read as a config: {type(error).__name__}: {error}") from error


def _check_folders(config: Config, path: Path) -> None:
    """Refuse a config that sets a folder of its base anew: the base has put the old one into its paths."""
    text = path.read_text() if path.suffix == ".py" else ""
    body = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    own = {target.id for node in body for target in node.targets if isinstance(target, ast.Name)}
    for name in sorted(own) if "_base_" in own else ():
        folder = config.get(name) if is_folder(name) else None
        if isinstance(folder, str) and not (
            is_referred_to(config._cfg_dict, name)
            or any(_uses_folder(v, folder.rstrip("/")) for v in config.values() if not isinstance(v, str))
        ):
            raise ConfigError(
                f"{config.filename}: nothing in it reads {name} = {folder!r}, because its _base_ has already "
                f"put its own {name} into its paths; leave it out here and give --cfg-options "
                f"{name}={folder}, or set every path that shall change"
            )


def _uses_folder(node: Any, folder: str) -> bool:
    """Whether a string in it is the folder or a path below it."""
    if isinstance(node, (dict, list, tuple)):
        return any(_uses_folder(v, folder) for v in (node.values() if isinstance(node, dict) else node))
    return is_below(node, folder)


def check_selection(config: Config) -> None:
    """Refuse a validation on the test split (METHOD, section 6, fault 3)."""
    val, test = (
        {
            (Path(dataset.get("data_root", "")).resolve(), dataset["split"])
            for dataset in unwrapped_settings((config.get(f"{part}_dataloader") or {}).get("dataset", {}))
            if dataset.get("split") is not None
        }
        for part in ("val", "test")
    )
    for _, split in val & test:
        raise ConfigError(
            f"val_dataloader reads the split '{split}' that test_dataloader reads, so the best "
            "checkpoint would be selected on the test split; give val_dataloader.dataset another split"
        )
