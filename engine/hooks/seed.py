"""A hook that makes each epoch's random numbers a function of the seed, the epoch and the rank."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed

from beyonddrive.registry import HOOKS

_EPOCH_STRIDE = 10_007
"""Distance of the seeds of two epochs: more than there are ranks."""


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds dropout anew at the start of every training epoch, and noise that no scene owns.

    A resumed run then continues exactly as the uninterrupted one would have, and the ranks of a distributed
    run drop different units although they start from the same weights. A training by iterations, which may
    be resumed at any step, is seeded anew at every step. What planners draw for a scene does not depend on
    this seed (:class:`SceneRandomHook`).
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed ``random``, numpy and torch."""
        _seed(runner, runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed them at every step, if the training counts steps."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            _seed(runner, runner.iter)


def _seed(runner: Runner, number: int) -> None:
    set_random_seed((runner.seed + _EPOCH_STRIDE * (number + 1) + get_rank()) % 2**32)
