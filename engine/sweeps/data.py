"""What a training read, by the records that its starts left beside their logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beyonddrive.engine.hooks.run_record import RECORD
from beyonddrive.structures.digests import digest_of

_OF_DATA = ("type", "split", "scenes", "tokens", "digest")
_OF_STORES = ("kind", "records", "digest")
"""Keys of fingerprints that tell contents apart; the others tell how they were read."""


def data_of(work_dir: Path, checkpoint: Path) -> str | None:
    """Digest of what the training of a checkpoint read: scenes, files, stores such as pools, first weights.

    It is the same wherever the files lie and whenever they were written. A training that went on with other
    data than it began with has a digest of its own.

    Args:
        work_dir: Of the training.
        checkpoint: One that it left. Starts that are later did nothing for it; of several that began at one
            step the last one made what came next.

    Returns:
        The digest; None if no start told what it read.
    """
    starts: dict[int, Any] = {}
    weights: list[str] = []
    saved = checkpoint.stat().st_mtime_ns
    for path in sorted(work_dir.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime_ns):
        told = _read(path)
        if path.stat().st_mtime_ns <= saved and told.get("data"):
            starts[told.get("first_step", 1)] = [_contents(data) for data in told["data"]]
            if told.get("load_from"):  # (one that was killed and goes on does not read them again)
                weights = [told["load_from"].get("sha256", "")]
    parts = [starts[step] for step in sorted(starts)]
    distinct = [part for index, part in enumerate(parts) if part not in parts[:index]]
    return digest_of([*distinct, *weights]) if distinct else None


def _contents(data: Mapping[str, Any]) -> list[Any]:
    stores = [[store.get(key) for key in _OF_STORES] for store in data.get("stores", ())]
    return [*(data.get(key) for key in _OF_DATA), stores]


def _read(path: Path) -> dict[str, Any]:
    """A start's record; nothing of one that cannot be read."""
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
