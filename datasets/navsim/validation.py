"""Looking at all logs of a split, in processes; a killed job goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from beyonddrive.datasets.navsim.findings import Finding, FindingBook, count_kinds
from beyonddrive.datasets.navsim.log_health import HealthSettings, LogHealth, examine_log
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.executors import Executor, SerialExecutor
from beyonddrive.engine.files import LockedError, file_lock, write_atomically
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.version import __version__

_OF_OTHER_FILES = frozenset({"image", "sweep", "map", "route-off-map", "ego-off-map"})
"""Kinds of findings that may be gone though the log is as it was."""


class ValidationError(BeyondDriveError, RuntimeError):
    """A look at a split cannot be begun; the message names the file and the remedy."""


@dataclass(frozen=True)
class SplitHealth:
    """What was found in a split.

    Attributes:
        split: Its name.
        num_logs: Logs that were looked at.
        num_frames: Frames in those that can be read.
        num_blobs: Sensor files that were looked at.
        findings: What is wrong, log by log.
        scenes: Tokens of the scenes of :attr:`HealthSettings.needed_by`.
    """

    split: str
    num_logs: int
    num_frames: int
    num_blobs: int
    findings: tuple[Finding, ...]
    scenes: frozenset[str] = field(default=frozenset(), repr=False)

    def count(self, severity: str) -> int:
        """Findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        kinds = count_kinds(self.findings).items()
        return {
            "split": self.split, "num_logs": self.num_logs, "num_frames": self.num_frames,
            "num_sensor_files": self.num_blobs,
            "kinds": {kind: {"count": count, "logs": logs} for kind, (count, logs) in kinds},
            "findings": [finding.to_json() for finding in self.findings],
        }  # fmt: skip


def validate_split(
    root: NavsimRoot,
    split: str,
    settings: HealthSettings,
    executor: Executor | None = None,
    parts: Path | None = None,
    logs: Sequence[Path] | None = None,
) -> SplitHealth:
    """Look at the logs of a split.

    Args:
        root: The data root.
        split: Name of the split.
        settings: What is looked at.
        executor: Where to run; None is this process.
        parts: Folder that what is found in a log is kept in until the caller deletes it: a job that is begun
            again looks at a log only once, unless the log or the settings have changed, or something was
            wrong with its sensor files or map, which may have come since.
        logs: Some of the logs of the split; None for all.

    Raises:
        NavsimRootError: If there is no such split.
    """
    paths = root.log_paths(split) if logs is None else list(logs)
    examine = _Examine(settings, parts)
    results = (executor or SerialExecutor()).map(examine, paths, desc=f"logs of {split}")
    findings: list[Finding] = []
    log_of: dict[str, str] = {}
    scenes: set[str] = set()
    num_frames = num_blobs = 0
    for path, health in zip(paths, results, strict=True):
        findings += health.findings
        scenes.update(health.scenes)
        num_frames += len(health.tokens)
        num_blobs += health.num_blobs
        book = FindingBook(path.stem)
        for index, token in enumerate(health.tokens):
            if (other := log_of.setdefault(token, path.stem)) != path.stem:
                book.add("token-twice", "token", f"is also in log {other}", index, token)
        findings += book.findings()
    return SplitHealth(split, len(paths), num_frames, num_blobs, tuple(findings), frozenset(scenes))


def absent_scenes(scene_filter: SceneFilter, scenes: Collection[str], logs: Collection[str]) -> list[str]:
    """What a scene filter names that is not there, or that it keeps nothing at all, in a line each.

    Args:
        scene_filter: The filter.
        scenes: Tokens of its scenes that were found.
        logs: Names of the logs that were looked at.

    >>> absent_scenes(SceneFilter(tokens=["a", "b"]), ["a"], ["log"])
    ['1 of 2 tokens of the scene filter are no scene, such as b']
    """
    lines = []
    # (with a limit, that tokens are left out is what was asked for)
    tokens = scene_filter.tokens if scene_filter.max_scenes is None else None
    for what, named, there in (
        ("logs of the scene filter are not there", scene_filter.log_names, logs),
        ("tokens of the scene filter are no scene", tokens, scenes),
    ):
        if missing := set(named or ()).difference(there):
            lines.append(f"{len(missing)} of {len(set(named or ()))} {what}, such as {min(missing)}")
    if not lines and not scenes:
        lines.append("no window is a scene of the scene filter")
    return lines


@contextmanager
def kept_parts(out: Path | None) -> Iterator[Path | None]:
    """Folder for the parts of a report beside it, deleted once the block ends without an error.

    Raises:
        ValidationError: If another job is writing the same report.
    """
    if out is None:
        yield None
        return
    try:
        with file_lock(out.with_name(f".{out.name}.lock"), wait=False):
            parts = out.with_name(f".{out.name}.parts")
            yield parts
            shutil.rmtree(parts, ignore_errors=True)
    except LockedError as error:
        raise ValidationError(f"{out}: another job is writing this file; give --out another name") from error


@dataclass(frozen=True)
class _Examine:
    """The work on one log: look at it, or read what an earlier run has found."""

    settings: HealthSettings
    parts: Path | None

    def __call__(self, path: Path) -> LogHealth:
        if self.parts is None:
            return examine_log(path, self.settings)
        try:
            state = path.stat()
        except OSError:  # such as a link to nowhere
            return examine_log(path, self.settings)
        made_from = [__version__, repr(self.settings), str(path), state.st_size, state.st_mtime_ns]
        name = blake2b(json.dumps(made_from).encode(), digest_size=16).hexdigest()
        part = self.parts / f"{name}.json"
        try:
            values = json.loads(part.read_text())
            found = tuple(Finding.from_json(finding) for finding in values["findings"])
            if not any(finding.kind in _OF_OTHER_FILES for finding in found):
                return LogHealth(tuple(values["tokens"]), found, values["num_blobs"], tuple(values["scenes"]))
        except (OSError, ValueError, KeyError):
            pass
        health = examine_log(path, self.settings)
        findings = [finding.to_json() for finding in health.findings]
        values = {
            "tokens": health.tokens, "num_blobs": health.num_blobs, "findings": findings,
            "scenes": health.scenes,
        }  # fmt: skip
        write_atomically(part, json.dumps(values).encode(), sync=False)
        return health
