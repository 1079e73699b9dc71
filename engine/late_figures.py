"""Figures of a step that are read when somebody looks at them: a remedy for mmengine.

mmengine's message hub turns each figure that it is given into a number at once. On a GPU that waits for the
step to end, several times a step, before the next one can be handed over. Here a figure that is on a GPU is
copied to the host while the step runs on, and becomes a number when the hub is read: by the log, once in
``interval`` steps, or by a checkpoint. Who reads one figure waits for that one alone: mmengine's timer reads
its own in every step. The gradient norm that clipping gives is such a figure, too.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch import Tensor

from beyonddrive.structures.transfers import start_to_host

LIMIT = 8192
"""Figures that may wait; a log that is never written must not fill the memory."""
_QUEUES = "_late_figures"


def _is_late(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _queueing(update: Callable[..., None]) -> Callable[..., None]:
    """``MessageHub.update_scalar`` that keeps what would have to be waited for."""

    @functools.wraps(update)
    def update_scalar(self: MessageHub, key: str, value: Any, *args: Any, **kwargs: Any) -> None:
        queues: dict[str, deque[Callable[[], None]]] = self.__dict__.setdefault(_QUEUES, {})
        if key not in queues and not _is_late(value):
            update(self, key, value, *args, **kwargs)
            return
        # (a number that comes after a figure of its name that waits must not overtake it)
        wait = start_to_host(value.detach().reshape(())) if _is_late(value) else lambda: value
        queues.setdefault(key, deque()).append(lambda: update(self, key, wait(), *args, **kwargs))
        if sum(map(len, queues.values())) > LIMIT:
            read_late_figures(self)

    return update_scalar


def read_late_figures(hub: MessageHub, key: str | None = None) -> None:
    """Wait for the figures that are on their way; with a ``key``, for those of this name only."""
    queues: dict[str, deque[Callable[[], None]]] = hub.__dict__.get(_QUEUES, {})
    for name in list(queues) if key is None else [key]:
        queue = queues.pop(name, deque())
        while queue:
            queue.popleft()()


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the hub that shows figures."""

    @functools.wraps(method)
    def read(self: MessageHub, *args: Any, **kwargs: Any) -> Any:
        read_late_figures(self)
        return method(self, *args, **kwargs)

    return read


def _reading_one(get: Callable[..., Any]) -> Callable[..., Any]:
    """``MessageHub.get_scalar``, which in mmengine looks at all figures."""

    @functools.wraps(get)
    def get_scalar(self: MessageHub, key: str) -> Any:
        read_late_figures(self, key)
        return self._log_scalars[key] if key in self._log_scalars else get(self, key)

    return get_scalar


def _clip_grad(self: OptimWrapper) -> None:
    """As in mmengine, but the norm stays on the device; the wrapper keeps it as ``clipped_norm``."""
    parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
    parameters = [p for p in parameters if p.requires_grad and p.grad is not None]
    if not parameters:
        return
    norm = self.clip_func(parameters, **self.clip_grad_kwargs)
    if norm is not None:  # (clip_grad_value_ gives none)
        self.clipped_norm = torch.as_tensor(norm)
        self.message_hub.update_scalar(f"train/{self.grad_name}", self.clipped_norm)


def apply() -> None:
    """Install the remedy; calling it again changes nothing."""
    if OptimWrapper._clip_grad is _clip_grad:
        return
    OptimWrapper._clip_grad = _clip_grad
    MessageHub.update_scalar = _queueing(MessageHub.update_scalar)
    MessageHub.get_scalar = _reading_one(MessageHub.get_scalar)
    MessageHub.state_dict = _reading(MessageHub.state_dict)
    MessageHub.log_scalars = property(_reading(MessageHub.log_scalars.fget))
