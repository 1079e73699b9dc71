"""What the scores of all versions tell about plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from beyonddrive.evaluation.pdm.kernels.arrays import Flags, Floats, Ints


@dataclass(frozen=True, eq=False)
class PlanScores:
    """Scores of N plans of one scene, and what explains them.

    Attributes:
        columns: Names of the S scores.
        values: (N, S) float64 in the order of ``columns``.
        nc_time: (N,) time of the first at-fault collision [s], inf for none.
        ttc_time: (N,) time of the first infraction of the time to collision [s], inf for none.
        nc_object: (N,) index of the object hit, into ``cache.tracks``; -1 for none.
        ttc_object: (N,) index of the object that is too close; -1 for none.
        areas: (N, 41) uint8 bits ``MULTIPLE_LANES`` .. of :mod:`constants`.
        progress: (N,) metres along the centre line, before anything is multiplied to it.
        simulated: (N, 41, 11) states every 0.1 s, global: x, y, heading, vx, vy, ax, ay, steering, steering
            rate, yaw rate, yaw acceleration.
    """

    columns: ClassVar[tuple[str, ...]]

    values: Floats
    nc_time: Floats
    ttc_time: Floats
    nc_object: Ints
    ttc_object: Ints
    areas: Flags
    progress: Floats
    simulated: Floats

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> Floats:
        """One column (N,) by name.

        Raises:
            KeyError: If there is no such column.
        """
        if name not in self.columns:
            raise KeyError(f"no score {name!r}; {type(self).__name__} has {', '.join(self.columns)}")
        return self.values[:, self.columns.index(name)]
