"""What is computed for a scene so that every basis can be made of it: once, in worker processes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.follow_ups import FollowUpRoot
from beyonddrive.datasets.navsim.logs import LogError
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.datasets.navsim.synthetic import SyntheticScene
from beyonddrive.datasets.navsim.two_stage_split import NUM_FUTURE_FRAMES
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.evaluation.pdm.cache.two_stage import Policy, build_two_stage_scene, end_points
from beyonddrive.evaluation.pdm.scores.two_stage import Group
from beyonddrive.evaluation.score_labels import Basis
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.plan import PlanError, check_plans

POLICIES: Mapping[str, Policy] = {"logged": "replay", "reactive": "reactive"}
"""What the traffic of a basis is called where it is simulated."""
MOTION = (2, 5, 6)
"""Columns of the simulated states that extended comfort reads: heading, and acceleration along both axes."""


class SceneRecord(NamedTuple):
    """What is known of a scene.

    Attributes:
        token: The scene.
        log_name: Its log.
        arrays: ``pdms`` (N, 7); ``logged`` and ``reactive`` (N, 8) sub-scores before the human filter;
            ``logged_human`` and ``reactive_human`` (8,) of the driver; ``motion`` (N, 41, 3); ``time`` ()
            [s]; ``end`` (N, 2), where plans end; ``start`` (2,), where the ego is. What was not asked for, or
            failed, is not there.
        reasons: Name of each array of scores that is not there although it was asked for -> why.
        window_end: Token of the last frame of the original scene's window; of a follow-up, of the window that
            it says it follows. Empty if the scene cannot be read.
    """

    token: str
    log_name: str
    arrays: dict[str, NDArray[np.float64]]
    reasons: dict[str, str]
    window_end: str = ""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays for a store."""
        about = {"log": self.log_name, "reasons": self.reasons, "window_end": self.window_end}
        return {**self.arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, token: str, arrays: Mapping[str, NDArray[Any]]) -> SceneRecord:
        """Inverse of :meth:`to_arrays`."""
        about = json.loads(np.asarray(arrays["about"]).tobytes())
        kept = {name: np.asarray(array) for name, array in arrays.items() if name != "about"}
        return cls(token, about["log"], kept, about["reasons"], about["window_end"])


class LogRecords(NamedTuple):
    """What was found in a log, or why it cannot be read."""

    records: list[SceneRecord]
    problem: str = ""


@dataclass
class SceneWork:
    """Makes the records of scenes; pickled once per worker.

    Args:
        root: Logs and maps.
        split: Split of the logs.
        plans: Token -> plans (N, 8, 3).
        source: What they are called in messages.
        num_plans: N, the same for all scenes.
        bases: What the records are for.
        wanted: Original scenes.
        follow_ups: Follow-up scenes, if there are any.
    """

    root: NavsimRoot
    split: str
    plans: Mapping[str, NDArray[Any]]
    source: str
    num_plans: int
    bases: tuple[Basis, ...]
    wanted: frozenset[str] = frozenset()
    follow_ups: FollowUpRoot | None = None

    def of_log(self, path: Path) -> LogRecords:
        """Records of the original scenes that are in a log."""
        records = []
        try:
            for token, scene in self.root.log_scenes(path, self.split, self.wanted, NUM_FUTURE_FRAMES):
                records.append(self._record(token, path.stem, scene, False))
        except LogError as error:
            return LogRecords([], str(error))
        return LogRecords(records)

    def of_follow_ups(self, tokens: Iterable[str]) -> LogRecords:
        """Records of follow-up scenes."""
        assert self.follow_ups is not None
        records = []
        for token in tokens:
            path = self.follow_ups.path_of(token)
            try:
                scene: Scene | Exception = self.follow_ups.load(SceneRef(token, path, 0, HISTORY))
            except Exception as error:
                scene = error
            records.append(self._record(token, path.stem, scene, True))
        return LogRecords(records)

    def _record(self, token: str, log_name: str, scene: Scene | Exception, is_follow_up: bool) -> SceneRecord:
        """Whatever is wrong with one scene of thousands, it is named and the rest goes on."""
        parts = parts_of(self.bases, is_follow_up)
        try:
            if isinstance(scene, Exception):
                raise scene
            plans = self._plans(token)
        except Exception as error:
            return SceneRecord(token, log_name, {}, dict.fromkeys(parts, describe_error(error, token)))
        record = SceneRecord(token, scene.log_name, {}, {}, _window_end(scene))
        if "pdms" in parts and plans is not None:
            try:
                cache = build_metric_cache(scene, self.root.map(scene.map_location))
                record.arrays["pdms"] = score(cache, plans).values
            except Exception as error:
                record.reasons["pdms"] = describe_error(error, token)
        if extended := [part for part in parts if part != "pdms"]:
            self._add_extended(record, scene, plans, extended)
        return record

    def _add_extended(
        self, record: SceneRecord, scene: Scene, plans: NDArray[np.float64] | None, parts: list[str]
    ) -> None:
        try:
            built = build_two_stage_scene(scene, self.root.map(scene.map_location))
        except Exception as error:
            record.reasons.update(dict.fromkeys(parts, describe_error(error, record.token)))
            return
        record.arrays["time"] = np.array(built.time_us * 1e-6)
        record.arrays["start"] = built.ego_state[:2].copy()
        if plans is None:
            return
        for part in parts:
            try:
                values, states = built.sub_scores(plans, POLICIES[part])
                if not built.is_synthetic:
                    record.arrays[f"{part}_human"] = built.human_scores(POLICIES[part])
            except Exception as error:
                record.reasons[part] = describe_error(error, record.token)
                continue
            record.arrays[part] = values
            record.arrays["motion"] = np.ascontiguousarray(states[..., MOTION])
            record.arrays["end"] = end_points(built, plans)

    def _plans(self, token: str) -> NDArray[np.float64] | None:
        """The plans of a scene; None if it has none and counts as 0."""
        if token not in self.plans:
            return None
        plans = check_plans(self.plans[token], token)
        if len(plans) != self.num_plans:
            raise PlanError(
                f"{token}: has {len(plans)} plans, the first scene of {self.source} has "
                f"{self.num_plans}; a run needs the same number for every scene"
            )
        return plans


def parts_of(bases: Iterable[Basis], is_follow_up: bool) -> list[str]:
    """Arrays of scores that a scene needs for some bases: ``pdms``, ``logged``, ``reactive``."""
    needed = [basis for basis in bases if basis.stages == 2 or not is_follow_up]
    names = ["pdms" if basis.score == "PDMS" else basis.traffic for basis in needed]
    return list(dict.fromkeys(names))


def listed(
    records: Mapping[str, SceneRecord], groups: Iterable[Group], log_names: Collection[str] | None
) -> Mapping[str, SceneRecord]:
    """Records of a two-stage split: scenes that do not belong to it have no scores (EPDMS_TWO_STAGE, 1.3).

    Those are scenes of logs that it does not name, and follow-ups of windows that are not its own.

    Args:
        records: Scene -> what is known of it.
        groups: Groups of which scenes are scored.
        log_names: Logs that the split names; None for any.
    """
    groups = list(groups)
    ends = {t: records[t].window_end for group in groups for t in (group.now, group.previous) if t in records}
    windows = frozenset(ends.values())
    reasons: dict[str, str] = {}
    for group in groups:
        if not (ends.get(group.now) and ends.get(group.previous)):
            continue  # (an original scene that cannot be read leaves the group out as a whole)
        for token in (token for pair in group.pairs for token in pair if token in records):
            if (end := records[token].window_end) not in windows:
                reasons[token] = (
                    f"it follows a window that ends with frame {end} (corresponding_original_scene), and no "
                    "original scene of the split has that one: get the file again"
                )
    if log_names is not None:
        names = frozenset(log_names)
        for token, record in records.items():
            if record.log_name not in names:
                reasons[token] = f"its log {record.log_name} is not among log_names of the two-stage split"
    return {
        token: record._replace(arrays={}, reasons=dict.fromkeys(POLICIES, reasons[token]))
        if record.arrays and token in reasons
        else record
        for token, record in records.items()
    }


def _window_end(scene: Scene) -> str:
    if isinstance(scene, SyntheticScene):
        return scene.origin
    last = HISTORY - 1 + NUM_FUTURE_FRAMES
    return str(scene.frames[last]["token"]) if last < len(scene.frames) else ""


# ------------------------------------------------------------------ in a worker
_work: SceneWork | None = None


class SceneJob(NamedTuple):
    """A log, or follow-up scenes."""

    path: Path | None = None
    follow_ups: tuple[str, ...] = ()


def start_worker(work: SceneWork) -> None:
    """Take the work of this process."""
    global _work
    _work = work


def do(job: SceneJob) -> LogRecords:
    """Make records."""
    assert _work is not None, "the executor did not run the initializer"
    return _work.of_follow_ups(job.follow_ups) if job.path is None else _work.of_log(job.path)
