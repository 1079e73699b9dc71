"""A checkpoint's way into a planner: read, recognised, translated, checked, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.model import BaseModel, is_model_wrapper
from torch import nn

from beyonddrive.checkpoints.conversion import Conversion, lacks_data, to_native
from beyonddrive.checkpoints.published_planners import build_unfilled, published_model
from beyonddrive.checkpoints.recognition import is_official
from beyonddrive.checkpoints.releases import ConversionError
from beyonddrive.checkpoints.weight_files import WeightFile, read_weights
from beyonddrive.engine.checkpoint_files import CheckpointError, check_weights


def has_weights(planner: nn.Module) -> bool:
    """Whether using the planner without a checkpoint would be using random weights."""
    return next(planner.parameters(), None) is not None


def load_weights(planner: nn.Module, path: str | Path | None) -> None:
    """Load a checkpoint, of this suite or of an original release, into a planner: all of it, or an error.

    Args:
        planner: The planner, or mmengine's wrapper of it for distributed runs.
        path: Written by ``beyonddrive train``, ``beyonddrive convert`` or an original's code; weights
            alone; or either saved from a compiled or distributed module. None for a planner without weights.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is needed and not given, damaged, of another planner or size, or holds NaN; the
            planner is unchanged then.
        ConversionError: If it is an original's, and incomplete or of no known planner.
    """
    bare: nn.Module = planner.get_submodule("module") if is_model_wrapper(planner) else planner
    if path is None:
        if has_weights(bare):
            raise CheckpointError(
                f"planner {type(bare).__name__} has weights: give the checkpoint to use (beyonddrive train "
                "leaves best_pdms_PDMS_*.pth in its work folder)"
            )
        return
    file = in_our_names(read_weights(path), str(path))
    check_weights(bare, file.state, path, file.meta.get("planner"))
    # Not strict, because mmengine's counters of batches may be absent; all else has been checked.
    bare.load_state_dict(file.state, strict=False)


def in_our_names(file: WeightFile, source: str) -> WeightFile:
    """Weights of a file as a planner takes them: those of an original release are converted.

    Raises:
        ConversionError: If they are an original's, and incomplete or of no known planner.
    """
    if file.meta.get("absent"):
        raise ConversionError(lacks_data(source, str(file.meta.get("release")), file.meta["absent"]))
    if not is_official(file.state):
        return file
    conversion = to_native(file.state, source=source)
    conversion.require_data(source)
    return WeightFile(conversion.state, {"planner": f"{conversion.model['type']} (official {conversion})"})


def build_planner(conversion: Conversion, changes: Mapping[str, Any] | None = None) -> BaseModel:
    """The planner of a conversion to our names, in evaluation mode.

    Args:
        conversion: Made by :func:`to_native`.
        changes: Settings by dotted key on top of its own.

    Raises:
        ConversionError: If values of the release's data file are missing.
    """
    conversion.require_data("checkpoint")
    model = published_model(conversion.release, {**conversion.settings, **(changes or {})})
    planner = build_unfilled(model)
    planner.load_state_dict(conversion.state, strict=True, assign=False)
    return planner.eval()
