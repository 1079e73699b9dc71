"""Scores of plans by token, wherever in a split their scenes are."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from beyonddrive.datasets.navsim.logs import LogError
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.executors import Executor, SerialExecutor
from beyonddrive.evaluation.pdm.scores.scorer import Progress, Version
from beyonddrive.evaluation.scene_scoring import LogScores, SceneScorer, SceneScores, ScoreSettings
from beyonddrive.evaluation.score_stream import cut, stream

TOKENS_PER_JOB = 32
"""Scenes whose metric caches are there that a worker scores at a time."""
_SHOWN = 3


@dataclass(frozen=True)
class SplitScores:
    """Scores of a split.

    Attributes:
        values: Token -> (N, 7) float64 in the order of
            :data:`beyonddrive.structures.plan.SCORE_COLUMNS`, or (N, 9) for EPDMS, in the order of the plans.
        failures: Token -> why it has no scores.
        problems: What else was passed over: logs that cannot be read.
    """

    values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class SplitScoring:
    """Scoring of plans of many scenes of a split, as a stream.

    A scene that cannot be scored does not stop the others. Logs are read one at a time per worker and only
    until every token is found.

    Args:
        root: Where logs and maps are.
        split: Name of the split.
        plans: Token of a scene -> (N, 8, 3). The token is that of any frame with 3 frames before and 10 after
            it in its log. Sent to every worker, so use :class:`beyonddrive.evaluation.plan_files.PlanFile`
            for many plans.
        settings: What is computed.
        cache_dir: Folder that metric caches are read from, and that those which have to be built are added
            to; several jobs may fill one folder.

    Attributes:
        failures: Token -> why it has no scores; complete when :meth:`run` is through.
        problems: What else was passed over: logs that cannot be read.

    Raises:
        NavsimRootError: If there is no such split.
        StoreError: If ``cache_dir`` holds something else, or caches of another split or version.
    """

    def __init__(
        self,
        root: NavsimRoot,
        split: str,
        plans: Mapping[str, ArrayLike],
        settings: ScoreSettings | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self.root, self.split, self.plans = root, split, plans
        self.logs = root.log_paths(split)
        self.scorer = SceneScorer(
            split,
            cache_dir,
            root.root,
            root.maps_root,
            settings or ScoreSettings(),
            plans,
            cache_dir is not None,
        )
        self.scorer.open()
        self.failures: dict[str, str] = {}
        self.problems: list[str] = []
        self._open: set[str] = set()
        self._cut_off: dict[str, str] = {}
        self._unread: list[Path] = []

    def run(
        self, executor: Executor | None = None, done: Container[str] = (), progress_bar: bool = True
    ) -> Iterator[SceneScores]:
        """Score the scenes.

        Args:
            executor: Where to run; None is this process.
            done: Tokens that are not scored again.
            progress_bar: Whether to show progress, rate and time left.

        Yields:
            Scores of each scene that has some, in no particular order.
        """
        executor = executor or SerialExecutor()
        self._open = {token for token in self.plans if token not in done}
        caches = self.scorer.open()
        known = sorted((shard, token) for token in self._open if (shard := caches.shard_of(token)))
        jobs = [
            [token for _, token in part]
            for _, shard in groupby(known, key=lambda item: item[0])
            for part in cut(list(shard), TOKENS_PER_JOB)
        ]
        with tqdm(
            desc=f"scores of {self.split}",
            total=len(self.plans),
            initial=len(self.plans) - len(self._open),
            unit="scene",
            disable=not progress_bar,
            dynamic_ncols=True,
        ) as bar:
            for results in stream(self.scorer, SceneScorer.score_stored, jobs, executor):
                yield from self._closed(results, bar)
            if self._open:
                search = _Search(frozenset(self._open))
                with closing(stream(self.scorer, search, self.logs, executor)) as found:
                    for path, scores in zip(self.logs, found, strict=False):
                        yield from self._found(path, scores, bar)
                        if not self._open:
                            break
            bar.update(len(self._open))
        self._give_reasons()

    def _found(self, path: Path, scores: LogScores | str, bar: tqdm[Any]) -> Iterator[SceneScores]:
        if isinstance(scores, str):
            self.problems.append(scores)
            self._unread.append(path)
            return
        # A window that is cut off in one log may be whole in another one.
        self._cut_off |= scores.cut_off
        yield from self._closed(scores.results, bar)

    def _closed(self, results: Sequence[SceneScores], bar: tqdm[Any]) -> Iterator[SceneScores]:
        """Results of scenes that have none yet; those without scores are kept as failures."""
        for result in results:
            if result.token not in self._open:
                continue
            self._open.remove(result.token)
            bar.update()
            if result.values is None:
                self.failures[result.token] = result.reason
            else:
                yield result

    def _give_reasons(self) -> None:
        """Say of scenes that were not found why, and put all failures in the order of the plans."""
        reason = f"no frame of split {self.split} in {self.root.root} has this token"
        if self._unread:
            # (why is said once, in the problems)
            names = ", ".join(path.name for path in self._unread[:_SHOWN])
            more = ", ..." if len(self._unread) > _SHOWN else ""
            reason += f"; it may be in a log that cannot be read ({names}{more})"
        for token in self._open:
            self.failures[token] = self._cut_off.get(token, reason)
        failures = self.failures
        self.failures = {token: failures[token] for token in self.plans if token in failures}


@dataclass(frozen=True)
class _Search:
    """The work of a log in which scenes may be: which ones."""

    wanted: frozenset[str]

    def __call__(self, scorer: SceneScorer, path: Path) -> LogScores | str:
        """Scores of those that are in the log, or why it cannot be read."""
        try:
            return scorer.score_log(path, self.wanted)
        except LogError as error:
            return str(error)


def score_split(
    root: NavsimRoot,
    split: str,
    plans: Mapping[str, ArrayLike],
    progress: Progress = "pair",
    executor: Executor | None = None,
    cache_dir: Path | None = None,
    progress_bar: bool = True,
    version: Version = "v1",
    human_filter: bool = True,
) -> SplitScores:
    """Score plans of many scenes of a split and keep all scores in memory; see :class:`SplitScoring`.

    Args:
        root: Where logs and maps are.
        split: Name of the split.
        plans: Token of a scene -> (N, 8, 3).
        progress: See :func:`beyonddrive.evaluation.pdm.scores.scorer.score`.
        executor: Where to run; None is this process.
        cache_dir: Folder that metric caches are kept in.
        progress_bar: Whether to show progress, rate and time left.
        version: ``v1`` is the PDM score, ``v2`` the one-stage EPDMS.
        human_filter: Do not charge a plan with what the human driver fails as well; EPDMS only.

    Raises:
        NavsimRootError: If there is no such split.
        StoreError: If ``cache_dir`` holds something else, or caches of another split or version.
    """
    settings = ScoreSettings(progress, version, human_filter)
    scoring = SplitScoring(root, split, plans, settings, cache_dir)
    values = {}
    for result in scoring.run(executor, progress_bar=progress_bar):
        assert result.values is not None
        values[result.token] = result.values
    ordered = {token: values[token] for token in plans if token in values}
    return SplitScores(ordered, scoring.failures, scoring.problems)
