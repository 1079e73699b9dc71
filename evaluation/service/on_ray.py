"""Ray actors as the backend of a scoring service, for scorers on other machines; needs the extra ``ray``.

Not by ``ray.util.ActorPool``, which does not say whose answer is missing when an actor is lost, and cannot
take another one into its place.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.executors import connected_ray
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, SceneScores
from beyonddrive.evaluation.service.backends import Answer, Backend, Loss
from beyonddrive.evaluation.service.scenes import KeptScenes
from beyonddrive.evaluation.service.settings import ServiceSettings

logger = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds after which an actor that has not started is told of; again after twice, four times as many, ..."""
_COLOURS = re.compile(r"\x1b\[\d+m")
_SHOWN = 200
"""Characters of the first and of the last line of what Ray says of an actor."""


class _Actor:
    """What runs on the cluster; plans come and scores go through Ray's object store."""

    def __init__(self, scorer: SceneScorer, cache_bytes: int, niceness: int) -> None:
        os.nice(max(niceness - os.nice(0), 0))  # (Ray starts its workers with a niceness of its own)
        self.scenes = KeptScenes(scorer, cache_bytes)

    def is_ready(self) -> bool:
        return True

    def score(self, token: str, log_name: str, plans: NDArray[np.floating]) -> tuple[SceneScores, bool]:
        was_kept = token in self.scenes
        return self.scenes.score(token, log_name, np.array(plans, np.float64)), was_kept


@dataclass
class _Start:
    """An actor that is still to start: what it will answer first, since when, and when to speak of it [s]."""

    answer: Any
    since: float
    next_word: float


class Cluster:
    """A Ray cluster that this process is in: before, or from now on until :meth:`close`.

    Args:
        address: Address of the cluster; None takes the one this process is in, or starts one here.
        num_cpus: Cores of one that is started here.
        user: Who needs it.

    Attributes:
        ray: The module.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at that address.
    """

    def __init__(self, address: str | None, num_cpus: int, user: str) -> None:
        known = sys.modules.get("ray")
        self._is_own = known is None or not known.is_initialized()
        self.ray: Any = connected_ray(address, num_cpus, user)

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here; one that was there before is left alone."""
        if self._is_own and self.ray.is_initialized():
            self.ray.shutdown()
        self._is_own = False


class RayBackend(Backend):
    """Actors of a Ray cluster, each with a CPU of it.

    An actor that the cluster has no room for is waited for, as it may grow; the log says so after half a
    minute, and again. Whatever Ray says of an actor other than an answer counts as its loss. Plans wait in
    Ray's object store: no memory is shared, and ``settings.max_plans`` is but a limit. Ray does not know of
    ``settings.cache_bytes``, and kills actors when the memory of their machine runs out.

    Args:
        scorer: Where scenes come from and how they are scored; its paths must be there on every machine.
        settings: Of the service; actors are at least as nice as ``niceness``.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at that address.
    """

    def __init__(self, scorer: SceneScorer, settings: ServiceSettings) -> None:
        self._cluster = Cluster(settings.ray_address, settings.num_workers, "a scoring service with on_ray")
        self._ray = self._cluster.ray
        self._args = scorer, settings.cache_bytes // settings.num_workers, settings.niceness
        self._actors: dict[int, Any] = {}
        self._starting: dict[int, _Start] = {}
        self._asked: dict[Any, tuple[int, int, ScenePlans]] = {}

    def start(self, worker: int) -> None:
        """Start an actor."""
        if worker in self._actors:
            self._ray.kill(self._actors[worker])
        actor = self._ray.remote(_Actor).options(num_cpus=1).remote(*self._args)
        now = time.monotonic()
        self._actors[worker] = actor
        self._starting[worker] = _Start(actor.is_ready.remote(), now, now + _PATIENCE)

    def ask(self, worker: int, slot: int, scene: ScenePlans) -> None:
        """Hand a scene to an actor."""
        reference = self._actors[worker].score.remote(*scene)
        self._asked[reference] = worker, slot, scene

    def wait(self, timeout: float | None) -> list[Answer | Loss]:
        """Answers of all actors that have one."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            moments = [start.next_word for start in self._starting.values()]
            moments += [] if end is None else [end]
            events = self._read(max(min(moments) - time.monotonic(), 0.0) if moments else None)
            self._tell_who_has_not_started()
            if events or not self._asked or (end is not None and time.monotonic() >= end):
                return events

    def _read(self, timeout: float | None) -> list[Answer | Loss]:
        references = [*(start.answer for start in self._starting.values()), *self._asked]
        if not references:
            return []
        done, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
        if done:  # whatever else is there
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        arrived = set(done)
        lost: dict[int, Loss] = {}
        for worker, start in list(self._starting.items()):
            if start.answer in arrived:
                del self._starting[worker]
                try:
                    self._ray.get(start.answer)
                except self._ray.exceptions.RayError as error:
                    lost[worker] = Loss(worker, _how(error), had_started=False)
        answers: list[Answer | Loss] = []
        for reference in [reference for reference in self._asked if reference in arrived]:
            worker, slot, _ = self._asked[reference]
            if worker not in lost:
                try:
                    scores, was_kept = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    lost[worker] = Loss(worker, _how(error), worker not in self._starting)
                else:
                    del self._asked[reference]
                    answers.append(Answer(worker, slot, scores, was_kept))
        self._asked = {ref: asked for ref, asked in self._asked.items() if asked[0] not in lost}
        return [*answers, *lost.values()]

    def _tell_who_has_not_started(self) -> None:
        now = time.monotonic()
        for worker, start in self._starting.items():
            if now >= start.next_word:
                start.next_word = now + (now - start.since)
                logger.warning(
                    "scoring service: Ray has not started scorer %d for %.0f s, and its scenes wait; each of "
                    "%d takes a CPU, and the cluster has %g, of which %g are free: give it more, or the "
                    "service fewer num_workers",
                    worker,
                    now - start.since,
                    len(self._actors),
                    self._ray.cluster_resources().get("CPU", 0.0),
                    self._ray.available_resources().get("CPU", 0.0),
                )

    def close(self) -> None:
        """End all actors, and the cluster if it was started here."""
        if self._ray.is_initialized():  # it may have ended before; asking it would start another one
            for actor in self._actors.values():
                self._ray.kill(actor)
        self._cluster.close()
        self._actors, self._starting, self._asked = {}, {}, {}


def _how(error: Exception) -> str:
    lines = _COLOURS.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    shown = dict.fromkeys((lines[0].strip()[:_SHOWN], lines[-1].strip()[:_SHOWN]))
    return f"was lost ({' ... '.join(shown)})"
