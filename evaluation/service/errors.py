"""What can go wrong with scores next to a training."""

from __future__ import annotations

from collections.abc import Mapping

from beyonddrive.structures.errors import BeyondDriveError


class ScoringServiceError(BeyondDriveError, RuntimeError):
    """The service cannot score: it is closed, or its workers cannot start."""


class ScorerLostError(ScoringServiceError):
    """A scorer process died, was started again, and died again over the same scene."""


class ScenesNotScoredError(ScoringServiceError):
    """Scenes of a batch have no scores.

    Attributes:
        reasons: Token -> why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        token, reason = next(iter(self.reasons.items()))
        more = f"; {len(self.reasons) - 1} more of this batch" if len(self.reasons) > 1 else ""
        super().__init__(f"scene {token} cannot be scored: {reason}{more}")

    def __reduce__(self) -> tuple[type[ScenesNotScoredError], tuple[dict[str, str]]]:
        return type(self), (self.reasons,)
