"""Lines that simulated vehicles drive along (EPDMS_TWO_STAGE, sections 4.3, 4.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from beyonddrive.evaluation.pdm.kernels.arrays import Floats


@dataclass(frozen=True, eq=False)
class Rail:
    """The baseline that a vehicle drives along, without its last vertex.

    Attributes:
        xy: (R, 2) vertices.
        heading: (R,) directions, unwrapped.
        length: (R,) arc lengths along the whole baseline [m].
    """

    xy: Floats
    heading: Floats
    length: Floats

    def pose(self, progress: float) -> Floats:
        """Pose (3,) at an arc length, clamped to the rail; heading in [-pi, pi)."""
        at = min(max(progress, self.length[0]), self.length[-1])
        heading = float(np.interp(at, self.length, self.heading))
        return np.array(
            [
                np.interp(at, self.length, self.xy[:, 0]),
                np.interp(at, self.length, self.xy[:, 1]),
                (heading + math.pi) % (2 * math.pi) - math.pi,
            ]
        )

    def ahead(self, pose: Floats, progress: float) -> Floats:
        """A pose's position and the vertices beyond an arc length (n, 2); the last two if there are none."""
        at = min(max(progress, self.length[0]), self.length[-1])
        rest = self.xy[np.searchsorted(self.length, at, side="right") :]
        return np.vstack([pose[:2], rest]) if len(rest) else self.xy[-2:]

    def part(self, start: float, end: float) -> Floats:
        """The piece (n, 2) between two arc lengths, clamped; two vertices at the end that has nothing."""
        low, high = self.length[0], self.length[-1]
        start, end = min(max(start, low), high), min(max(end, low), high)
        first = int(np.searchsorted(self.length, start, side="right"))
        last = int(np.searchsorted(self.length, end, side="left"))
        if first >= len(self.xy):
            return self.xy[-2:]
        if last <= 0:
            return self.xy[:2]
        return np.vstack([self.pose(start)[:2], self.xy[first:last], self.pose(end)[:2]])
