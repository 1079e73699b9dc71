"""A hook with which the first epochs of a training see coarse pictures, which makes them faster."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.registry import HOOKS


@HOOKS.register_module()
class CoarseStartHook(Hook):
    """Trains the first epochs on inputs averaged over squares of pixels, and the others on whole ones.

    With ``factor=2`` both branches of a TransFuser backbone have a quarter of the pixels. Their weights do
    not depend on the size of a picture, so the last epochs go on with them; leave enough of those for the
    running statistics of batch norms and for details, half or a third. Plans of a validation are made from
    whole pictures in every epoch, and are poor while training is coarse.

    Args:
        epochs: Epochs that are coarse, from the first one.
        factor: Pixels a side of a square.

    Raises:
        ConfigError: If the planner has no such backbone, the training has no epoch after them or counts
            steps, or the factor does not divide the sizes of the backbone's inputs.
    """

    priority = "VERY_HIGH"

    def __init__(self, epochs: int, factor: int = 2) -> None:
        self.epochs, self.factor = epochs, factor

    def before_train(self, runner: Runner) -> None:
        """Refuse what cannot start coarse."""
        backbone = _backbone(runner)
        if not hasattr(backbone, "coarseness"):
            raise ConfigError(
                f"CoarseStartHook: {type(backbone).__name__} cannot see coarsely; remove the hook, or give "
                f"the planner a TransFuserBackbone"
            )
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError("CoarseStartHook: epochs are counted, but train_cfg.by_epoch is False")
        if not 0 < self.epochs < runner.max_epochs:
            raise ConfigError(
                f"CoarseStartHook: epochs={self.epochs} of {runner.max_epochs}: at least one must be coarse, "
                f"and the last one may not be"
            )
        sizes = (*backbone.image_size, *backbone.bev_size)
        if self.factor < 2 or any(size % self.factor for size in sizes):
            raise ConfigError(
                f"CoarseStartHook: factor={self.factor} must be 2 or more and divide the sizes of images and "
                f"bird's-eye views, {sizes}"
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Choose what this epoch sees."""
        _backbone(runner).coarseness = self.factor if runner.epoch < self.epochs else 1


def _backbone(runner: Runner) -> Any:
    planner = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return getattr(planner, "backbone", planner)
