"""What a service needs of whoever scores: processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScores


class Answer(NamedTuple):
    """Scores of the scene in a slot of a worker; ``was_kept`` says that its metric cache was at hand."""

    worker: int
    slot: int
    scores: SceneScores
    was_kept: bool


class Loss(NamedTuple):
    """A worker that is gone, how, and whether it had got so far as to score."""

    worker: int
    reason: str
    had_started: bool


class Backend(ABC):
    """Workers by number, each with slots of a scene."""

    @abstractmethod
    def start(self, worker: int) -> None:
        """Start a worker, anew if it is gone."""

    @abstractmethod
    def ask(self, worker: int, slot: int, scene: ScenePlans) -> None:
        """Hand a scene to a worker; a worker that is gone is told of by the next :meth:`wait`."""

    @abstractmethod
    def wait(self, timeout: float | None) -> list[Answer | Loss]:
        """What has become of scenes and workers; waits for it at most so many seconds, None: for ever."""

    @abstractmethod
    def close(self) -> None:
        """End the workers and give back their memory."""
