"""Scenes as a worker keeps them: read once, prepared for the score, and dropped when memory is wanted."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm import MetricCache
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, SceneScores
from beyonddrive.structures.errors import describe_error


class KeptScenes:
    """Scores scenes and keeps what it read of them.

    Args:
        scorer: Where scenes come from and how they are scored.
        max_bytes: Memory for what is kept.

    Attributes:
        num_bytes: Memory that is taken.
    """

    def __init__(self, scorer: SceneScorer, max_bytes: int) -> None:
        self.scorer, self.max_bytes, self.num_bytes = scorer, max_bytes, 0
        self._kept: OrderedDict[str, tuple[MetricCache, int]] = OrderedDict()

    def __contains__(self, token: object) -> bool:
        return token in self._kept

    def score(self, token: str, log_name: str, plans: NDArray[np.float64]) -> SceneScores:
        """Scores of plans (N, 8, 3), or the reason why there are none."""
        try:
            cache = self._cache(token, log_name)
            scores = self.scorer.settings.score(cache, ScenePlans(token, log_name, plans))
            self._keep(token, cache)  # now that the score has prepared what it reads
            return scores
        except Exception as error:
            # Whatever is wrong with one scene, it is named and the worker goes on.
            return SceneScores(token, log_name, None, describe_error(error, token))

    def _cache(self, token: str, log_name: str) -> MetricCache:
        if token in self._kept:
            return self._kept[token][0]
        caches = self.scorer.open()
        return caches.get(token, log_name or caches.shard_of(token) or "")

    def _keep(self, token: str, cache: MetricCache) -> None:
        if token not in self._kept:
            size = memory_of(vars(cache))
            self._kept[token] = cache, size
            self.num_bytes += size
        self._kept.move_to_end(token)
        while self.num_bytes > self.max_bytes:
            _, (_, size) = self._kept.popitem(last=False)
            self.num_bytes -= size


def memory_of(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of all arrays in a value, each counted once.

    >>> array = np.zeros(4)
    >>> memory_of({"a": array, "b": (array, array[1:])})
    32
    """
    seen = set() if seen is None else seen
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        if id(value) in seen:
            return 0
        seen.add(id(value))
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(memory_of(item, seen) for item in value.values())
    if isinstance(value, tuple | list):
        return sum(memory_of(item, seen) for item in value)
    if hasattr(value, "__dict__"):
        return memory_of(vars(value), seen)
    return 0
