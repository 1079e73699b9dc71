"""The hook that ends a training whose loss is NaN or infinite, and says of which scenes and which term."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from beyonddrive.engine.resuming import last_written
from beyonddrive.registry import HOOKS
from beyonddrive.structures.errors import BeyondDriveError


class NonFiniteLossError(BeyondDriveError, RuntimeError):
    """A loss is NaN or infinite; the message names the step, the terms, the scenes and the checkpoint."""


class _Step(NamedTuple):
    """A step whose losses are on their way to the host.

    Attributes:
        iteration: Number of the step, counted from 1 as in the log.
        epoch: Likewise.
        names: Terms and total.
        values: (K,) their values on the CPU, once ``arrived`` has happened.
        arrived: The end of the copy; None if nothing has to be waited for.
        tokens: Scenes of this rank's batch.
        own: Terms of this rank's own scenes, still on the device; empty in a single process.
    """

    iteration: int
    epoch: int
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None
    tokens: tuple[str, ...]
    own: Mapping[str, Tensor]


@HOOKS.register_module()
class FiniteLossesHook(Hook):
    """Ends a training when a loss is NaN or infinite; every run has it.

    The figures of a step are copied to the host while it runs on, and are looked at when the next step has
    been handed to the device, so no step waits for them. Nothing is saved or validated before that: at the
    end of an epoch, before a validation and before a checkpoint is written they are waited for. What a step
    raises because the one before it has ruined the weights is reported as what it is, see
    :meth:`PlannerRunner.train`.

    In distributed training the figures are means over the ranks, so that all ranks stop after the same step;
    each says which scenes it had, and whether it was its own that gave the value. With accumulation every
    batch is looked at. Gradients are not: with a gradient scaler infinite ones are part of the work.

    Raises:
        NonFiniteLossError: When the training is to end.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._waiting: _Step | None = None
        self._own: dict[str, Tensor] = {}
        self._listener: Any = None

    def before_train(self, runner: Runner) -> None:
        """Listen to the terms of this rank's own scenes."""
        self._waiting, self._own = None, {}
        if get_world_size() > 1:
            planner = runner.model.module if is_model_wrapper(runner.model) else runner.model
            self._listener = planner.register_forward_hook(self._hear)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Send the losses of this step on their way, and look at those of the one before."""
        before, self._waiting = self._waiting, self._send(runner, data_batch, outputs)
        _check(runner, before)

    def check_now(self, runner: Runner) -> None:
        """Wait for the losses of the last step, and look at them."""
        before, self._waiting = self._waiting, None
        _check(runner, before)

    def after_train_epoch(self, runner: Runner) -> None:
        """Nothing is made of an epoch that has failed."""
        self.check_now(runner)

    def before_val(self, runner: Runner) -> None:
        """Nor is it validated."""
        self.check_now(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Nor saved."""
        self.check_now(runner)

    def after_train(self, runner: Runner) -> None:
        """Nor does it end well."""
        self.check_now(runner)
        if self._listener is not None:
            self._listener.remove()
            self._listener = None

    def _hear(self, planner: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, dict):
            self._own = {name: value for name, value in output.items() if "loss" in name}

    def _send(self, runner: Runner, data_batch: Any, outputs: Any) -> _Step | None:
        terms = {name: value for name, value in (outputs or {}).items() if "loss" in name}
        if not terms:
            return None
        tensors = [torch.as_tensor(value).detach().float().reshape(()) for value in terms.values()]
        device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
        arrived = None
        if device is None or device.type != "cuda":
            values = torch.stack([tensor.cpu() for tensor in tensors])
        else:
            values = torch.empty(len(tensors), pin_memory=True)
            values.copy_(torch.stack([tensor.to(device) for tensor in tensors]), non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        own = {name: value.detach() for name, value in self._own.items() if isinstance(value, Tensor)}
        self._own = {}
        tokens = _tokens_of(data_batch)
        return _Step(runner.iter + 1, runner.epoch + 1, tuple(terms), values, arrived, tokens, own)


def _tokens_of(data_batch: Any) -> tuple[str, ...]:
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    return tuple(str(getattr(sample, "metainfo", {}).get("token", "?")) for sample in samples or ())


def _check(runner: Runner, step: _Step | None) -> None:
    """Refuse to go on after a step whose losses are not finite."""
    if step is None:
        return
    if step.arrived is not None:
        step.arrived.synchronize()
    found = zip(step.names, step.values.tolist(), strict=True)
    broken = {name: value for name, value in found if not math.isfinite(value)}
    if broken:
        raise NonFiniteLossError(_describe(runner, step, broken))


def _describe(runner: Runner, step: _Step, broken: Mapping[str, float]) -> str:
    # The total is what its terms are; it is named only where no term is to blame.
    terms = {name: value for name, value in broken.items() if name != "loss"} or broken
    shown = ", ".join(f"{name} is {value:g}" for name, value in terms.items())
    whose = "scenes of the batch"
    if get_world_size() > 1:
        guilty = [name for name in terms if name in step.own and not step.own[name].isfinite().all()]
        rank = f"rank {get_rank()} of {get_world_size()}"
        if guilty:
            whose = f"{rank} gave {', '.join(guilty)}; its scenes"
        else:
            whose = f"{rank} gave finite terms, see the messages of the others; its scenes"
    checkpoint = last_written(runner)
    if checkpoint is None:
        remedy = "no checkpoint had been written"
    else:
        remedy = f"the last good checkpoint is {checkpoint}, go on from it with --resume {checkpoint}"
    return (
        f"step {step.iteration} (epoch {step.epoch}): {shown}, and the training ends; {whose}: "
        f"{', '.join(step.tokens) or 'without tokens'}. {remedy}. If these scenes fail by themselves, look "
        "at their inputs and targets (beyonddrive browse); if others fail as well, the weights diverged: "
        "lower optim_wrapper.optimizer.lr, set optim_wrapper.clip_grad, or train without mixed precision"
    )
