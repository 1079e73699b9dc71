"""A vocabulary planner of the Hydra-MDP kind: thousands of fixed plans, judged in the scene."""

from __future__ import annotations

from typing import Any

from beyonddrive.heads.vocabulary import VocabularyHead
from beyonddrive.plugins.planner import SensorPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class VocabularyPlanner(SensorPlanner):
    """Takes the plan of a vocabulary that scores best; our own reading of Hydra-MDP, see README.md.

    Args:
        trajectory_head: Settings of a :class:`VocabularyHead`, bare or wrapped.
        kwargs: As for :class:`SensorPlanner`.
    """

    def __init__(self, trajectory_head: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(trajectory_head=trajectory_head, **kwargs)
        bare = self.trajectory_head.bare
        if not isinstance(bare, VocabularyHead):
            raise ValueError(
                f"VocabularyPlanner: trajectory_head must be a VocabularyHead, got {type(bare).__name__}"
            )
