"""Scores next to a running training: worker processes that score plans while the step goes on.

Nothing here but the hook imports torch or mmengine.
"""

from beyonddrive.evaluation.service.delivery import NextStepScores
from beyonddrive.evaluation.service.errors import ScenesNotScoredError, ScorerLostError, ScoringServiceError
from beyonddrive.evaluation.service.service import ScoreFuture, ScoringService
from beyonddrive.evaluation.service.settings import ServiceSettings

__all__ = [
    "NextStepScores",
    "ScenesNotScoredError",
    "ScoreFuture",
    "ScorerLostError",
    "ScoringService",
    "ScoringServiceError",
    "ServiceSettings",
]
