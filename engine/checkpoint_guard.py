"""The hook that every runner has: what it saves and loads is of its planner and without NaN."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from beyonddrive.engine.checkpoint_files import CheckpointError, check_weights, nonfinite_keys
from beyonddrive.registry import HOOKS
from beyonddrive.version import __version__


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Signs checkpoints with planner and version, and refuses those that do not fit or hold NaN.

    Without it mmengine loads whatever keys happen to match and leaves the rest at random values.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add planner and version to ``meta``; refuse to save a planner that has diverged."""
        broken = nonfinite_keys(checkpoint["state_dict"])
        if broken:
            raise CheckpointError(
                f"planner {runner.model_name} diverged: {len(broken)} weights hold NaN or infinity, first "
                f"{broken[0]}. Nothing was saved; lower optim_wrapper.optimizer.lr or clip_grad, and "
                "continue with --resume from the last checkpoint"
            )
        checkpoint["meta"].update(planner=runner.model_name, beyonddrive_version=__version__)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check all keys, shapes and values before anything is loaded."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_weights(
            model,
            checkpoint["state_dict"],
            checkpoint.get("file", "checkpoint"),
            origin=checkpoint.get("meta", {}).get("planner"),
            name=runner.model_name,
        )
