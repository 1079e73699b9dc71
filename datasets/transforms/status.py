"""The ego status with parts of it hidden: what a planner is not told it cannot copy."""

from __future__ import annotations

from collections.abc import Sequence

from beyonddrive.datasets.transforms.base import HIDDEN, BaseTransform, Results
from beyonddrive.registry import TRANSFORMS

PARTS = {
    "command": slice(0, 4),
    "velocity": slice(4, 6),
    "acceleration": slice(6, 8),
    "acceleration_ahead": slice(6, 7),
}
"""Where the parts of ``status`` are (MODELS, section 1)."""


@TRANSFORMS.register_module()
class HideStatus(BaseTransform):
    """Sets parts of ``status`` to zero; stands in the ``pipeline`` of all of a config's data sets.

    A planner that is told its acceleration goes on with what it does. In a closed loop it is told its own:
    once it brakes it brakes the harder. It is no augmentation: what training hides is hidden everywhere.

    Args:
        parts: ``'command'``, ``'velocity'``, ``'acceleration'``, or of the last ``'acceleration_ahead'``
            alone: what it is to the side tells a planner how it turns.

    Raises:
        ValueError: If there is no such part, or no ``status`` in a sample.

    >>> import numpy as np
    >>> HideStatus(["acceleration"])({"status": np.arange(8)})["status"].tolist()
    [0, 1, 2, 3, 4, 5, 0, 0]
    """

    def __init__(self, parts: Sequence[str]) -> None:
        if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
            raise ValueError(f"HideStatus: parts must be a list of {', '.join(PARTS)}, got {parts!r}")
        self.parts = tuple(parts)

    def transform(self, results: Results) -> Results:
        """Read and replace ``status``."""
        if "status" not in results:
            raise ValueError(
                "HideStatus: there is no status; take it out of the pipeline, or put EgoStatus into the "
                "feature_pipeline"
            )
        status = results["status"].copy()
        for part in self.parts:
            status[PARTS[part]] = 0
        return {**results, "status": status, HIDDEN: (*results.get(HIDDEN, ()), *self.parts)}
