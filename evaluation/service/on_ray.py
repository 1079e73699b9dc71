"""Ray actors as the backend of a scoring service, for scorers on other machines; needs the extra ``ray``.

Not by ``ray.util.ActorPool``, which does not say whose answer is missing when an actor is lost, and cannot
take another one into its place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, SceneScores
from beyonddrive.evaluation.service.backends import Answer, Backend, Loss
from beyonddrive.evaluation.service.scenes import KeptScenes
from beyonddrive.evaluation.service.settings import ServiceSettings


class _Actor:
    """What runs on the cluster; plans come and scores go through Ray's object store."""

    def __init__(self, scorer: SceneScorer, cache_bytes: int) -> None:
        self.scenes = KeptScenes(scorer, cache_bytes)

    def score(self, token: str, log_name: str, plans: NDArray[np.floating]) -> tuple[SceneScores, bool]:
        was_kept = token in self.scenes
        return self.scenes.score(token, log_name, np.array(plans, np.float64)), was_kept


class RayBackend(Backend):
    """Actors of a Ray cluster.

    Args:
        scorer: Where scenes come from and how they are scored; its paths must be there on every machine.
        settings: Of the service.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(self, scorer: SceneScorer, settings: ServiceSettings) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("a scoring service on Ray needs it: pip install 'beyonddrive[ray]'") from error
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
            cores = settings.num_workers if settings.ray_address is None else None
            ray.init(address=settings.ray_address, num_cpus=cores, log_to_driver=False)
        self._ray = ray
        self._args = scorer, settings.cache_bytes // settings.num_workers
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, tuple[int, int, ScenePlans]] = {}

    def start(self, worker: int) -> None:
        """Start an actor."""
        if worker in self._actors:
            self._ray.kill(self._actors[worker])
        self._actors[worker] = self._ray.remote(_Actor).options(num_cpus=1).remote(*self._args)

    def ask(self, worker: int, slot: int, scene: ScenePlans) -> None:
        """Hand a scene to an actor."""
        reference = self._actors[worker].score.remote(*scene)
        self._asked[reference] = worker, slot, scene

    def wait(self, timeout: float | None) -> list[Answer | Loss]:
        """Answers of all actors that have one."""
        references = list(self._asked)
        if not references:
            return []
        done, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
        if done:  # whatever else is there
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        events: list[Answer | Loss] = []
        lost: dict[int, str] = {}
        for reference in done:
            worker, slot, _ = self._asked[reference]
            if worker in lost:
                continue
            try:
                scores, was_kept = self._ray.get(reference)
            except self._ray.exceptions.RayActorError as error:
                lost[worker] = f"was lost ({' '.join(str(error).split())[:200]})"
                continue
            del self._asked[reference]
            events.append(Answer(worker, slot, scores, was_kept))
        self._asked = {ref: asked for ref, asked in self._asked.items() if asked[0] not in lost}
        # An actor whose constructor fails looks the same as one that is killed over a scene.
        return [*events, *(Loss(worker, reason, True) for worker, reason in lost.items())]

    def close(self) -> None:
        """End all actors, and the cluster if it was started here."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors, self._asked = {}, {}
        if self._owns_cluster:
            self._ray.shutdown()
