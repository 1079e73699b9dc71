"""Waits of the host for a GPU that no debug mode sees.

``torch.cuda.set_sync_debug_mode("error")`` refuses operations that make the host wait. A wait that is asked
for by an event, such as that of :func:`beyonddrive.structures.transfers.to_host`, is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Waits:
    """How often the host has waited for an event."""

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
    torch.cuda.set_sync_debug_mode("error")
    try:
        with counting(waits):
            yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def told(steps: int, waits: Waits) -> str:
    """Steps and their waits in words.

    >>> told(10, Waits()), told(10, Waits(10))
    ('10 steps without a wait', '10 steps, in each of which the host waited for an event 1 times')
    """
    if not waits.count:
        return f"{steps} steps without a wait"
    return f"{steps} steps, in each of which the host waited for an event {waits.count / steps:g} times"
