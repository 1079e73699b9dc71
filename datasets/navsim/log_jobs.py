"""What stores with one shard per log have in common: which logs to go through, and what became of it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
from beyonddrive.datasets.navsim.scene_filter import SceneFilter


@dataclass
class CacheReport:
    """What a run that fills a store did.

    Attributes:
        num_scenes: Scenes that the store now holds.
        num_new_logs: Logs that were gone through in this run; the others were there.
        failures: Scene token -> why it could not be made.
        problems: Logs that could not be read, and whatever else was passed over.
    """

    num_scenes: int = 0
    num_new_logs: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.failures and not self.problems


class LogJob(NamedTuple):
    """A log and the scenes wanted of it; None for all that the scene filter keeps."""

    path: Path
    refs: tuple[SceneRef, ...] | None


def log_jobs(root: NavsimRoot, split: str, scene_filter: SceneFilter) -> list[LogJob]:
    """Logs to go through; they are read here only if the filter cannot be applied to one log alone.

    Raises:
        NavsimRootError: If there is no such split.
    """
    if scene_filter.max_scenes is None:
        return [LogJob(path, None) for path in root.filtered_logs(split, scene_filter)]
    by_log: dict[Path, list[SceneRef]] = {}
    for ref in root.refs(split, scene_filter):
        by_log.setdefault(ref.log_path, []).append(ref)
    return [LogJob(path, tuple(refs)) for path, refs in by_log.items()]


def missing_tokens(scene_filter: SceneFilter, present: Container[str]) -> list[str]:
    """A line if tokens of the filter are no scenes, once all logs have been gone through."""
    if scene_filter.max_scenes is not None:
        return []
    missing = [token for token in scene_filter.tokens or () if token not in present]
    if not missing:
        return []
    return [f"{len(missing)} tokens of the scene filter are no scene of the split, such as {min(missing)}"]
