"""Cutting a scene filter by logs, so that validation has scenes of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter, SceneFilterError


def read_log_lists(path: Path) -> dict[str, list[str]]:
    """Read lists of logs by part, as in NAVSIM's ``default_train_val_test_log_split.yaml``.

    Args:
        path: yaml file with the lists ``train_logs`` and ``val_logs``.

    Raises:
        SceneFilterError: If the file is missing, lacks a list, or has a log in two of them.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values: Any = yaml.load(path.read_text(), Loader=loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SceneFilterError(f"{path}: cannot be read as yaml ({error})") from error
    lists: dict[str, list[str]] = {}
    for part in ("train", "val"):
        logs = values.get(f"{part}_logs") if isinstance(values, Mapping) else None
        if not isinstance(logs, list) or not all(isinstance(log, str) for log in logs):
            raise SceneFilterError(f"{path}: needs a list of log names under the key {part}_logs")
        for other, known in lists.items():
            if both := set(known) & set(logs):
                raise SceneFilterError(f"{path}: log {min(both)} is in {other}_logs and in {part}_logs")
        lists[part] = logs
    return lists


def restrict_to_logs(
    root: NavsimRoot, split: str, scene_filter: SceneFilter, logs: Sequence[str]
) -> SceneFilter:
    """Return the filter with only these logs, and of its tokens only those that are scenes of them.

    Logs that the filter names are kept whether or not they are there, so that what is downloaded later
    belongs to the part; ``root.problems`` says how many are not. Their tokens are in no part, for nobody
    knows them.

    Args:
        root: Data root; the logs are read to know which token is where.
        split: Split that the filter is for.
        scene_filter: What to cut.
        logs: Logs to keep, if the filter has them; of a filter that names no logs, those that are there.

    Raises:
        SceneFilterError: If no scene is left.
    """
    named = scene_filter.log_names
    allowed = {path.stem for path in root.log_paths(split)} if named is None else set(named)
    kept = sorted(allowed & set(logs))
    part = replace(scene_filter, log_names=kept)
    tokens = [ref.token for ref in root.refs(split, part)] if kept else []
    if not tokens:
        raise SceneFilterError(
            f"{root.root}: none of {len(logs)} logs has a scene of the filter in split {split}; check both"
        )
    return part if scene_filter.tokens is None else replace(part, tokens=tokens)
