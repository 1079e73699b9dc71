"""Waits of the host for a GPU that no debug mode sees.

``torch.cuda.set_sync_debug_mode("error")`` refuses operations that make the host wait. A wait that is asked
for by an event, such as that of :func:`beyonddrive.structures.transfers.to_host`, is none of these. Between
steps a hook may wait now and then, to write a line of a log; there waits are counted and nothing is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_SYNCHRONIZES = "synchronizing CUDA operation"
"""What torch says of an operation that makes the host wait."""


@dataclass
class Waits:
    """How often the host has waited."""

    count: int = 0


@contextmanager
def counting(waits: Waits) -> Iterator[None]:
    """Count the waits for events of this process while the context lasts."""
    original = torch.cuda.Event.synchronize

    def counted(event: Any) -> Any:
        waits.count += 1
        return original(event)

    torch.cuda.Event.synchronize = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.cuda.Event.synchronize = original  # type: ignore[method-assign]


@contextmanager
def refused(waits: Waits) -> Iterator[None]:
    """Have waits within operations fail on a GPU, and count those for events."""
    with _debug_mode("error"), counting(waits):
        yield


@contextmanager
def noticed(waits: Waits) -> Iterator[None]:
    """Count waits within operations on a GPU as well as those for events."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def counted(message: Warning | str, *rest: Any, **more: Any) -> None:
            if _SYNCHRONIZES in str(message):
                waits.count += 1
            else:
                show(message, *rest, **more)

        warnings.filterwarnings("always", message=f".*{_SYNCHRONIZES}")
        warnings.showwarning = counted
        with _debug_mode("warn"), counting(waits):
            yield


@contextmanager
def _debug_mode(mode: str) -> Iterator[None]:
    """Let operations that make the host wait warn or fail."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def told(steps: int, waits: Waits) -> str:
    """Steps and their waits in words.

    >>> told(10, Waits()), told(10, Waits(10))
    ('10 steps without a wait', '10 steps, in each of which the host waited for an event 1 times')
    """
    if not waits.count:
        return f"{steps} steps without a wait"
    return f"{steps} steps, in each of which the host waited for an event {waits.count / steps:g} times"
