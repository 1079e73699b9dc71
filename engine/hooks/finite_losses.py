"""The hook that ends a training whose losses or gradients are NaN or infinite, and says of which scenes."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from beyonddrive.engine.gradient_norms import on_update
from beyonddrive.engine.resuming import how_to_go_on, single_wrappers
from beyonddrive.registry import HOOKS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.sample import tokens_of_batch

_GRADIENTS = "the norm of the gradients"
"""Name of what is looked at beside the losses."""
_REMEMBERED = 64
"""Batches before an update whose scenes can be named."""


class NonFiniteLossError(BeyondDriveError, RuntimeError):
    """A loss or a gradient is NaN or infinite; the message names step, terms, scenes and checkpoint."""


class _Step(NamedTuple):
    """A step whose figures are on their way to the host.

    Attributes:
        iteration: Number of the step, counted from 1 as in the log.
        epoch: Likewise.
        names: Terms and total of the loss; the norm of the gradients, if the step has updated the weights.
        values: (K,) their values on the CPU, once ``arrived`` has happened.
        arrived: The end of the copy; None if nothing has to be waited for.
        tokens: Scenes of this rank's batch.
        accumulated: Scenes of the batches whose gradients the step has, the last one included.
        own: Terms of this rank's own scenes, still on the device; empty in a single process.
    """

    iteration: int
    epoch: int
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None
    tokens: tuple[str, ...]
    accumulated: tuple[str, ...]
    own: Mapping[str, Tensor]


@HOOKS.register_module()
class FiniteLossesHook(Hook):
    """Ends a training when a loss or a gradient is NaN or infinite; every run has it.

    The figures of a step are copied to the host while it runs on, and are looked at when the next step has
    been handed to the device, so no step waits for them. Nothing is saved or validated before that: at the
    end of an epoch, before a validation and before a checkpoint is written they are waited for. What a step
    raises because the one before it has ruined the weights is reported as what it is, see
    :meth:`PlannerRunner.train`.

    In distributed training the figures are means over the ranks, so that all ranks stop after the same step;
    each says which scenes it had, and whether it was its own that gave the value. With accumulation every
    batch is looked at.

    Gradients are looked at by their norm, also before clipping, so that one that float32 cannot hold ends the
    training, too. Not with a gradient scaler, for which infinite ones are part of the work, nor where each
    rank has a part of them only; there the losses of the next step tell.

    Raises:
        NonFiniteLossError: When the training is to end.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._waiting: _Step | None = None
        self._own: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self._batches: deque[tuple[str, ...]] = deque(maxlen=_REMEMBERED)
        self._listeners: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Listen to the terms of this rank's own scenes, and to the gradients."""
        self._stop_listening()
        self._waiting, self._own, self._norms = None, {}, {}
        self._batches.clear()
        if get_world_size() > 1:
            planner = runner.model.module if is_model_wrapper(runner.model) else runner.model
            self._listeners.append(planner.register_forward_hook(self._hear))
            if not isinstance(runner.model, DistributedDataParallel):
                return
        wrappers = single_wrappers(runner.optim_wrapper)
        for number, wrapper in enumerate(wrappers, start=1):
            scaler = getattr(wrapper, "loss_scaler", None)
            if scaler is None or not scaler.is_enabled():
                name = f"{_GRADIENTS} of optimizer {number}" if len(wrappers) > 1 else _GRADIENTS
                self._listeners.append(on_update(wrapper, functools.partial(self._norms.__setitem__, name)))

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
        self._stop_listening()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.remove()
        self._listeners = []

    def _hear(self, planner: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, dict):
            self._own = {name: value for name, value in output.items() if "loss" in name}

    def _send(self, runner: Runner, data_batch: Any, outputs: Any) -> _Step | None:
        tokens = tokens_of_batch(data_batch)
        self._batches.append(tokens)
        terms = {name: value for name, value in (outputs or {}).items() if "loss" in name} | self._norms
        accumulated = tokens
        if self._norms:
            accumulated = tuple(token for batch in self._batches for token in batch)
            self._norms.clear()
            self._batches.clear()
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
        return _Step(
            runner.iter + 1, runner.epoch + 1, tuple(terms), values, arrived, tokens, accumulated, own
        )


def _check(runner: Runner, step: _Step | None) -> None:
    """Refuse to go on after a step whose losses or gradients are not finite."""
    if step is None:
        return
    if step.arrived is not None:
        step.arrived.synchronize()
    found = zip(step.names, step.values.tolist(), strict=True)
    broken = {name: value for name, value in found if not math.isfinite(value)}
    if broken:
        raise NonFiniteLossError(_describe(runner, step, broken))


def _describe(runner: Runner, step: _Step, broken: Mapping[str, float]) -> str:
    losses = {name: value for name, value in broken.items() if not name.startswith(_GRADIENTS)}
    # The total is what its terms are; it is named only where no term is to blame.
    terms = {name: value for name, value in losses.items() if name != "loss"} or losses
    shown = ", ".join(f"{name} is {value:g}" for name, value in (terms or broken).items())
    tokens, whose = step.tokens, "scenes of the batch"
    if not terms:
        shown += ", the losses are finite"
        tokens = step.accumulated
        if len(tokens) > len(step.tokens):
            whose = "scenes of the batches since the last update"
    if get_world_size() > 1:
        guilty = [name for name in terms if name in step.own and not step.own[name].isfinite().all()]
        rank = f"rank {get_rank()} of {get_world_size()}"
        if not terms:
            whose = f"{rank}, and gradients are means over all; its {whose}"
        elif guilty:
            whose = f"{rank} gave {', '.join(guilty)}; its scenes"
        else:
            whose = f"{rank} gave finite terms, see the messages of the others; its scenes"
    return (
        f"step {step.iteration} (epoch {step.epoch}): {shown}, and the training ends; {whose}: "
        f"{', '.join(tokens) or 'without tokens'}. {how_to_go_on(runner)}. If these scenes fail by "
        "themselves, look at their inputs and targets (beyonddrive browse); if others fail as well, the "
        "weights diverged: lower optim_wrapper.optimizer.lr, set optim_wrapper.clip_grad, or train without "
        "mixed precision"
    )
