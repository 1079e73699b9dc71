"""A hook that gives every sample of a training step a seed of its own."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from beyonddrive.registry import HOOKS
from beyonddrive.structures.scene_random import SEED_KEY, step_seed


@HOOKS.register_module()
class SceneRandomHook(Hook):
    """Makes a scene's noise a function of the run's seed, the step and the scene's token.

    So the numbers that planners draw in training (noise, diffusion times, anchors) do not depend on how a
    batch is split over ranks, nor on what was drawn before a run was stopped; see :class:`SceneRandom`.
    Samples without a token are left alone.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Put the seed into the ``metainfo`` of the samples."""
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
        for sample in samples or ():
            token = sample.metainfo.get("token")
            if token is not None:
                sample.set_metainfo({SEED_KEY: step_seed(runner.seed, runner.iter, token)})
