"""Samplers of data loaders."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import DefaultSampler

from beyonddrive.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RoundDownSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, which leaves out what does not divide by the ranks, not repeats scenes.

    With ``drop_last`` the steps of an epoch are then the same, and each step has the same scenes, for any
    number of ranks that share a batch; repeated scenes can fill up one batch more. Which scenes are left out
    changes with every epoch if they are shuffled.

    Args:
        dataset: The data set.
        **kwargs: ``shuffle`` and ``seed`` as for ``DefaultSampler``.

    >>> list(RoundDownSampler(range(5), shuffle=False))
    [0, 1, 2, 3, 4]
    """

    def __init__(self, dataset: Any, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.round_up = False
        self.num_samples = len(dataset) // self.world_size
        self.total_size = self.num_samples * self.world_size
