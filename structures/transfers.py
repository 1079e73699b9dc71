"""Copies between host and device for which neither waits, and checks whose answer is read later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def to_device(value: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy to ``device``; the host goes on at once, as a copy to a GPU goes through pinned memory.

    >>> to_device(torch.ones(2), torch.device('meta')).device
    device(type='meta')
    """
    if device.type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    # (a copy that changes the type as well would be staged in memory that is not pinned)
    return value.to(device, non_blocking=True).to(dtype or value.dtype)


def numbers_on(device: torch.device, numbers: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
    """A few numbers (N,) as a tensor, made on the device: ``torch.tensor`` would copy them there, and wait.

    >>> numbers_on(torch.device('cpu'), [1, 2]), numbers_on(torch.device('cpu'), [1, 2], torch.float32)
    (tensor([1, 2]), tensor([1., 2.]))
    """
    return torch.stack([torch.full((), number, device=device, dtype=dtype) for number in numbers])


def to_host(value: Tensor) -> Tensor:
    """Copy to the CPU, whole when this returns: on a GPU the host waits for what was asked before.

    It waits for an event of the current stream, not for the device, so that work on other streams goes on.
    """
    return start_to_host(value)() if value.device.type == "cuda" else value.cpu()


def start_to_host(value: Tensor) -> Callable[[], Tensor]:
    """Start a copy to the CPU; calling what is returned waits for it.

    >>> start_to_host(torch.ones(()))()
    tensor(1.)
    """
    if value.device.type != "cuda":
        host = value.detach().to("cpu", copy=True)
        return lambda: host
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    host.copy_(value, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def wait() -> Tensor:
        event.synchronize()
        return host

    return wait


class LateChecks:
    """Checks of tensors that cost no wait: on a GPU an error is raised at one of the next checks.

    On the CPU the answer is there at once, and so is the error. On a GPU the answer is copied to pinned
    memory, and read once it has arrived, by a later call or by :meth:`finish`. Tensors without data (device
    ``meta``) pass.

    Args:
        limit: Answers that may be open; if there are more, the oldest is waited for.

    >>> checks = LateChecks()
    >>> checks(torch.tensor(True), lambda: ValueError('never'))
    >>> checks(torch.tensor(False), lambda: ValueError('scene a holds NaN'))
    Traceback (most recent call last):
        ...
    ValueError: scene a holds NaN
    """

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._open: deque[tuple[Tensor, Any, Callable[[], Exception]]] = deque()

    def __call__(self, passed: Tensor, error: Callable[[], Exception]) -> None:
        """Raise ``error()``, now or later, unless the boolean scalar ``passed`` is true."""
        if passed.device.type != "cuda":
            if passed.device.type != "meta" and not bool(passed):
                raise error()
            return
        if torch.cuda.is_current_stream_capturing():
            return  # nothing can be read while a step is recorded: who records has checked its scenes
        host = torch.empty((), dtype=torch.bool, pin_memory=True)
        host.copy_(passed, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._open.append((host, event, error))
        self._read(wait_above=self.limit)

    def finish(self) -> None:
        """Wait for the open answers."""
        self._read(wait_above=0)

    def _read(self, wait_above: int) -> None:
        while self._open:
            host, event, error = self._open[0]
            if len(self._open) > wait_above:
                event.synchronize()
            elif not event.query():
                return
            self._open.popleft()
            if not bool(host):
                self._open.clear()
                raise error()

    def __deepcopy__(self, memo: dict[int, Any]) -> LateChecks:
        """A copy of a planner has no answers open."""
        return LateChecks(self.limit)

    def __reduce__(self) -> tuple[type[LateChecks], tuple[int]]:
        """Pickled without the open answers."""
        return LateChecks, (self.limit,)


def finish_checks(module: nn.Module) -> None:
    """Wait for the open checks of a module and of its parts, and raise what they found."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, LateChecks):
                value.finish()
