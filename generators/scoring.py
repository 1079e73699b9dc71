"""Scoring of proposals in worker processes, beside a generator that keeps the device busy."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from types import TracebackType

from beyonddrive.engine.executors import worker_processes
from beyonddrive.evaluation.scene_scoring import (
    ScenePlans,
    SceneScores,
    Scorer,
    score_in_worker,
    start_worker,
)


class ScoringPool:
    """Processes that score scenes while their parent does something else; a context manager.

    A process that was killed ends the block by :class:`beyonddrive.engine.executors.WorkerLostError`.

    Args:
        scorer: What scores scenes; pickled once per process.
        num_workers: Processes; 0 scores in this process, at once.

    >>> class Perfect:
    ...     def score(self, job):
    ...         return [SceneScores(token, log, np.ones((len(plans), 7))) for token, log, plans in job]
    >>> import numpy as np
    >>> with ScoringPool(Perfect(), num_workers=0) as pool:
    ...     pool.submit([ScenePlans('a', 'log', np.zeros((2, 8, 3)))]).result()[0].values.shape
    (2, 7)
    """

    def __init__(self, scorer: Scorer, num_workers: int) -> None:
        if num_workers < 0:
            raise ValueError(f"ScoringPool: num_workers must not be negative, got {num_workers}")
        self.num_workers = num_workers
        self._scorer = scorer
        self._stack = ExitStack()
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> ScoringPool:
        if self.num_workers:
            self._processes = self._stack.enter_context(
                worker_processes(self.num_workers, start_worker, (self._scorer,))
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def submit(self, job: Sequence[ScenePlans]) -> Future[list[SceneScores]]:
        """Score scenes together in one process."""
        if self._processes is not None:
            return self._processes.submit(score_in_worker, list(job))
        future: Future[list[SceneScores]] = Future()
        future.set_result(self._scorer.score(job))
        return future
