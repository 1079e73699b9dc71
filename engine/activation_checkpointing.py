"""Parts of a planner that compute their activations again in the backward pass instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from inspect import unwrap
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from beyonddrive.engine.config_values import ConfigError, nearest
from beyonddrive.engine.precision import attention_kernels

_compiled: WeakKeyDictionary[nn.Module, Callable[..., Any]] = WeakKeyDictionary()
"""Forward passes of parts that are compiled, too; a copy of a part has none."""


def checkpoint_activations(model: nn.Module, modules: Sequence[str] | str) -> None:
    """Keep no activations of the parts of a model that ``modules`` names (``backbone``, ``decoder``, ...).

    Losses, gradients and running statistics stay as they are; the second pass draws the dropouts of the
    first, and leaves the statistics of batch norms alone.

    Raises:
        ConfigError: If the model has no such part, or training does not call its ``forward``.
    """
    names = [modules] if isinstance(modules, str) else list(modules)
    for part in called_parts(model, names, "activation_checkpointing"):
        # (a bound method: a copy of the planner, such as that of EMAHook, gets one of its own)
        part.forward = MethodType(_outside_graphs(), part)


def called_parts(model: nn.Module, names: Sequence[str], setting: str) -> list[nn.Module]:
    """Parts by name, on which a setting acts through their ``forward``.

    A part whose ``forward`` training does not call, such as a head that trains otherwise than it plans, says
    so by ``trains_by_forward``.

    Args:
        model: A planner.
        names: Names of parts, dotted for those within parts.
        setting: For messages.

    Raises:
        ConfigError: If the model has no such part, or training does not call its ``forward``.
    """
    parts = dict(model.named_modules())
    for name in names:
        if not name or name not in parts:
            hint = nearest(name, set(parts) - {""})
            raise ConfigError(f"{setting}: the planner has no part {name!r}; {hint}")
        if not _is_called(parts[name]):
            able = [
                key for key, part in model.named_children() if list(part.parameters()) and _is_called(part)
            ]
            raise ConfigError(
                f"{setting}: training does not call part {name!r} as a whole, so that it would change "
                f"nothing; choose from {', '.join(able)}, or parts within them or it"
            )
    return [parts[name] for name in names]


def _is_called(part: nn.Module) -> bool:
    """Whether training calls the ``forward`` of a part; lists of modules have none."""
    return type(part).forward is not nn.Module.forward and getattr(part, "trains_by_forward", True)


def is_checkpointed(part: nn.Module) -> bool:
    """Whether a part keeps no activations."""
    return unwrap(part.forward) is _forward


def is_compiled_inside(part: nn.Module) -> bool:
    """Whether what such a part computes is compiled."""
    return part in _compiled


def compile_inside(part: nn.Module, settings: Mapping[str, Any]) -> None:
    """Compile what such a part computes, in both passes."""
    _compiled[part] = torch.compile(type(part).forward, **settings)


@cache
def _outside_graphs() -> Callable[..., Any]:
    """The forward pass of such a part, called as it is by what is compiled around it.

    (made when it is wanted: the decorator imports the compiler, which takes a second)
    """
    return torch.compiler.disable(_forward)  # type: ignore[no-any-return,unused-ignore]


def _forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _as_before(self, attention_kernels())

    forward = MethodType(_compiled.get(self, type(self).forward), self)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _as_before(module: nn.Module, kernels: list[SDPBackend]) -> Iterator[None]:
    """What was computed once is computed again: by the same kernels, and statistics do not count it."""
    # (torch itself takes autocast back, but not the choice of kernels)
    with sdpa_kernel(kernels), _kept_statistics(module):
        yield


@contextmanager
def _kept_statistics(module: nn.Module) -> Iterator[None]:
    """What batch norms add to their running statistics weighs nothing."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    counts = [
        None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
