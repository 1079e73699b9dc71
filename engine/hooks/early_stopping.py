"""The hook that ends a training which no longer gains, also if it was killed and goes on."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from beyonddrive.registry import HOOKS

_STATE = "early_stopping"
"""Name under which a checkpoint keeps, by figure, the best value, the last one, and how many were no gain."""


@HOOKS.register_module(name="EarlyStoppingHook")
class PlannerEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's ``EarlyStoppingHook``, which goes on counting when a training is resumed.

    A training that was killed then ends after the same epoch as an unbroken one, and one that has ended early
    is at its end; to train on, give another ``patience`` or threshold. (The stock hook begins anew.) It takes
    what mmengine's takes.
    """

    priority = "LOW"  # before the checkpoint of a validation is written, which keeps what this one counts

    def before_train(self, runner: Runner) -> None:
        """Take up the count of the checkpoint that the run goes on from."""
        known = runner.message_hub.runtime_info.get(_STATE, {}).get(self.monitor)
        if known is None:
            return
        self.best_score, last, self.wait_count = known["best"], known["last"], int(known["no_gain"])
        if self._has_reached(last) or self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            runner.logger.info(
                f"{self.monitor} was {last:.4f} and {self.best_score:.4f} at best: this training has ended "
                "early, so nothing is trained; to go on give EarlyStoppingHook more patience"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Decide whether to stop, and note the count."""
        super().after_val_epoch(runner, metrics)
        if metrics is None or self.monitor not in metrics:
            return
        counted = {
            "best": float(self.best_score),
            "last": float(metrics[self.monitor]),
            "no_gain": self.wait_count,
        }
        known = runner.message_hub.runtime_info.get(_STATE, {})
        runner.message_hub.update_info(_STATE, {**known, self.monitor: counted})

    def _has_reached(self, score: float) -> bool:
        """Whether a value ends a training by itself."""
        if self.check_finite and not math.isfinite(score):
            return True
        limit = self.stopping_threshold
        return limit is not None and bool(self.rule_map[self.rule](score, limit))
