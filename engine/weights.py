"""Whether a checkpoint fits a planner: all of it, or an error that says what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.engine.mmengine_compat import CheckpointError

# Counts batches for a running average with momentum=None, which no planner uses; mmengine ignores it too.
_IGNORED = "num_batches_tracked"
_SHOWN = 5


def _shorten(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def nonfinite_keys(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity.

    >>> nonfinite_keys({'a': torch.ones(2), 'b': torch.tensor([1.0, float('nan')])})
    ['b']
    """
    return [
        key
        for key, value in state_dict.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]


def check_weights(
    planner: nn.Module, checkpoint: Mapping[str, Any], file: str, name: str | None = None
) -> None:
    """Refuse a checkpoint that is not exactly one of this planner.

    Args:
        planner: The model that will take the weights.
        checkpoint: What the file holds: ``state_dict`` and, if this suite wrote it, ``meta``.
        file: Name of the file, for messages.
        name: Name of the planner; by default that of its class.

    Raises:
        CheckpointError: If there is no ``state_dict``, a key is missing, unexpected or of another shape, or a
            weight is NaN or infinite. Nothing has been loaded then.

    >>> check_weights(nn.Linear(2, 1), {'state_dict': nn.Linear(2, 1).state_dict()}, 'a.pth')
    """
    name = name or type(planner).__name__
    state_dict = checkpoint.get("state_dict")
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"{file}: has no 'state_dict' (its keys: {_shorten(sorted(map(str, checkpoint)))}); "
            "use a checkpoint written by tools/train.py or tools/convert_checkpoint.py"
        )
    wanted = planner.state_dict()
    missing = [key for key in wanted if key not in state_dict and not key.endswith(_IGNORED)]
    unexpected = [key for key in state_dict if key not in wanted and not key.endswith(_IGNORED)]
    shapes = [
        f"{key} {tuple(state_dict[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state_dict and state_dict[key].shape != wanted[key].shape
    ]
    faults = [
        f"{len(keys)} {what} ({_shorten(keys)})"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if keys
    ]
    if faults:
        saved = checkpoint.get("meta", {}).get("planner")
        origin = f"it was saved from planner {saved}" if saved else "it does not say which planner it is from"
        raise CheckpointError(
            f"{file}: does not fit planner {name}: {'; '.join(faults)}. Nothing was loaded; {origin}. "
            "Use the config that it was trained with (tools/train.py leaves it beside the checkpoint)"
        )
    broken = nonfinite_keys(state_dict)
    if broken:
        raise CheckpointError(
            f"{file}: {len(broken)} weights of planner {name} hold NaN or infinity ({_shorten(broken)}): the "
            "training diverged; use an earlier checkpoint"
        )
