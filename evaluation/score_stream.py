"""Many scenes scored as a stream: the same scorer in this process, in many, or on a Ray cluster.

Metrics, ``beyonddrive score``, mining and the scores of vocabularies all score here. Results come in the
order of the jobs and do not depend on where they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from types import TracebackType
from typing import Any, TypeVar

from beyonddrive.engine.executors import Executor, make_executor, worker_processes
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScores, Scorer

SCENES_PER_JOB = 8
"""Scenes that a worker scores at a time: enough to hide the queue, few enough to keep all workers busy."""

Scoring = TypeVar("Scoring", bound=Scorer)
Job = TypeVar("Job")
Result = TypeVar("Result")

_worker: tuple[Any, Callable[[Any, Any], Any]] | None = None


def _start_worker(scorer: Scorer, work: Callable[[Any, Any], Any]) -> None:
    global _worker
    _worker = scorer, work


def _do(job: Any) -> Any:
    assert _worker is not None, "the executor did not run the initializer"
    scorer, work = _worker
    return work(scorer, job)


def stream(
    scorer: Scoring,
    work: Callable[[Scoring, Job], Result],
    jobs: Sequence[Job],
    executor: Executor,
    desc: str = "",
) -> Generator[Result, None, None]:
    """Yield ``work(scorer, job)`` for each job, in order.

    Args:
        scorer: What scores; pickled once per worker.
        work: What to do with it, for example to write scores where they are made; pickled once per worker.
        jobs: Scenes that one worker scores one after another.
        executor: Where to run.
        desc: Label of a progress bar of the jobs; empty for none.

    Raises:
        WorkerLostError: If a worker process was killed.
    """
    yield from executor.map(_do, jobs, desc, _start_worker, (scorer, work))


def score_given(scorer: Scorer, scenes: Sequence[ScenePlans]) -> list[SceneScores]:
    """The work of a job of scenes that bring their plans."""
    return scorer.score(scenes)


def score_scenes(
    scorer: Scorer, scenes: Sequence[ScenePlans], num_workers: int = 0, desc: str = "PDM score"
) -> Generator[SceneScores, None, None]:
    """Score scenes that bring their plans.

    Args:
        scorer: Where the scenes come from and how they are scored.
        scenes: Scenes with their plans, in any order.
        num_workers: Processes; 0 or 1 scores in this process.
        desc: Label of the progress bar; empty for none.

    Yields:
        One result per scene, sorted by log, so that neighbours share what has been read.
    """
    ordered = sorted(scenes, key=lambda scene: (scene.log_name, scene.token))
    jobs: list[list[ScenePlans]] = []
    for _, group in groupby(ordered, key=lambda scene: scene.log_name):
        jobs += cut(list(group), SCENES_PER_JOB)
    for results in stream(scorer, score_given, jobs, make_executor(min(num_workers, len(jobs))), desc):
        yield from results


def cut(items: Sequence[Job], size: int) -> list[Any]:
    """Cut a sequence into runs of at most ``size`` items.

    >>> cut([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


class ScoringPool:
    """The stream for a parent that does something else meanwhile: jobs go in one by one; a context manager.

    A process that was killed ends the block by :class:`beyonddrive.engine.executors.WorkerLostError`.

    Args:
        scorer: What scores scenes; pickled once per process.
        num_workers: Processes; 0 scores in this process, at once.

    >>> class Perfect:
    ...     def score(self, scenes):
    ...         return [SceneScores(token, log, np.ones((len(plans), 7))) for token, log, plans in scenes]
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
                worker_processes(self.num_workers, _start_worker, (self._scorer, score_given))
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def submit(self, scenes: Sequence[ScenePlans]) -> Future[list[SceneScores]]:
        """Score scenes together in one process."""
        if self._processes is not None:
            return self._processes.submit(_do, list(scenes))
        future: Future[list[SceneScores]] = Future()
        future.set_result(self._scorer.score(scenes))
        return future
