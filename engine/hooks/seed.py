"""A hook that makes each epoch's random numbers a function of the seed, the epoch and the rank."""

from __future__ import annotations

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from beyonddrive.registry import HOOKS

_EPOCH_STRIDE = 10_007
"""Distance of the seeds of two epochs: more than there are ranks."""


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds dropout and noise anew at the start of every training epoch.

    A resumed run then continues exactly as the uninterrupted one would have, and the ranks of a distributed
    run draw different noise although they start from the same weights.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed ``random``, numpy and torch."""
        set_random_seed((runner.seed + _EPOCH_STRIDE * (runner.epoch + 1) + get_rank()) % 2**32)
