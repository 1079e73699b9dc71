"""Memory that a service shares with a worker: plans go in and scores come out without being pickled.

It has no name in any file system, so nothing of it stays when the processes that hold it end, by whatever.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.plan import NUM_POSES

_PLAN = NUM_POSES * 3


class SharedSlots:
    """Slots of a scene each: plans (max_plans, 8, 3), and scores and failure times (max_plans, columns).

    Args:
        depth: Slots.
        max_plans: Plans of a scene.
        columns: Scores of a plan.
        descriptor: File of the memory, made by another process; None makes it.
    """

    def __init__(self, depth: int, max_plans: int, columns: int, descriptor: int | None = None) -> None:
        width = _PLAN + 2 * columns
        size = depth * max_plans * width * np.dtype(np.float64).itemsize
        self.descriptor = _anonymous_file(size) if descriptor is None else descriptor
        self._map = mmap.mmap(self.descriptor, size)
        flat = np.frombuffer(self._map, np.float64)
        cut = depth * max_plans * _PLAN
        self.plans: NDArray[np.float64] = flat[:cut].reshape(depth, max_plans, NUM_POSES, 3)
        self.scores: NDArray[np.float64] = flat[cut:].reshape(2, depth, max_plans, columns)

    def close(self) -> None:
        """Give the memory back; the arrays must not be used any more."""
        del self.plans, self.scores
        self._map.close()
        os.close(self.descriptor)


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("beyonddrive-plans")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
