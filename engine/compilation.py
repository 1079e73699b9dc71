"""``compile=True`` of a config: parts of a planner by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from beyonddrive.engine.activation_checkpointing import (
    called_parts,
    compile_inside,
    is_checkpointed,
    is_compiled_inside,
)
from beyonddrive.engine.config_values import ConfigError

USUAL = "backbone"
"""The part that is compiled if none is named."""


def compile_parts(model: nn.Module, settings: bool | Mapping[str, Any] | None) -> list[str]:
    """Compile parts of a planner in place; weights keep their names.

    mmengine compiles the whole training step, whose checks, losses and optimizer break it into pieces that
    are compiled again whenever a batch has other targets. Parts have inputs of one size and no branches.

    Args:
        model: A planner, perhaps wrapped for distributed training.
        settings: True, or arguments of ``torch.compile`` and ``parts``, names of parts; by default the
            backbone.

    Returns:
        Names of the compiled parts.

    Raises:
        ConfigError: If the planner has no such part, training does not call its ``forward``, or the settings
            are something else.
    """
    if not settings:
        return []
    if not isinstance(settings, (bool, Mapping)):
        raise ConfigError(f"compile={settings!r}: give True, or dict(parts=[...], mode=...)")
    given = {} if isinstance(settings, bool) else dict(settings)
    names = given.pop("parts", [USUAL])
    planner: Any = model.module if is_model_wrapper(model) else model
    names = [names] if isinstance(names, str) else list(names)
    for part in called_parts(planner, names, "compile.parts"):
        if is_checkpointed(part):
            compile_inside(part, given)
        else:
            part.compile(**given)
    return names


def is_compiled(part: nn.Module) -> bool:
    """Whether a part is compiled, itself or what it computes twice for its gradients.

    >>> part = nn.Linear(2, 1)
    >>> names = compile_parts(nn.Sequential(part), {"parts": ["0"], "backend": "eager"})
    >>> is_compiled(part), is_compiled(nn.Linear(2, 1))
    (True, False)
    """
    return part._compiled_call_impl is not None or is_compiled_inside(part)
