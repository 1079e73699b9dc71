"""The hook that every runner has: what it saves and loads is of its planner and without NaN."""

from __future__ import annotations

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from beyonddrive.engine.checkpoint_files import CheckpointError, check_weights, nonfinite_keys
from beyonddrive.engine.resuming import (
    COUNTS,
    GRADIENTS,
    check_continuation,
    check_data,
    how_to_go_on,
    restore_gradients,
    sign,
)
from beyonddrive.engine.wrapped_datasets import fingerprints
from beyonddrive.registry import HOOKS
from beyonddrive.structures.sample import tokens_of_batch
from beyonddrive.version import __version__


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Signs checkpoints with planner, version and data, and refuses those that do not fit or hold NaN.

    Without it mmengine loads whatever keys happen to match and leaves the rest at random values. It also
    refuses to go on from a checkpoint that a training cannot go on from, or not with these data.

    Args:
        allow_other_data: Whether a training may go on with other scenes, logs, negatives or vocabulary scores
            than it began with, such as a pool that was mined again.
    """

    def __init__(self, allow_other_data: bool = False) -> None:
        self.allow_other_data = allow_other_data
        self._data: list[dict[str, Any]] | None = None
        self._gradients: list[dict[str, Tensor]] | None = None
        self._counts: dict[str, int] = {}
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
        """Add planner, version and data to ``meta``; refuse to save a planner that has diverged."""
        broken = nonfinite_keys(checkpoint["state_dict"])
        if broken:
            raise CheckpointError(
                f"planner {runner.model_name} diverged: {len(broken)} weights hold NaN or infinity, first "
                f"{broken[0]}. {self._last}Nothing was saved, {how_to_go_on(runner)}; lower "
                "optim_wrapper.optimizer.lr or clip_grad"
            )
        checkpoint["meta"].update(planner=runner.model_name, beyonddrive_version=__version__)
        sign(runner, checkpoint["meta"], self._data_of(runner))

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
            check_data(runner, checkpoint, self._data_of(runner), self.allow_other_data)
            self._gradients = checkpoint.pop(GRADIENTS, None)
            self._counts = checkpoint.pop(COUNTS, {})

    def _data_of(self, runner: Runner) -> list[dict[str, Any]]:
        """Fingerprints of the training data, as they were when they were first asked for."""
        if self._data is None:
            self._data = fingerprints(runner.train_dataloader.dataset)
        return self._data

    def before_train(self, runner: Runner) -> None:
        """Look at the data, and give back the gradients that waited for more steps."""
        if is_main_process():  # it alone writes checkpoints
            self._data_of(runner)
        gradients, self._gradients = self._gradients, None
        if gradients is not None:
            restore_gradients(runner, gradients, self._counts)
