"""Two-stage scores of one plan per scene (EPDMS_TWO_STAGE): scenes in processes, then the table of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.follow_ups import FollowUpRoot
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
from beyonddrive.engine.executors import Executor
from beyonddrive.evaluation.pdm.cache.two_stage import build_two_stage_scene, end_points
from beyonddrive.evaluation.pdm.scores.two_stage import (
    SceneResult,
    TwoStageScores,
    read_groups,
    two_stage_score,
)
from beyonddrive.structures.errors import describe_error


@dataclass(frozen=True, eq=False)
class TwoStageData:
    """Where the scenes of both stages are.

    Attributes:
        split: Which scenes, and their pairs.
        data_root: Folder of logs and maps.
        scenes_dir: Folder of the follow-up scenes.
        maps_root: Folder of the maps; ``data_root/maps`` if None.
        data_split: Split of the logs; that of the split file if empty.
    """

    split: TwoStageSplit
    data_root: Path
    scenes_dir: Path
    maps_root: Path | None = None
    data_split: str = ""

    @property
    def logs(self) -> str:
        """Split of the logs."""
        return self.data_split or self.split.data_split


class SceneOutcome(NamedTuple):
    """What a scene adds to the run, or why it adds nothing."""

    token: str
    result: SceneResult | None
    reason: str = ""


@dataclass
class TwoStageRun:
    """What came of the plans.

    Attributes:
        scores: Scores of the run; None if a scene has none, because then there is no score at all.
        failures: Token -> why it has no score.
    """

    scores: TwoStageScores | None
    failures: dict[str, str] = field(default_factory=dict)


def score_run(data: TwoStageData, plans: Mapping[str, NDArray[Any]], executor: Executor) -> TwoStageRun:
    """Score a plan (8, 3) per scene.

    Args:
        data: Where the scenes are.
        plans: Plans of original and follow-up scenes, by token. Groups of which no scene has a plan are left
            out, as the official code does.
        executor: Where to run.

    Raises:
        TwoStageError: If scenes of a group are missing, or the table of pairs is wrong.
        NavsimRootError: If a folder is missing.
    """
    groups = read_groups(data.split.pairs, str(data.split.path))
    root = NavsimRoot(data.data_root, data.maps_root)
    follow_ups = FollowUpRoot(data.scenes_dir, maps_root=root.maps_root)
    wanted = [token for group in groups for token in group.tokens if token in plans]
    failures: dict[str, str] = {}
    jobs: list[Sequence[SceneRef]] = []
    by_log: dict[Path, list[SceneRef]] = {}
    missing = set(wanted)
    for ref in root.refs(data.logs, data.split.scene_filter):
        if ref.token in missing:
            by_log.setdefault(ref.log_path, []).append(ref)
            missing.discard(ref.token)
    jobs += by_log.values()
    second = set(data.split.second)
    for token in wanted:
        if token in second:
            path = follow_ups.root / f"{token}.pkl"
            jobs.append([SceneRef(token, path, 0, 0)])
            missing.discard(token)
    for token in missing:
        failures[token] = f"no window of split {data.logs} in {root.root} has this current frame"
    results: dict[str, SceneResult] = {}
    work = _Work(root, follow_ups, frozenset(second), data.logs, plans)
    for outcomes in executor.map(_do, jobs, "two-stage scores", _start_worker, (work,)):
        for outcome in outcomes:
            if outcome.result is None:
                failures[outcome.token] = outcome.reason
            else:
                results[outcome.token] = outcome.result
    if failures:
        return TwoStageRun(None, {token: failures[token] for token in wanted if token in failures})
    return TwoStageRun(two_stage_score(results, groups))


@dataclass(frozen=True, eq=False)
class _Work:
    """Scores the scenes of one log, or one follow-up scene."""

    root: NavsimRoot
    follow_ups: FollowUpRoot
    second: frozenset[str]
    split: str
    plans: Mapping[str, NDArray[Any]]

    def score(self, refs: Sequence[SceneRef]) -> list[SceneOutcome]:
        """Outcomes in the order of the scenes."""
        return [self._score(ref) for ref in refs]

    def _score(self, ref: SceneRef) -> SceneOutcome:
        """Whatever is wrong with one scene of thousands, it is named and the rest goes on."""
        try:
            source = self.follow_ups if ref.token in self.second else self.root
            scene = source.load(ref, self.split)
            built = build_two_stage_scene(scene, self.root.map(scene.map_location))
            plan = np.asarray(self.plans[ref.token])[None]
            scores = built.score(plan)[0]
            end = end_points(built, plan)[0]
            return SceneOutcome(
                ref.token,
                SceneResult(
                    scores.values[0, :8],
                    scores.simulated[0],
                    built.time_us * 1e-6,
                    end,
                    built.ego_state[:2],
                ),
            )
        except Exception as error:
            return SceneOutcome(ref.token, None, describe_error(error, ref.token))


_work: _Work | None = None


def _start_worker(work: _Work) -> None:
    global _work
    _work = work


def _do(refs: Sequence[SceneRef]) -> list[SceneOutcome]:
    assert _work is not None, "the executor did not run the initializer"
    return _work.score(refs)
