"""The scorer next to a running training: plans of scenes in, futures of their sub-scores out."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm import EPDMS_COLUMNS
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, SceneScores
from beyonddrive.evaluation.service.backends import Answer, Backend, Loss
from beyonddrive.evaluation.service.errors import ScenesNotScoredError, ScorerLostError, ScoringServiceError
from beyonddrive.evaluation.service.processes import ProcessBackend
from beyonddrive.evaluation.service.settings import ServiceSettings
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS, PlanError

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_FALSE_STARTS = 2
"""So often a worker may die before it has started; then nothing helps."""


@dataclass
class ServiceCounts:
    """What a service has done.

    Attributes:
        scenes: Scenes that were scored, or have a reason why not.
        plans: Their plans.
        kept: Those whose metric cache a worker still had.
        waits: Calls that had to wait because ``max_pending`` scenes were pending.
        waited_seconds: How long these, and those who asked for scores that were not there, have waited.
        restarts: Workers that died and were started again.
    """

    scenes: int = 0
    plans: int = 0
    kept: int = 0
    waits: int = 0
    waited_seconds: float = 0.0
    restarts: int = 0


class ScoreFuture(Future[Result]):
    """Scores to come; asked for by whoever wants them, in any thread.

    ``result`` waits for them, ``done`` looks. Both let the service read what its workers have answered, which
    nothing does in the background: wait by them, not by :func:`concurrent.futures.wait`.
    """

    def __init__(
        self, service: ScoringService, count: int, finish: Callable[[list[SceneScores]], Result]
    ) -> None:
        super().__init__()
        self._service, self._finish = service, finish
        self._scenes: list[SceneScores | None] = [None] * count
        self._missing = count
        if not count:
            self._complete()

    def done(self) -> bool:
        """Whether the scores are there."""
        if not super().done():
            self._service.poll()
        return super().done()

    def result(self, timeout: float | None = None) -> Result:
        """The scores.

        Raises:
            TimeoutError: If they are not there after so many seconds.
            ScoringServiceError: If there are none.
        """
        self._service.wait_for(self, timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Why there are no scores; None if there are."""
        self._service.wait_for(self, timeout)
        return super().exception(0)

    def is_settled(self) -> bool:
        """Whether the scores are there, without looking."""
        return super().done()

    def put(self, position: int, scene: SceneScores) -> None:
        """Take in the scores of one scene."""
        self._scenes[position] = scene
        self._missing -= 1
        if not self._missing and not super().done():
            self._complete()

    def _complete(self) -> None:
        try:
            self.set_result(self._finish([scene for scene in self._scenes if scene is not None]))
        except ScoringServiceError as error:
            self.set_exception(error)


@dataclass
class _Job:
    """A scene on its way: whose it is, and how many workers have died over it."""

    scene: ScenePlans
    future: ScoreFuture[Any]
    position: int
    deaths: int = 0


@dataclass
class _Lane:
    """The slots of a worker, in the order in which they were filled."""

    free: list[int]
    jobs: dict[int, _Job] = field(default_factory=dict)
    false_starts: int = 0


class ScoringService:
    """Scores plans in worker processes next to a running training; a context manager.

    Workers open the store of metric caches themselves and keep what they read; plans and scores travel by
    shared memory. A scene belongs to the worker that its token says, and its scores do not depend on who
    made them, nor when. At most ``settings.max_pending`` scenes are pending: who hands in more waits, which
    is counted and logged once. A worker that dies is started again and asked again, once for each scene.

    Workers end with the service, with the process, or within a second after the process was killed.

    Args:
        scorer: Where scenes come from and how they are scored; a store of metric caches spares the work on
            logs and maps.
        settings: How many workers, and what they may hold.

    Attributes:
        counts: What it has done.
        columns: Names of the scores of a plan.

    Raises:
        ValueError: If the scorer is asked for more than scores and failure times.
        StoreError: If the store is missing, of another split, or older than its logs and maps.
    """

    def __init__(self, scorer: SceneScorer, settings: ServiceSettings | None = None) -> None:
        asked = scorer.settings
        if asked.with_failures or asked.with_motion:
            raise ValueError("scoring service: gives scores and failure times, no failures and no motion")
        scorer.open()  # so that a wrong path is found here and now
        self.scorer, self.settings = scorer, settings or ServiceSettings()
        self.columns = SCORE_COLUMNS if asked.version == "v1" else EPDMS_COLUMNS
        self.counts = ServiceCounts()
        self._lock = threading.RLock()
        self._lanes: list[_Lane] = []
        self._backend: Backend | None = None
        self._has_warned = False
        self._finalizer: Callable[[], object] = lambda: None

    # ------------------------------------------------------------------ life
    def start(self) -> ScoringService:
        """Start the workers; they get ready while the training does."""
        if self._backend is None:
            settings = self.settings
            self._backend = _make_backend(self.scorer, len(self.columns), settings)
            # Runs when this process ends or forgets the service; not in one that was forked from it.
            self._finalizer = weakref.finalize(self, _close_in, os.getpid(), self._backend)
            self._lanes = [_Lane(list(range(settings.depth))[::-1]) for _ in range(settings.num_workers)]
            for worker in range(settings.num_workers):
                self._backend.start(worker)
        return self

    def close(self) -> None:
        """End the workers; what is pending has no scores."""
        with self._lock:
            self._finalizer()
            self._backend = None
            self._fail([job for lane in self._lanes for job in lane.jobs.values()], "the service was closed")
            self._lanes = []

    def __enter__(self) -> ScoringService:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether it has workers."""
        return self._backend is not None

    @property
    def process_ids(self) -> list[int]:
        """Worker processes of this machine; none on Ray."""
        return self._backend.process_ids if isinstance(self._backend, ProcessBackend) else []

    # ------------------------------------------------------------------ plans in
    def submit(self, tokens: Sequence[str], plans: Any) -> ScoreFuture[NDArray[np.float64]]:
        """Score plans of a batch of scenes.

        Args:
            tokens: B scene tokens.
            plans: (B, N, 8, 3) array or tensor: x [m], y [m], heading [rad] of the rear axle every 0.5 s in
                the ego frame now. From a GPU they are copied, which waits for it.

        Returns:
            A future of (B, N, columns) float64. Its ``result`` raises :class:`ScenesNotScoredError` if a
            scene cannot be scored, and :class:`ScorerLostError` if workers die over one.

        Raises:
            PlanError: If the plans have another shape.
            ScoringServiceError: If the service is not running.
        """
        if hasattr(plans, "detach"):
            plans = plans.detach().double().cpu().numpy()
        plans = np.asarray(plans)
        if plans.ndim != 4 or len(plans) != len(tokens):
            raise PlanError(
                f"scoring service: plans of {len(tokens)} scenes must have shape ({len(tokens)}, N, "
                f"{NUM_POSES}, 3), got {plans.shape}"
            )
        width = plans.shape[1], len(self.columns)
        scenes = [ScenePlans(token, "", some) for token, some in zip(tokens, plans, strict=True)]
        return self._hand_in(scenes, lambda scored: _stack(scored, width))

    def submit_scenes(self, scenes: Sequence[ScenePlans]) -> ScoreFuture[list[SceneScores]]:
        """Score scenes with plans of their own number; one that cannot be scored gives a reason instead.

        Raises:
            PlanError, ScoringServiceError: As :meth:`submit`.
        """
        return self._hand_in(scenes, list)

    def _hand_in(
        self, scenes: Sequence[ScenePlans], finish: Callable[[list[SceneScores]], Result]
    ) -> ScoreFuture[Result]:
        for token, _, plans in scenes:
            if plans.ndim != 3 or plans.shape[1:] != (NUM_POSES, 3) or plans.dtype.kind not in "fiu":
                raise PlanError(
                    f"{token}: plans must be numbers of shape (N, {NUM_POSES}, 3), got {plans.dtype} of "
                    f"shape {plans.shape}"
                )
            if len(plans) > self.settings.max_plans:
                raise PlanError(
                    f"{token}: {len(plans)} plans, the scoring service takes {self.settings.max_plans} of "
                    f"a scene; raise its max_plans"
                )
        with self._lock:
            self.poll()
            future = ScoreFuture(self, len(scenes), finish)
            started = None
            for position, scene in enumerate(scenes):
                worker = zlib.crc32(scene.token.encode()) % self.settings.num_workers
                while not self._lanes[worker].free:
                    started = started or self._begin_to_wait()
                    self._pump(None)
                self._ask(worker, _Job(scene, future, position))
            if started:
                self.counts.waited_seconds += time.perf_counter() - started
        return future

    def _begin_to_wait(self) -> float:
        self.counts.waits += 1
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "scoring service: %d scenes are pending, the step waits; more num_workers with a max_pending "
                "that grows with them, or fewer plans, would help (said once, counted from here on)",
                sum(len(lane.jobs) for lane in self._lanes),
            )
        return time.perf_counter()

    def _ask(self, worker: int, job: _Job) -> None:
        lane = self._lanes[worker]
        slot = lane.free.pop()
        lane.jobs[slot] = job
        self._running().ask(worker, slot, job.scene)

    # ------------------------------------------------------------------ scores out
    def poll(self) -> None:
        """Take in what the workers have answered, without waiting, also for a thread that does so now.

        Raises:
            ScoringServiceError: If the service is not running.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._pump(0.0)
            finally:
                self._lock.release()

    def wait_for(self, future: ScoreFuture[Any], timeout: float | None = None) -> None:
        """Take in answers until a future is settled.

        Raises:
            TimeoutError: If it is not after so many seconds; with 0 it looks once.
        """
        if future.is_settled():
            return
        asked = time.perf_counter()
        # (a thread that waits for other scores takes in these, too)
        if not self._lock.acquire(timeout=-1.0 if timeout is None else max(timeout, 0.0)):
            if future.is_settled():
                return
            raise TimeoutError(f"scoring service: no scores after {timeout} s")
        try:
            started = time.perf_counter()
            left = None if timeout is None else max(timeout - (started - asked), 0.0)
            while not future.is_settled():
                if left is not None and left < 0.0:
                    raise TimeoutError(f"scoring service: no scores after {timeout} s")
                self._pump(left)
                left = None if timeout is None else timeout - (time.perf_counter() - asked)
            self.counts.waited_seconds += time.perf_counter() - started
        finally:
            self._lock.release()

    def _pump(self, timeout: float | None) -> None:
        for event in self._running().wait(timeout):
            if isinstance(event, Answer):
                self._take(event)
            else:
                self._replace(event)

    def _take(self, answer: Answer) -> None:
        lane = self._lanes[answer.worker]
        job = lane.jobs.pop(answer.slot)
        lane.free.append(answer.slot)
        lane.false_starts = 0
        self.counts.scenes += 1
        self.counts.plans += len(job.scene.plans)
        self.counts.kept += answer.was_kept
        job.future.put(job.position, answer.scores)

    def _replace(self, loss: Loss) -> None:
        """Start a worker again and ask it again; the scene that has cost two workers is given up."""
        lane, backend = self._lanes[loss.worker], self._running()
        lane.false_starts = 0 if loss.had_started else lane.false_starts + 1
        if lane.false_starts >= _FALSE_STARTS:
            reason = f"scorer process {loss.worker} {loss.reason}, twice before it had started"
            self._fail([job for each in self._lanes for job in each.jobs.values()], reason)
            self.close()
            raise ScoringServiceError(f"scoring service: {reason}")
        self.counts.restarts += 1
        jobs = list(lane.jobs.values())
        lane.free, lane.jobs = list(range(self.settings.depth))[::-1], {}
        if jobs and loss.had_started:
            jobs[0].deaths += 1  # scenes are scored in their order
            if jobs[0].deaths > 1:
                self._fail([jobs.pop(0)], f"its scorer process {loss.reason}; so did the one asked before")
        again = f", and asked again for scene {jobs[0].scene.token}" if jobs else ""
        logger.warning("scorer process %d %s; it is started again%s", loss.worker, loss.reason, again)
        backend.start(loss.worker)
        for job in jobs:
            self._ask(loss.worker, job)

    @staticmethod
    def _fail(jobs: Sequence[_Job], reason: str) -> None:
        for job in jobs:
            if not job.future.is_settled():
                token = job.scene.token
                job.future.set_exception(ScorerLostError(f"scene {token} has no scores: {reason}"))

    def _running(self) -> Backend:
        if self._backend is None:
            raise ScoringServiceError("scoring service: is not running; use it in a with block, or start it")
        return self._backend


def _make_backend(scorer: SceneScorer, columns: int, settings: ServiceSettings) -> Backend:
    if settings.on_ray:
        from beyonddrive.evaluation.service.on_ray import RayBackend

        return RayBackend(scorer, settings)
    return ProcessBackend(scorer, columns, settings)


def _close_in(process: int, backend: Backend) -> None:
    if os.getpid() == process:
        backend.close()


def _stack(scenes: list[SceneScores], width: tuple[int, int]) -> NDArray[np.float64]:
    """Scores (B, N, columns) of a batch.

    Raises:
        ScenesNotScoredError: If a scene has none.
    """
    reasons = {scene.token: scene.reason for scene in scenes if scene.values is None}
    if reasons:
        raise ScenesNotScoredError(reasons)
    values = [scene.values for scene in scenes if scene.values is not None]
    return np.stack(values) if values else np.empty((0, *width))
