"""What a training step leaves to the host, and the tape that finds it when steps are recorded and replayed.

A recorded step repeats what the GPU did, not what the host did. Two things are done on the host in every
step: random numbers of the scenes (:mod:`beyonddrive.structures.scene_random`) and the matching of agents.
Both ask here whether a tape is running, and leave the work with it if so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from beyonddrive.structures.transfers import to_device, to_host

Solver = Callable[[NDArray[Any]], NDArray[Any]]


class Tape(Protocol):
    """Notes the host's part of a step, and does it in every step that is replayed."""

    def next_source(self) -> int:
        """Number of the next source of random numbers of the step, counted from 0."""

    def draw(self, source: int, method: str, *args: int) -> Tensor:
        """A tensor (B, ...) on the device that holds the random numbers of whichever step is done.

        Args:
            source: Number of the source.
            method: Name of the method of ``SceneRandom`` that draws.
            *args: Its arguments.
        """

    def solve(self, values: Tensor, solver: Solver) -> Tensor:
        """The answer of ``solver`` to values on the device, found anew in every step."""


_running: Tape | None = None


def running_tape() -> Tape | None:
    """The tape of the step that is being recorded, None in an ordinary step."""
    return _running


@contextmanager
def recording(tape: Tape | None) -> Iterator[None]:
    """Leave the host's work of a step with a tape; None: do it at once."""
    global _running
    earlier, _running = _running, tape
    try:
        yield
    finally:
        _running = earlier


def solve_on_host(values: Tensor, solver: Solver) -> Tensor:
    """Have numpy solve what GPUs cannot; the answer has no gradient. On a GPU the host waits for the values.

    Args:
        values: Copied to the host.
        solver: From an array to an array.

    >>> solve_on_host(torch.tensor([3.0, 1.0]), lambda values: values.argsort())
    tensor([1, 0])
    """
    if _running is not None:
        return _running.solve(values.detach(), solver)
    return to_device(torch.from_numpy(solver(to_host(values.detach()).numpy())), values.device)
