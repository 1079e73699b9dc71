"""Scoring of proposals in worker processes, beside a generator that keeps the device busy."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Protocol

from beyonddrive.engine.executors import end_with_parent
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScores


class ScoringError(RuntimeError):
    """A scoring process was lost."""


class Scorer(Protocol):
    """Scores plans by scene, such as :class:`beyonddrive.evaluation.scene_scoring.SceneScorer`."""

    def score(self, job: Sequence[ScenePlans]) -> list[SceneScores]:
        """Score scenes; one that cannot be scored gives a reason instead."""
        ...


class ScoringPool:
    """Processes that score scenes while their parent does something else; a context manager.

    Args:
        scorer: What scores scenes; pickled once per process.
        num_workers: Processes; 0 scores in this process, at once.

    >>> class Perfect:
    ...     def score(self, job):
    ...         return [SceneScores(token, log, np.ones((len(plans), 7))) for token, log, plans in job]
    >>> import numpy as np
    >>> with ScoringPool(Perfect(), num_workers=0) as pool:
    ...     result_of(pool.submit([ScenePlans('a', 'log', np.zeros((2, 8, 3)))]))[0].values.shape
    (2, 7)
    """

    def __init__(self, scorer: Scorer, num_workers: int) -> None:
        if num_workers < 0:
            raise ValueError(f"ScoringPool: num_workers must not be negative, got {num_workers}")
        self.num_workers = num_workers
        self._scorer = scorer
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> ScoringPool:
        if self.num_workers:
            # A fork would copy the locks of torch's threads and the state of its device.
            self._processes = ProcessPoolExecutor(
                self.num_workers, multiprocessing.get_context("spawn"), _start_worker, (self._scorer,)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes is not None:
            self._processes.shutdown(wait=True, cancel_futures=True)

    def submit(self, job: Sequence[ScenePlans]) -> Future[list[SceneScores]]:
        """Score scenes together in one process.

        Raises:
            ScoringError: If a process died.
        """
        if self._processes is not None:
            try:
                return self._processes.submit(_score_in_worker, list(job))
            except BrokenProcessPool as error:
                raise _lost_worker() from error
        future: Future[list[SceneScores]] = Future()
        future.set_result(self._scorer.score(job))
        return future


def result_of(future: Future[list[SceneScores]]) -> list[SceneScores]:
    """Wait for submitted scenes.

    Raises:
        ScoringError: If a process died.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _lost_worker() from error


def _lost_worker() -> ScoringError:
    return ScoringError(
        "a scoring process was killed, most likely for lack of memory; run the same command again to resume, "
        "with fewer --num-workers"
    )


_worker_scorer: Scorer | None = None


def _start_worker(scorer: Scorer) -> None:
    global _worker_scorer
    _worker_scorer = scorer
    end_with_parent()


def _score_in_worker(job: list[ScenePlans]) -> list[SceneScores]:
    assert _worker_scorer is not None
    return _worker_scorer.score(job)
