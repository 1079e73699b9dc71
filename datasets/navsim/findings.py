"""Findings of a look at data: what is wrong where, how grave it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning"]


class FindingKind(NamedTuple):
    """A kind of finding: ``error`` costs scenes or numbers, ``warning`` is what one should know."""

    severity: Severity
    title: str
    remedy: str


_RESTORE = "restore the file from the data set"
KINDS = {
    "log": FindingKind("error", "logs that cannot be read", "restore the log from the data set"),
    "token-twice": FindingKind(
        "error", "tokens that are there twice", "take one of the two logs out of the split"
    ),
    "image": FindingKind("error", "images missing, truncated or damaged", _RESTORE),
    "sweep": FindingKind("error", "sweeps missing or short", f"{_RESTORE}, or use a planner without LiDAR"),
    "pose": FindingKind("error", "poses that are no numbers", "leave the scenes around this frame out"),
    "ego-state": FindingKind("error", "ego states that are no numbers", "leave the scene of this frame out"),
    "camera": FindingKind("error", "calibrations that are no numbers", "leave the scene of this frame out"),
    "objects": FindingKind(
        "error", "annotations that cannot be used", "leave the scenes around this frame out"
    ),
    "map": FindingKind(
        "error", "map locations without a map", "get the maps (download_maps), or correct map_location"
    ),
    "route-off-map": FindingKind(
        "error", "routes that leave the map", "get the map in the version that the log was recorded with"
    ),
    "ego-off-map": FindingKind(
        "error", "poses far from any road", "check map_location and the version of the map"
    ),
    "time-gap": FindingKind(
        "warning",
        "steps that are not half a second",
        "leave scenes across the gap out; EPDMS knows no neighbour there",
    ),
    "no-future": FindingKind(
        "warning",
        "tracks without a future",
        "nothing needs doing; the score takes an object of a single frame for a standing one",
    ),
    "log-name": FindingKind(
        "warning", "logs under another name", "rename the file: devkit and scene filters go by names"
    ),
    "short-log": FindingKind("warning", "logs too short for a scene", "none, unless frames were lost"),
}
"""Every kind by its name, in the order of a table."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in one log.

    Attributes:
        kind: A name out of :data:`KINDS`.
        log: Name of the log.
        key: Key of the frame that holds it.
        message: What is wrong.
        frames: Indices of the frames that have it; empty for what is of the whole log.
        token: Token of the first of them.
    """

    kind: str
    log: str
    key: str
    message: str
    frames: tuple[int, ...] = ()
    token: str = ""

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity

    @property
    def remedy(self) -> str:
        """What to do."""
        return KINDS[self.kind].remedy

    def __str__(self) -> str:
        """One line.

        >>> print(Finding("ego-state", "one", "ego_dynamic_state", "is not finite", (4, 5), "ab"))
        one, frame 4 (ab) and 1 more, ego_dynamic_state: is not finite; leave the scene of this frame out
        """
        where = self.log
        if self.frames:
            where += f", frame {self.frames[0]} ({self.token})"
            where += f" and {len(self.frames) - 1} more" if len(self.frames) > 1 else ""
        return f"{where}, {self.key}: {self.message}; {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with severity and remedy."""
        return {
            "kind": self.kind, "severity": self.severity, "log": self.log, "key": self.key,
            "message": self.message, "frames": list(self.frames), "token": self.token, "remedy": self.remedy,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`."""
        return cls(
            values["kind"], values["log"], values["key"], values["message"], tuple(values["frames"]),
            values["token"],
        )  # fmt: skip


@dataclass
class FindingBook:
    """Findings of one log as they come up; those that differ only by their frames become one.

    Attributes:
        log: Name of the log.
    """

    log: str
    _frames: dict[tuple[str, str, str], list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, kind: str, key: str, message: str, index: int | None = None, token: str = "") -> None:
        """Note a finding, of a frame or of the whole log."""
        frames = self._frames.setdefault((kind, key, message), [])
        if index is not None:
            frames.append((index, token))

    def findings(self) -> list[Finding]:
        """What was noted, in the order in which it came up first."""
        return [
            Finding(kind, self.log, key, message, tuple(i for i, _ in frames), frames[0][1] if frames else "")
            for (kind, key, message), frames in self._frames.items()
        ]


def count_kinds(findings: Iterable[Finding]) -> dict[str, tuple[int, int]]:
    """Kind -> how many findings, and how many logs have one; in the order of :data:`KINDS`."""
    counts: dict[str, int] = {}
    logs: dict[str, set[str]] = {}
    for finding in findings:
        counts[finding.kind] = counts.get(finding.kind, 0) + max(len(finding.frames), 1)
        logs.setdefault(finding.kind, set()).add(finding.log)
    return {kind: (counts[kind], len(logs[kind])) for kind in KINDS if kind in counts}
