"""What a run of a driver leaves behind: a line per plan while it runs, and a report, fallbacks first."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.frame import DrivenPlan, DriverReport

logger = logging.getLogger(__name__)

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
        self.log_ended = ""
        """Why there are no more lines in the log; empty if there are."""
        self._lock = threading.Lock()
        self._path = None if folder is None else folder / REPORT
        self._log: TextIO | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            # (a report of an earlier run beside the log of this one, if it is killed, would pass for its own)
            (folder / REPORT).unlink(missing_ok=True)
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
        """Note a plan: when it was for (NaN if nobody knows), where it came from, and how long it took.

        Raises nothing: a simulator waits for the plan, and not for its line. Several threads may call it.
        """
        line = {
            "session": session,
            "time": time if math.isfinite(time) else None,
            "source": plan.source,
            "reason": plan.reason,
            "seconds": round(seconds, 4),
            "plan": plan.poses.round(4).tolist(),
        }
        text = json.dumps(line) + "\n"
        with self._lock:
            if self._log is None:
                return
            try:
                self._log.write(text)
            except OSError as error:  # (such as a full disk)
                self.log_ended = describe_error(error)
                logger.warning("%s: no more lines: %s", LOG, self.log_ended)
                self._close_log()

    def session_ended(self, session: str, report: DriverReport, why: str) -> None:
        """Note the end of a session; one that has the name of an earlier one gets a number."""
        with self._lock:
            name, number = session, 1
            while name in self.sessions:
                number += 1
                name = f"{session} ({number})"
            self.sessions[name], self.ended[name] = report, why

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "fallbacks": sum(report.fallbacks for report in self.sessions.values()),
            "plans": sum(_plans(report) for report in self.sessions.values()),
            "trouble": self.trouble,
            **({"log_ended": self.log_ended} if self.log_ended else {}),
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
        with self._lock:
            self._close_log()
        if self._path is not None:
            write_atomically(self._path, (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            with suppress(OSError):  # (what could not be written is tried again)
                log.close()


def _plans(report: DriverReport) -> int:
    return report.counts.get("inference", 0) + report.fallbacks
