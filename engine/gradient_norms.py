"""Norms of the gradients that optimizers are given, on their device: those of clipping, or measured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor
from torch.utils.hooks import RemovableHandle


@torch.no_grad()
def norm_of_gradients(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """The norm () of all gradients of an optimizer; None if there are none."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else None


def on_update(wrapper: OptimWrapper, hear: Callable[[Tensor], None]) -> RemovableHandle:
    """Call ``hear`` with the norm () of the gradients right before each update of an optimizer.

    Where gradients are clipped by their norm it is the one that clipping found, before it acted, and costs
    nothing. Otherwise it is measured, of what clipping by value left.

    However many listen, it is measured once.

    Returns:
        What ends it by ``remove()``.
    """
    if not hasattr(wrapper, "norm_listeners"):
        wrapper.norm_listeners = OrderedDict()

        def tell(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            if not wrapper.norm_listeners:
                return
            norm = vars(wrapper).pop("clipped_norm", None)
            norm = norm_of_gradients(optimizer) if norm is None else norm
            if norm is not None:
                for listener in wrapper.norm_listeners.values():
                    listener(norm)

        wrapper.optimizer.register_step_pre_hook(tell)
    handle = RemovableHandle(wrapper.norm_listeners)
    wrapper.norm_listeners[handle.id] = hear
    return handle
