"""A hook that keeps what ranks hold beside their weights the same on all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sized

import torch
from mmengine.dist import all_gather, all_gather_object, all_reduce, broadcast, get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor

from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.devices import describe_mixture, device_name
from beyonddrive.registry import HOOKS


@HOOKS.register_module()
class RankAgreementHook(Hook):
    """Makes the running statistics of all ranks one before they are used; does nothing in a single process.

    Distributed training keeps weights the same on all ranks, but batch norms update their running means and
    variances from the rank's own part of each batch. Left alone, every rank validates another network, and
    rank 0's is saved. This hook averages the statistics over the ranks at the end of an epoch and before a
    validation, also those of an exponential moving average of the weights; the runner does before it saves.

    Losses are means over batches of equal size on all ranks; a sampler that gives ranks different numbers of
    samples is refused. Ranks on different kinds of devices are told of in the log of rank 0.
    """

    priority = "VERY_HIGH"  # before what mines, swaps, validates or saves

    def before_train(self, runner: Runner) -> None:
        """Check that all ranks have as many samples; say if they compute on different kinds of devices.

        Raises:
            ConfigError: If they have not.
        """
        if get_world_size() > 1:
            _check_samples(getattr(runner.train_dataloader, "sampler", None))
            names = all_gather_object(device_name(next(runner.model.parameters()).device))
            if get_rank() == 0 and (mixture := describe_mixture(names)):
                runner.logger.warning(mixture)

    def after_train_epoch(self, runner: Runner) -> None:
        """Average the running statistics."""
        agree(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Average the running statistics, for loops without epochs."""
        agree(runner)


def _check_samples(sampler: object) -> None:
    """Refuse a sampler that gives ranks different numbers of samples."""
    if not isinstance(sampler, Sized):
        return
    counts = [int(count) for count in all_gather(torch.tensor(len(sampler)))]
    if len(set(counts)) > 1:
        raise ConfigError(
            f"train_dataloader.sampler: {type(sampler).__name__} gives the ranks {counts} samples: ranks "
            f"with fewer would end their epoch before the others. Use type='RoundDownSampler', or a "
            f"sampler with round_up=True"
        )


def agree(runner: Runner) -> None:
    """Make the buffers of a model, and of its averages, the same on all ranks; every rank calls it."""
    if get_world_size() > 1:
        agree_on_buffers(runner.model.buffers())
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                agree_on_buffers(hook.ema_model.buffers())


@torch.no_grad()
def agree_on_buffers(buffers: Iterable[Tensor]) -> None:
    """Make buffers the same on all ranks: floats their mean, anything else that of rank 0.

    Elements that are the same everywhere stay to the bit, as those of a vocabulary of plans must; a mean of
    equal numbers can be off by a rounding.
    """
    groups: dict[torch.dtype, list[Tensor]] = {}
    for buffer in buffers:
        groups.setdefault(buffer.dtype, []).append(buffer)
    for dtype, group in groups.items():
        flat = torch.cat([buffer.flatten() for buffer in group])
        if dtype.is_floating_point:
            least, most, mean = flat.clone(), flat.clone(), flat.clone()
            all_reduce(least, op="min")
            all_reduce(most, op="max")
            all_reduce(mean, op="mean")
            flat = torch.where(least == most, flat, mean)
        else:
            broadcast(flat)
        for buffer, part in zip(group, flat.split([buffer.numel() for buffer in group]), strict=True):
            buffer.copy_(part.view_as(buffer))
