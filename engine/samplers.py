"""Samplers of data loaders."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import DefaultSampler

from beyonddrive.engine.wrapped_datasets import tell_epoch
from beyonddrive.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RoundDownSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, which leaves out what does not divide by the ranks, not repeats scenes.

    With ``drop_last`` the steps of an epoch are then the same, and each step has the same scenes, for any
    number of ranks that share a batch; repeated scenes can fill up one batch more. Which scenes are left out
    changes with every epoch if they are shuffled. It also tells augmentations of the data set which epoch it
    is, in trainings that count epochs and in those that count steps.

    Args:
        dataset: The data set.
        **kwargs: ``shuffle`` and ``seed`` as for ``DefaultSampler``.

    Raises:
        ValueError: If ``round_up`` is set.

    >>> list(RoundDownSampler(range(5), shuffle=False))
    [0, 1, 2, 3, 4]
    """

    def __init__(self, dataset: Any, **kwargs: Any) -> None:
        if kwargs.get("round_up"):
            raise ValueError("RoundDownSampler: rounds down; for round_up=True use type='DefaultSampler'")
        super().__init__(dataset, **kwargs)
        self.round_up = False
        self.num_samples = len(dataset) // self.world_size
        self.total_size = self.num_samples * self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Shuffle, and let the data set draw, for an epoch."""
        super().set_epoch(epoch)
        tell_epoch(self.dataset, epoch)
