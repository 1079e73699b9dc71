"""What augmentations share: transforms behind the cache whose draws depend on seed, epoch and scene alone."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.structures.digests import number_of


class Augmentation(BaseTransform):
    """A random change of a training sample; stands in the ``pipeline`` of a data set, before it is packed.

    What is drawn for a scene follows from the seed, the epoch and the token, so that it is the same however
    many workers and ranks read the scenes, and in a resumed training. The epoch is in shared memory, where
    workers that outlive an epoch see it change.

    Args:
        seed: Of the draws; two augmentations of one kind in one pipeline need two seeds.
        probability: Share of the samples that are changed.
    """

    def __init__(self, seed: int = 0, probability: float = 1.0) -> None:
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"{type(self).__name__}: probability must be in [0, 1], got {probability}")
        self.seed, self.probability = seed, probability
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw anew; called between epochs, when no worker reads (``engine.wrapped_datasets.tell_epoch``)."""
        self._epoch.fill_(epoch)

    def transform(self, results: Results) -> Results:
        """Read ``token``; change what the augmentation changes."""
        text = f"{type(self).__name__}/{self.seed}/{int(self._epoch)}/{results['token']}"
        rng = np.random.default_rng(number_of(text))
        return self.change(results, rng) if rng.random() < self.probability else results

    @abstractmethod
    def change(self, results: Results, rng: np.random.Generator) -> Results:
        """Change a sample."""
