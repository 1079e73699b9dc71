"""A vocabulary planner of the Hydra-MDP kind: thousands of fixed plans, judged in the scene."""

from __future__ import annotations

from beyonddrive.plugins.base.head_planner import SensorPlanner
from beyonddrive.plugins.hydra_mdp.head import VocabularyHead
from beyonddrive.registry import MODELS


@MODELS.register_module()
class VocabularyPlanner(SensorPlanner):
    """Takes the plan of a vocabulary that scores best; our own reading of Hydra-MDP, see README.md.

    Args:
        kwargs: As for :class:`SensorPlanner`; ``trajectory_head`` is a :class:`VocabularyHead`, bare or
            wrapped.
    """

    head_type = VocabularyHead
