"""A hook that makes the anchors or the mixture of a new planner from the experts of its training data."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import broadcast, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from numpy.typing import NDArray
from torch import nn

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.engine.wrapped_datasets import unwrapped
from beyonddrive.registry import HOOKS
from beyonddrive.structures.errors import BeyondDriveError


class ExpertPriorError(BeyondDriveError, ValueError):
    """The training data cannot give expert plans; the message says what to do instead."""


@HOOKS.register_module()
class ExpertPriorHook(Hook):
    """Clusters the expert plans of the training split before training, for planners that start from them.

    Does nothing if the planner has no anchors or mixture, if a checkpoint has brought them, or if its config
    names a vocabulary file for them. They become part of the checkpoints of the run.

    Args:
        max_scenes: Scenes to cluster, spread evenly over the split.
        seed: Seed of the clustering.
    """

    priority = "VERY_HIGH"

    def __init__(self, max_scenes: int = 20000, seed: int = 0) -> None:
        if max_scenes < 1:
            raise ExpertPriorError(f"ExpertPriorHook: max_scenes must be at least 1, got {max_scenes}")
        self.max_scenes = max_scenes
        self.seed = seed

    def before_train(self, runner: Runner) -> None:
        """Fill what is empty.

        Raises:
            ExpertPriorError: If the training data set is no ``NavsimDataset``.
            VocabularyError: If it has too few different expert plans.
        """
        priors = [prior for prior in _priors(runner.model) if prior.missing and prior.path is None]
        if not priors:
            return
        plans = _read_once(runner.train_dataloader.dataset, self.max_scenes)
        for prior in priors:
            prior.fit(plans, self.seed)
            for buffer in prior.buffers():
                broadcast(buffer)  # processes that round differently must not differ
            runner.logger.info(f"{prior.user}: {prior.size} {prior.what} from {len(plans)} expert plans")


def _read_once(dataset: Any, max_scenes: int) -> NDArray[np.float64]:
    """:func:`expert_plans` on all ranks, read by rank 0; what it raises there is raised everywhere."""
    found: list[Any] = [None]
    if is_main_process():
        try:
            found = [expert_plans(dataset, max_scenes)]
        except Exception as error:
            # The other ranks wait for this one, and would until their timeout.
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    plans: NDArray[np.float64] = found[0]
    return plans


def _priors(planner: nn.Module) -> list[Any]:
    """Parts of a planner that are fitted to expert plans, known by what they do: heads are another wing."""
    return [module for module in planner.modules() if hasattr(module, "fit") and hasattr(module, "missing")]


def expert_plans(dataset: Any, max_scenes: int) -> NDArray[np.float64]:
    """Expert plans (S, 8, 3) of a data set, evenly spread if there are more than ``max_scenes``.

    Raises:
        ExpertPriorError: If it is no ``NavsimDataset``, nor wrappers of some.
        DatasetError: If a scene cannot be read.
    """
    parts = [_plans_of(part, max_scenes) for part in unwrapped(dataset)]
    plans = np.concatenate(parts)
    return plans[_spread(len(plans), max_scenes)]


def _plans_of(dataset: Any, max_scenes: int) -> NDArray[np.float64]:
    """Expert plans of a data set without wrapper."""
    if not isinstance(dataset, NavsimDataset):
        raise ExpertPriorError(
            f"ExpertPriorHook: cannot read expert plans from a {type(dataset).__name__}: name a vocabulary "
            f"file in the trajectory head of the config"
        )
    chosen = _spread(len(dataset), max_scenes)
    return np.stack([dataset.expert_plan(int(index)) for index in chosen])


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most ``limit`` of ``count`` indices, evenly spread.

    >>> _spread(5, 2).tolist(), _spread(2, 5).tolist()
    ([0, 2], [0, 1])
    """
    kept = min(count, limit)
    return np.arange(kept) * count // max(kept, 1)
