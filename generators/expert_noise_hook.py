"""A control: noise on the expert, as large as the distance of the hard negative, and no repulsion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from beyonddrive.datasets.stores.selection import Distance, check_distance, squared_distance
from beyonddrive.registry import HOOKS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.perturbation import perturbed
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SEED_KEY

_SALT = 0x4E6F6973
"""Keeps the directions apart from the numbers that planners draw with the same seed."""


class ExpertNoiseError(BeyondDriveError, RuntimeError):
    """A sample lacks what the noise needs."""


@HOOKS.register_module()
class ExpertNoiseHook(Hook):
    """Moves the expert of every sample that has a negative as far as the negative is, in a random direction.

    What is learned is then the same samples with noise of the same size, and nothing is repelled: the
    negatives become invalid. The direction is drawn anew in each step, by the scene's own seed of that step
    (:class:`~beyonddrive.engine.hooks.scene_random.SceneRandomHook`).

    Args:
        share: Size of the noise in distances of the negative.
        distance: ``wrapped`` or ``reference``, as for the selection.

    Raises:
        ValueError: If an argument is out of range.
        ExpertNoiseError: In training, if a sample has no negatives or no seed.
    """

    priority = "HIGH"

    def __init__(self, share: float = 1.0, distance: Distance = "wrapped") -> None:
        if not share > 0.0:
            raise ValueError(f"ExpertNoiseHook: share must be positive, got {share}")
        check_distance(distance)
        self.share, self.distance = share, distance

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Change the samples of the batch."""
        for sample in data_batch["data_samples"]:
            self.disturb(sample)

    def disturb(self, sample: PlanSample) -> None:
        """Move the expert of a sample, and make its negatives invalid."""
        token, seed = sample.metainfo.get("token"), sample.metainfo.get(SEED_KEY)
        if "negatives" not in sample or seed is None:
            lacks = "seed" if "negatives" in sample else "negatives"
            raise ExpertNoiseError(
                f"ExpertNoiseHook: scene {token} has no {lacks}; give the data set the field negatives, and "
                "keep the SceneRandomHook"
            )
        valid = sample.negatives.valid
        if bool(valid.any()):
            expert = sample.gt.trajectory.numpy().astype(np.float64)
            plan = sample.negatives.plans[valid][0].numpy()
            size = float(squared_distance(plan, expert, self.distance)) * self.share**2
            direction = np.random.default_rng([_SALT, seed]).normal(size=2)
            sample.gt.trajectory = torch.from_numpy(perturbed(expert, size, direction).astype(np.float32))
            sample.negatives.valid = torch.zeros_like(valid)
