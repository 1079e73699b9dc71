"""What a run of a driver leaves behind: a line per plan while it runs, and a report, fallbacks first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.frame import DrivenPlan, DriverReport

LOG, REPORT = "driver_log.jsonl", "driver.json"


class RunReport:
    """The account of a run.

    Args:
        folder: Where the two files go; None keeps the account in memory.
        about: What was driven and how, as JSON.
    """

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.sessions: dict[str, DriverReport] = {}
        self.ended: dict[str, str] = {}
        self.trouble = ""
        """Why the run ended early; empty if it did not."""
        self._path = None if folder is None else folder / REPORT
        self._log: TextIO | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._log = (folder / LOG).open("w", buffering=1)  # (a killed driver leaves what it had)

    def __enter__(self) -> RunReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.trouble:
            self.trouble = f"{type(error).__name__}: {error}"
        self.close()

    def planned(self, session: str, time: float, plan: DrivenPlan, seconds: float) -> None:
        """Note a plan: when it was for, where it came from, and how long it took."""
        if self._log is not None:
            line = {
                "session": session,
                "time": time,
                "source": plan.source,
                "reason": plan.reason,
                "seconds": round(seconds, 4),
                "plan": plan.poses.round(4).tolist(),
            }
            self._log.write(json.dumps(line) + "\n")

    def session_ended(self, session: str, report: DriverReport, why: str) -> None:
        """Note the end of a session."""
        self.sessions[session], self.ended[session] = report, why

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "fallbacks": sum(report.fallbacks for report in self.sessions.values()),
            "plans": sum(_plans(report) for report in self.sessions.values()),
            "trouble": self.trouble,
            "sessions": {
                name: {**report.to_dict(), "ended": self.ended[name]}
                for name, report in self.sessions.items()
            },
            **self.about,
        }

    def headline(self) -> str:
        """One line, fallbacks first, or else what plans were made from that was not as it should be."""
        made = self.to_dict()
        kinds: Counter[str] = Counter()
        for report in self.sessions.values():
            kinds.update(report.troubles)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
        text = f"{made['plans']} plans in {len(self.sessions)} session(s)"
        if made["fallbacks"]:
            text = f"FALLBACKS: {made['fallbacks']} of {text} are not the planner's ({counts})"
        elif counts:
            text = f"TROUBLES: {counts}; {text}, all of the planner"
        return f"{text}; ended early: {self.trouble}" if self.trouble else text

    def close(self) -> None:
        """Write the report."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._path is not None:
            write_atomically(self._path, (json.dumps(self.to_dict(), indent=1) + "\n").encode())


def _plans(report: DriverReport) -> int:
    return report.counts.get("inference", 0) + report.fallbacks
