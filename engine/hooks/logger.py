"""The hook that logs figures: mmengine's, with gradient norms, memory, and the step of a validation."""

from __future__ import annotations

import functools
import resource
from collections import defaultdict
from typing import Any

import torch
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from torch import Tensor

from beyonddrive.engine.gradient_norms import on_update
from beyonddrive.engine.resuming import named_wrappers
from beyonddrive.registry import HOOKS


@HOOKS.register_module()
class PlannerLoggerHook(LoggerHook):
    """mmengine's logger hook, which also logs what a recipe does not by itself.

    ``grad_norm`` of recipes that do not clip it: the norm of the gradients that the optimizer is given, kept
    on the device until the next line of the log; of several optimizers each has a ``<name>.grad_norm``.
    ``memory`` [MiB] without a GPU: the most that the process has had resident (with one, mmengine logs what
    torch has allocated on it). A visualizer that asks for it is told which step the figures are of, see
    :meth:`PlanVisualizer.now_at`.

    Args:
        kwargs: As for ``LoggerHook``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._norms: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._listeners: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Listen to the optimizers, unless clipping gives the norm."""
        for name, wrapper in named_wrappers(runner.optim_wrapper).items():
            if getattr(wrapper, "grad_name", None) != "grad_norm":
                figure = f"train/{name}.grad_norm" if name else "train/grad_norm"
                hear = functools.partial(self._hear, figure, wrapper.optimizer)
                self._listeners.append(on_update(wrapper, hear))

    def after_train(self, runner: Runner) -> None:
        """Listen no more."""
        for listener in self._listeners:
            listener.remove()
        self._listeners = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log, if it is time."""
        if self._is_due(runner, batch_idx):
            if not torch.cuda.is_available():
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                runner.message_hub.update_scalar("train/memory", peak)
            for figure, norms in self._norms.items():
                for norm in torch.stack(norms).tolist():
                    runner.message_hub.update_scalar(figure, norm)
            self._norms.clear()
        _tell(runner, "train", runner.iter + 1)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the figures of a validation."""
        _tell(runner, "val", runner.iter)
        super().after_val_epoch(runner, metrics)

    def _is_due(self, runner: Runner, batch_idx: int) -> bool:
        return bool(
            self.every_n_inner_iters(batch_idx, self.interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
        )

    def _hear(self, figure: str, optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
        # A fused optimizer is given the gradients as scaled, and the scale.
        scale = getattr(optimizer, "grad_scale", None)
        self._norms[figure].append(norm if scale is None else norm / scale)


def _tell(runner: Runner, phase: str, iteration: int) -> None:
    if hasattr(runner.visualizer, "now_at"):
        runner.visualizer.now_at(phase, iteration)
