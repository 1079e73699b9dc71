"""The hook that every runner has: what it saves and loads is of its planner and without NaN."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from beyonddrive.engine.checkpoint_files import CheckpointError, check_weights, nonfinite_keys
from beyonddrive.engine.resuming import (
    GRADIENTS,
    check_continuation,
    how_to_go_on,
    restore_gradients,
    sign_steps,
)
from beyonddrive.registry import HOOKS
from beyonddrive.structures.sample import tokens_of_batch
from beyonddrive.version import __version__


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Signs checkpoints with planner and version, and refuses those that do not fit or hold NaN.

    Without it mmengine loads whatever keys happen to match and leaves the rest at random values. It also
    refuses to go on from a checkpoint that a training cannot go on from.
    """

    def __init__(self) -> None:
        self._gradients: list[dict[str, Tensor]] | None = None
        self._last = ""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note which scenes the weights have seen last."""
        tokens = ", ".join(tokens_of_batch(data_batch)) or "without tokens"
        self._last = (
            f"step {runner.iter + 1} (epoch {runner.epoch + 1}) was the last, with the scenes {tokens}. "
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add planner and version to ``meta``; refuse to save a planner that has diverged."""
        broken = nonfinite_keys(checkpoint["state_dict"])
        if broken:
            raise CheckpointError(
                f"planner {runner.model_name} diverged: {len(broken)} weights hold NaN or infinity, first "
                f"{broken[0]}. {self._last}Nothing was saved, {how_to_go_on(runner)}; lower "
                "optim_wrapper.optimizer.lr or clip_grad"
            )
        checkpoint["meta"].update(planner=runner.model_name, beyonddrive_version=__version__)
        sign_steps(runner, checkpoint["meta"])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check all keys, shapes and values before anything is loaded, and whether a training may go on."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_weights(
            model,
            checkpoint["state_dict"],
            checkpoint.get("file", "checkpoint"),
            origin=checkpoint.get("meta", {}).get("planner"),
            name=runner.model_name,
        )
        if getattr(runner, "is_resumed", False):
            check_continuation(runner, checkpoint)
            self._gradients = checkpoint.pop(GRADIENTS, None)

    def before_train(self, runner: Runner) -> None:
        """Give back the gradients that waited for more steps when the checkpoint was written."""
        gradients, self._gradients = self._gradients, None
        if gradients is not None:
            restore_gradients(runner, gradients)
